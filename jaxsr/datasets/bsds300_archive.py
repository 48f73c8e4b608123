"""BSDS300 as its authors publish it: one archive, downloaded or already there, packed or not.

Its 22 MB are read in memory: nothing of an archive is unpacked to disk.
"""

import http.client
import io
import lzma
import pathlib
import tarfile
import urllib.request
import zlib

import numpy as np
import PIL.Image
import tqdm

from jaxsr.errors import InputError

HOMEPAGE = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/bsds/"
ADDRESS = HOMEPAGE + "BSDS300-images.tgz"
COUNTS = {"train": 200, "test": 100}
_TIMEOUT = 30  # seconds without an answer


def read(source: pathlib.Path | None) -> dict[str, dict[str, bytes]]:
    """Each split's JPEG files by id, in the order of the split's list; all of them can be decoded.

    Args:
      source: the archive, its unpacked folder, or a folder that holds one of them under its own
        name; None downloads the archive.

    Raises:
      InputError: it cannot be downloaded or read, or is not all of BSDS300.
    """
    if source is None:
        place: str | pathlib.Path = ADDRESS
        files = _unpacked(download(), place)
    else:
        try:
            place = _find(source)
            files = _folder(place) if place.is_dir() else _unpacked(place.read_bytes(), place)
        except OSError as error:
            raise InputError(f"`{source}` cannot be read: {error.strerror}") from error
    return {split: _split(files, split, place) for split in COUNTS}


def decode(jpeg: bytes) -> np.ndarray:
    """An image file's pixels, (H, W, 3) uint8, as Pillow decodes them."""
    with PIL.Image.open(io.BytesIO(jpeg)) as picture:
        return np.array(picture.convert("RGB"))


def download() -> bytes:
    """The archive from its authors' address, with a bar.

    Raises:
      InputError: it cannot be had, or not all of it.
    """
    try:
        with urllib.request.urlopen(ADDRESS, timeout=_TIMEOUT) as response:
            size = int(response.headers.get("Content-Length") or 0)
            bar = tqdm.tqdm.wrapattr(response, "read", total=size or None, desc="BSDS300")
            with bar as stream:
                data = b"".join(iter(lambda: stream.read(2**16), b""))
        if len(data) < size:
            raise OSError(f"{len(data)} of {size} bytes came")
    except (OSError, http.client.HTTPException) as error:
        raise InputError(
            f"BSDS300 cannot be downloaded ({getattr(error, 'reason', None) or error}): get "
            f"{ADDRESS} by hand and name the file, or its unpacked folder, with `--manual-dir`"
        ) from error
    return data


def _find(source: pathlib.Path) -> pathlib.Path:
    """The folder with the lists of ids, or the archive, at or in `source`."""
    for place in (source, source / "BSDS300", source / "BSDS300-images.tgz"):
        if place.is_file() or (place / "iids_train.txt").is_file():
            return place
    reason = "iids_train.txt is not in it" if source.exists() else "it does not exist"
    raise InputError(
        f"`{source}` must be BSDS300's archive ({ADDRESS}) or its unpacked folder: {reason}"
    )


def _folder(root: pathlib.Path) -> dict[str, bytes]:
    paths = [*root.glob("iids_*.txt"), *root.glob("images/*/*.jpg")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def _unpacked(data: bytes, place: str | pathlib.Path) -> dict[str, bytes]:
    """As `_folder`, from the bytes of a tar file, compressed or not."""
    files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                name = member.name.rpartition("BSDS300/")[2].removeprefix("./")
                wanted = member.isfile() and name.startswith(("iids_", "images/"))
                stream = archive.extractfile(member) if wanted else None
                if stream:
                    files[name] = stream.read()
            while archive.fileobj and archive.fileobj.read(2**16):
                pass  # to the end, where the checksum is
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError) as error:
        raise InputError(
            f"`{place}` is cut off or not an archive of BSDS300: get {ADDRESS} again"
        ) from error
    return files


def _split(files: dict[str, bytes], split: str, place: str | pathlib.Path) -> dict[str, bytes]:
    """The files of a split's list, checked."""
    incomplete = f"`{place}` is not all of BSDS300"
    listed = dict.fromkeys(files.get(f"iids_{split}.txt", b"").decode("ascii", "replace").split())
    if len(listed) != COUNTS[split]:
        count = f"{len(listed)} images, not {COUNTS[split]}"
        raise InputError(f"{incomplete}: its iids_{split}.txt lists {count}")
    names = {key: f"images/{split}/{key}.jpg" for key in listed}
    missing = [name for name in names.values() if name not in files]
    if missing:
        raise InputError(f"{incomplete}: {missing[0]} is missing, of {split} {len(missing)} in all")
    for name in names.values():
        try:
            decode(files[name])
        except Exception as error:  # decoders raise all kinds of exceptions on damaged files
            raise InputError(f"{incomplete}: {name} is damaged or cut off") from error
    return {key: files[name] for key, name in names.items()}
