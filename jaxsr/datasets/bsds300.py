"""The images of BSDS300 (Martin, Fowlkes, Tal and Malik, ICCV 2001), kept prepared on this machine.

`tensorflow_datasets`, which keeps them, is imported on the first `load` and not before.
"""

import contextlib
import io
import os
import pathlib
import textwrap

import numpy as np

from jaxsr import files
from jaxsr.datasets.bsds300_archive import COUNTS, decode
from jaxsr.errors import InputError


def load(
    split: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
) -> list[np.ndarray]:
    """The images of a split, (H, W, 3) uint8, in the order of the authors' list.

    On first use the data set is downloaded and prepared, whole or not at all; after that only
    `data_dir` is looked at.

    Args:
      split: "train", of 200 images, or "test", of 100.
      data_dir: where TFDS keeps prepared data sets. Default: jaxsr/datasets in $XDG_CACHE_HOME or
        ~/.cache.
      manual_dir: the authors' archive, its unpacked folder, or a folder that holds one of them, in
        place of the download.

    Raises:
      InputError: there is no such split; the data set cannot be downloaded, is incomplete or
        damaged, or cannot be written; tensorflow-datasets is not installed.
    """
    if split not in COUNTS:
        raise InputError(f"`split` (={split}) must be one of {', '.join(COUNTS)}")
    try:
        import tensorflow_datasets as tfds

        from jaxsr.datasets.bsds300_builder import BSDS300
    except ModuleNotFoundError as error:
        raise InputError(
            f"BSDS300 needs {error.name}, which is not installed: pip install -e '.[data]'"
        ) from error
    root = pathlib.Path(data_dir) if data_dir else files.cache() / "datasets"
    options = {"source": pathlib.Path(manual_dir) if manual_dir else None, "data_dir": root}
    try:
        builder = BSDS300(**options)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # it announces unknown sizes
                builder.download_and_prepare()  # nothing where that was done before
        except FileExistsError:  # another process was faster
            builder = BSDS300(**options)
        raw = {"image": tfds.decode.SkipDecoding()}
        examples = [decode(e["image"]) for e in builder.as_data_source(split, decoders=raw)]
        if len(examples) != COUNTS[split]:
            raise ValueError(f"{len(examples)} images in {split}, not {COUNTS[split]}")
    except InputError:
        raise
    except MemoryError:
        raise InputError("BSDS300 is too large for this machine's memory") from None
    except Exception as error:  # TFDS and ArrayRecord raise all kinds of exceptions
        folder = root / BSDS300.name
        reason = textwrap.shorten(str(error) or type(error).__name__, 200)
        if (folder / str(BSDS300.VERSION)).exists():
            what = f"`{folder}` cannot be read: {reason}; if its files are damaged, delete it"
            raise InputError(what) from error
        raise InputError(f"BSDS300 cannot be prepared in `{root}`: {reason}") from error
    return examples
