"""Orbax at work without its log on the terminal."""

import logging
import threading


class _Quiet:
    """Orbax logs what is no news to the user, and errors that it also raises.

    A context, in several threads at once: the last to leave it has the logger speak again.
    """

    def __init__(self) -> None:
        self._lock, self._inside, self._level = threading.Lock(), 0, logging.NOTSET

    def __enter__(self) -> None:
        logger = logging.getLogger("absl")
        with self._lock:
            if not self._inside:
                self._level = logger.level
                logger.setLevel(logging.CRITICAL)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                logging.getLogger("absl").setLevel(self._level)


quiet = _Quiet()
