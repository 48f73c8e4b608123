"""Finished cells of a long experiment, each a JSON record, so that runs add up over days, machines.

A cell is what was computed once and for all: an image by a method with a seed, say. Its record
holds the settings it was made under, its figures, the seconds it took, the device and the versions.
A record made under other settings is never mixed in: it is refused.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxsr import reports
from jaxsr.errors import InputError

Record = dict[str, Any]


class Ledger:
    """The records below a folder, by name: `METHOD/IMAGE_seed0` is `METHOD/IMAGE_seed0.json`."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

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
            made = record["settings"]
        except (OSError, ValueError, KeyError, TypeError) as error:
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

        Raises:
          InputError: the file cannot be written.
        """
        path = self.folder / f"{name}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"`{path.parent}` cannot be made: {error.strerror}") from error
        record = {"settings": settings, **figures, "seconds": seconds, **environment}
        reports.write_json(path, record)
        return record
