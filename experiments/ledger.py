"""Finished cells of a long experiment, each a JSON record, so that runs add up over days, machines.

A cell is what was computed once and for all: an image by a method with a seed, say. A record made
under other settings is never mixed in: it is refused. NAME.json below the ledger's folder holds

    settings      what must match: the row's name, protocol, precision, image, the method's own
                  settings, digests of weights, and `input_sha256` of the image's decoded pixels
    psnr, ssim    as the protocol publishes them; psnr_rgb, ssim_rgb (of colour), psnr_y, ssim_y.
                  "inf" stands for the PSNR of equal images, since JSON has no infinity
    seconds       that the cell took; of a fit those of its iterations, over all calls, without
                  compilation ("nan": unknown)
    device, versions, commit   of the process that computed it; of a fit those of its last call
    rollbacks     of a fit, over all calls (null: unknown)
    history       of a fit: `every` (10), then of the columns of its history.csv (loss, psnr_fit,
                  psnr, psnr_y, psnr_output, psnr_y_output) the values after 10, 20, ... iterations,
                  to six digits
    snapshots     of a fit with NAME_snapshots.png: the iterations of its tiles, from the left

Of the images in `tables.SHOWN` there are crops: NAME.png of the result (seed 0), and in each table
truth/IMAGE.png and lr/IMAGE.png; beside a fit's, NAME_snapshots.png. NAME.claim is there while a
process computes the cell.
"""

import contextlib
import json
import os
import pathlib
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxsr import files, reports
from jaxsr.errors import InputError

Record = dict[str, Any]


_DAMAGE = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError)


class Ledger:
    """The records below a folder, by name: `METHOD/IMAGE_seed0` is `METHOD/IMAGE_seed0.json`.

    figures: numbers that every record holds, besides `seconds`.
    """

    def __init__(
        self, folder: pathlib.Path, *, figures: tuple[str, ...] = ("psnr", "ssim")
    ) -> None:
        self.folder = folder
        self._figures = ("seconds", *figures)

    def read(self, name: str, settings: Mapping[str, Any]) -> Record | None:
        """The record of a finished cell; None where it is missing.

        Raises:
          InputError: it is damaged, or was made under other settings.
        """
        path = self.folder / f"{name}.json"
        if not path.exists():
            return None
        try:
            record: Record = json.loads(path.read_text(encoding="utf-8"))
            made = dict(record["settings"])
            # Infinity, which JSON has no word for, is there as text.
            numbers = (*self._figures, *(k for k in record if k.startswith(("psnr_", "ssim_"))))
            record |= {key: float(record[key]) for key in numbers}
        except (*_DAMAGE, OSError) as error:
            raise InputError(f"`{path}` is damaged ({error!r}): delete it to go on") from error
        for key, value in json.loads(json.dumps(settings)).items():
            if made.get(key) != value:
                raise InputError(
                    f"`{path}` was made with `{key}` (={made.get(key)}), now it is {value}: "
                    "delete it, or choose another `--results`"
                )
        return record

    def write(
        self,
        name: str,
        settings: Mapping[str, Any],
        figures: Mapping[str, Any],
        *,
        seconds: float,
        environment: Mapping[str, Any],
    ) -> Record:
        """Keeps a finished cell; the record.

        figures: and what else is known of it.

        Raises:
          InputError: the file cannot be written.
        """
        record = {"settings": settings, **figures, "seconds": seconds, **environment}
        reports.write_json(self._place(name, ".json"), record)
        return record

    def paths(self, pattern: str) -> list[pathlib.Path]:
        """The records whose names match a glob pattern, in order."""
        # A hidden file may be what a kill left of an unfinished write.
        found = self.folder.glob(f"{pattern}.json")
        return sorted(path for path in found if not path.name.startswith("."))

    def settled(
        self, name: str, known: Callable[[], Record | None], make: Callable[[], Record | None]
    ) -> Record | None:
        """What is known of a cell, else what is made of it, which is told.

        None where another process is at it, which is told as well, or nothing could be made.

        Raises:
          InputError: its claim cannot be written.
        """
        record = known()
        if record is not None:
            return record
        with self.claim(name) as owner:
            if owner is not None:
                claim = f"{self.folder / name}.claim"
                print(f"skipped {name}: by `{claim}` {owner} computes it; if not, delete the file")
                return None
            record = known()  # another process may have finished it since
            if record is None:
                print(f"{name} ...", flush=True)
                record = make()
            return record

    @contextlib.contextmanager
    def claim(self, name: str) -> Iterator[str | None]:
        """Keeps other processes from a cell meanwhile; yields who has it already, None for nobody.

        The claim of a process of this host that is no more is taken over.

        Raises:
          InputError: the file cannot be written.
        """
        path = self._place(name, ".claim")
        owner = _claim(path)
        try:
            yield owner
        finally:
            if owner is None:
                path.unlink(missing_ok=True)

    def _place(self, name: str, suffix: str) -> pathlib.Path:
        path = self.folder / f"{name}{suffix}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"`{path.parent}` cannot be made: {error.strerror}") from error
        return path


def _claim(path: pathlib.Path) -> str | None:
    """Makes the file; who made it, where it is another's."""
    own = {"pid": os.getpid(), "host": socket.gethostname()}
    try:
        folder = files.lock(path.parent, wait=True)
        try:
            # Of the processes of a host one at a time looks whether the owner lives.
            with contextlib.suppress(FileNotFoundError):  # its owner may be done by now
                if _left_behind(path.read_bytes(), own):
                    path.unlink()
            with open(path, "x", encoding="utf-8") as file:
                try:
                    json.dump(own, file)
                    file.flush()
                except OSError:  # a full disk: nobody's claim may stay
                    path.unlink(missing_ok=True)
                    raise
        finally:
            os.close(folder)
    except FileExistsError:
        with contextlib.suppress(OSError):  # it may be gone by now
            return path.read_text(encoding="utf-8", errors="backslashreplace") or "somebody"
        return "somebody"
    except OSError as error:
        raise InputError(f"`{path}` cannot be written: {error.strerror}") from error
    return None


def _left_behind(claim: bytes, own: Mapping[str, Any]) -> bool:
    """Whether a claim is of this host, and its process is no more."""
    try:
        owner = json.loads(claim)
        if owner["host"] != own["host"] or sys.platform == "win32":  # there 0 would be Ctrl-C
            return False
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except (PermissionError, ValueError, KeyError, TypeError, OverflowError):
        return False
    return bool(owner["pid"] == own["pid"])  # of an earlier process that had this number
