"""`make fuzz`: mangled images, weights and checkpoints; each must end in one clear line, or read.

    python -m tests.fuzz --count 200 --seed 0

Sound files of each kind are cut, have bytes flipped, blocks repeated, zeroed or put in their place,
and headers that claim the absurd. What reads them for a user must return something of its contract
or raise `InputError` of one line: no other exception, nothing over ten seconds or 2 GiB.
"""

import argparse
import collections
import io
import json
import pathlib
import pickle
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable

import jax
import numpy as np
import PIL.Image

from experiments import finished, record
from jaxsr import images, pretrained
from jaxsr.checkpoints import Checkpoints
from jaxsr.errors import InputError
from jaxsr.models import LapSRN
from jaxsr.weights import lapsrn_from_mat
from tests.test_weights import SMALL, released, write_mat

SECONDS, GIBIBYTES = 10, 2.0
CONFIG = {"name": "a", "iterations": 2, "factor": 2, "task": "sr"}
FORMATS = ("png", "jpg", "tif", "webp", "gif", "bmp", "tiff")
Reader = Callable[[pathlib.Path], object]


def mangle(random: np.random.Generator, content: bytes) -> bytes:
    """`content` with one of the usual damages."""
    data = bytearray(content)
    size = len(data)
    at = int(random.integers(size))
    span = int(random.integers(1, max(2, size // 4)))
    match int(random.integers(7)):
        case 0:
            return bytes(data[:at])
        case 1:
            for place in random.integers(size, size=1 + size // 200):
                data[place] ^= 1 << int(random.integers(8))
        case 2:
            data[at : at + span] = bytes(len(data[at : at + span]))
        case 3:
            data[at:at] = data[at : at + span]
        case 4:
            data[at : at + span] = random.bytes(len(data[at : at + span]))
        case 5:  # most headers lie there
            data[int(random.integers(min(size, 64)))] = int(random.integers(256))
        case 6:
            place = int(random.integers(min(size, 64)))
            data[place : place + 4] = b"\xff\xff\xff\x7f"
    return bytes(data)


def picture(random: np.random.Generator, suffix: str) -> bytes:
    """A sound file of that format."""
    shape = (*random.integers(4, 40, size=2), int(random.choice([1, 3])))
    values = random.integers(0, 256, shape, dtype=np.uint8)
    file = io.BytesIO()
    image = PIL.Image.fromarray(values.squeeze(-1) if shape[-1] == 1 else values)
    image.save(file, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()))
    return file.getvalue()


def bomb(random: np.random.Generator, kind: int) -> bytes:
    """A PNG file that claims, or unpacks to, far more than it holds."""
    width, height = [(60_000, 60_000), (2**31 - 1, 1), (1, 1), (20_000, 8_000)][kind % 4]

    def chunk(name: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + checksum

    text = zlib.compress(bytes(300_000_000), 9) if kind == 2 else b""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (
            chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
            chunk(b"zTXt", b"note\x00\x00" + text) if text else b"",
            chunk(b"IDAT", zlib.compress(bytes(int(random.integers(1, 10_000_000))), 9)),
            chunk(b"IEND", b""),
        )
    )


class Bomb:
    """Pickled, a command that would run when it is loaded."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str, str], object], tuple[str, str]]:
        return open, (str(self.path), "w")


class Sound:
    """One sound specimen of each kind, below a folder; made once."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        model = LapSRN(factor=2, depth=1, features=4)
        luma = jax.ShapeDtypeStruct((1, 4, 4, 1), np.float32)
        shapes = jax.eval_shape(model.init, jax.random.key(0), luma)
        random = np.random.default_rng(0)
        variables = jax.tree.map(lambda x: random.random(x.shape).astype(np.float32), shapes)
        pretrained.save(folder / "net", model, variables)
        self.tree = {"step": np.arange(3), "key": jax.random.key(1), "x": np.ones((4, 4))}
        with Checkpoints(folder / "run") as checkpoints:
            checkpoints.save(1, self.tree)
        write_mat(folder / "net.mat", released(SMALL)[0])
        fit = folder / "fit"
        fit.mkdir()
        scored = {"psnr": 20.0, "ssim": 0.5}
        metrics = scored | {"iterations": 2, "protocol": "plain", "protocol_description": "plain"}
        metrics |= {"last": scored, "bicubic": scored, "baseline": "bicubic"}
        (fit / "config.json").write_text(json.dumps(CONFIG))
        (fit / "metrics.json").write_text(json.dumps(metrics))
        (fit / "history.csv").write_text("iteration,loss,psnr\n1,0.5,10\n2,0.4,11\n")
        for name in ("lr", "sr", "sr_last", "bicubic", "hr"):
            images.write(fit / f"{name}.png", random.random((16, 16, 3)).astype(np.float32))

    def restore(self, path: pathlib.Path) -> object:
        """The checkpoint of a folder."""
        with Checkpoints(path, read_only=True) as checkpoints:
            return checkpoints.restore(self.tree)


def read_image(path: pathlib.Path) -> None:
    """Reads it, and holds it to the contract."""
    pixels = images.read(path).pixels
    assert pixels.dtype == np.float32 and pixels.ndim == 3 and pixels.shape[-1] in (1, 3)
    assert pixels.min() >= 0 and pixels.max() <= 1


def read_run(path: pathlib.Path) -> None:
    """As the report and a resumed fit do."""
    record.read_metrics(path)
    finished.read(path, "run")
    record.prepare(path, CONFIG, free=(), grows="iterations")


def case(
    random: np.random.Generator, sound: Sound, work: pathlib.Path, index: int
) -> tuple[str, pathlib.Path, Reader]:
    """The kind of the `index`-th specimen, where it lies, and what reads it."""
    kinds = ("image", "image", "bomb", "network", "checkpoint", "mat", "pickle", "run")
    kind = kinds[index % len(kinds)]
    path = work / f"{index:04d}_{kind}"
    match kind:
        case "image":
            suffix = FORMATS[int(random.integers(len(FORMATS)))]
            path = path.with_suffix(f".{suffix}")
            path.write_bytes(mangle(random, picture(random, suffix)))
            return f"image, {suffix}", path, read_image
        case "bomb":
            path = path.with_suffix(".png")
            path.write_bytes(bomb(random, index // len(kinds)))
            return kind, path, read_image
        case "mat":
            path = path.with_suffix(".mat")
            path.write_bytes(mangle(random, (sound.folder / "net.mat").read_bytes()))
            return "weights, MATLAB", path, lapsrn_from_mat
        case "pickle":
            content = pickle.dumps(Bomb(work / "pickled"))
            path.write_bytes(content)
            name = path.with_name(f"{path.name}_net")
            shutil.copytree(sound.folder / "net", name)
            (name / "model.json").write_bytes(content)
            readers = (read_image, lapsrn_from_mat, pretrained.load)
            reader = readers[index // len(kinds) % 3]
            return kind, name if reader is pretrained.load else path, reader
    source, reader = {
        "network": ("net", pretrained.load),
        "checkpoint": ("run", sound.restore),
        "run": ("fit", read_run),
    }[kind]
    shutil.copytree(sound.folder / source, path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    victim = files[int(random.integers(len(files)))]
    victim.write_bytes(mangle(random, victim.read_bytes() or b"\0"))
    return {"network": "weights, Orbax", "run": "a run's records"}.get(kind, kind), path, reader


def outcome(reader: Reader, path: pathlib.Path) -> str:
    """How reading ended: `read`, `refused`, or what should not have happened."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        reader(path)
        return "read"
    except InputError as error:
        return "refused" if str(error).strip() and "\n" not in str(error) else f"said {error!r}"
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"raised {error!r}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def gibibytes() -> float:
    """The largest this process has been."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # Linux, where `ru_maxrss` begins with the size of the parent process
        (line,) = (x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**3  # macOS: bytes


def fuzz(count: int, seed: int, folder: pathlib.Path) -> tuple[collections.Counter, list[str]]:
    """Counts of (kind, outcome), and what failed."""
    (folder / "sound").mkdir()
    (folder / "work").mkdir()
    sound = Sound(folder / "sound")
    for reader, name in (
        (sound.restore, "run"),
        (pretrained.load, "net"),
        (lapsrn_from_mat, "net.mat"),
        (read_run, "fit"),
    ):
        assert outcome(reader, sound.folder / name) == "read", name
    counts: collections.Counter = collections.Counter()
    failures = []
    for index in range(count):
        random = np.random.default_rng([seed, index])
        kind, path, reader = case(random, sound, folder / "work", index)
        began, before = time.monotonic(), gibibytes()
        how = outcome(reader, path)
        memory = gibibytes()
        if time.monotonic() - began > SECONDS:
            how = "took too long"
        if memory > max(GIBIBYTES, before):
            how = f"took {memory:.1f} GiB"
        counts[kind, how if how in ("read", "refused") else "FAILED"] += 1
        if how not in ("read", "refused"):
            failures.append(f"{path.name} (--seed {seed}): {how}")
    if (folder / "work" / "pickled").exists():
        failures.append("a pickle was loaded")
    return counts, failures


def main() -> int:
    """Prints the counts; 1 if something failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        counts, failures = fuzz(options.count, options.seed, pathlib.Path(temporary))
    for (kind, how), number in sorted(counts.items()):
        print(f"{number:4d}  {how:8s} {kind}")
    print(f"{sum(counts.values())} in all, at most {gibibytes():.2f} GiB of memory")
    print("\n".join(failures))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
