"""`jaxsr.streams`: what cannot be printed ends no work, and is told where it can be."""

import contextlib
import os
import subprocess
import sys
import threading

import pytest
import tqdm

from jaxsr import streams

PROGRAM = r"""
import dataclasses, os, sys
from jaxsr import options

@dataclasses.dataclass(frozen=True)
class Settings:
    pass

def run(_):
    print("caf\udce9" * 10_000)
    print("b\udce9", file=sys.stderr)
    os.mkdir("done")
    return 0

sys.exit(options.main(Settings, run, sys.argv[1:]))
"""


def test_a_bar_that_nobody_reads(monkeypatch):
    """As after Ctrl-C, which ends the `tee` of a fit, too."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as unread, monkeypatch.context() as patch:
        for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
            patch.setattr(sys, name, unread)
        with pytest.raises(BrokenPipeError):
            os.write(writing, b"x")
        with streams.unfailing() as refused:
            with tqdm.tqdm(total=3) as bar:
                bar.update(2)
            print("stopped", flush=True)
            assert refused() is None
        assert sys.stdout is sys.stderr is unread


def test_a_pipe_that_is_full_and_does_not_wait(monkeypatch):
    """As some programs leave it for those that share it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(reading, "rb") as reader, open(writing, "w") as own, monkeypatch.context() as patch:
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += os.write(writing, bytes(1000))
        patch.setattr(sys, "stdout", own)
        patch.setattr(sys, "__stdout__", own)
        later = threading.Timer(0.2, lambda: reader.read(filled))
        later.start()
        with streams.unfailing() as refused:
            print("result")
            assert refused() is None
        later.join()
        assert reader.read(7) == b"result\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (
            "{} > /dev/full",
            2,
            "b\\udce9\nerror: the output cannot be used: No space left on device",
        ),
        ("{} --help > /dev/full", 2, "error: the output cannot be used: No space left on device"),
        ("{} --help | true; exit ${{PIPESTATUS[0]}}", 0, ""),
        ("{} 2> /dev/full", 0, ""),
        ("{} 2>&1 > /dev/full | true; exit ${{PIPESTATUS[0]}}", 2, ""),
        ("{} | true; exit ${{PIPESTATUS[0]}}", 0, "b\\udce9"),
        ("{} >&- ", 0, "b\\udce9"),
        ("{} 2>&-", 0, ""),
    ],
)
def test_exit_codes(tmp_path, line, code, said):
    """Python would try again at its end, and exit with 120."""
    (tmp_path / "program.py").write_text(PROGRAM)
    command = line.format(f"'{sys.executable}' program.py")
    environment = {name: x for name, x in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {"PYTHONPATH": os.getcwd(), "PYTHONWARNINGS": "error"}
    ended = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr.strip()) == (code, said)
    assert (tmp_path / "done").is_dir() != ("--help" in line)
