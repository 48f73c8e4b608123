"""`jaxsr.streams`: what cannot be printed ends no work, and is told where it can be."""

import os
import subprocess
import sys

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

sys.exit(options.main(Settings, run, []))
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


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (
            "{} > /dev/full",
            2,
            "b\\udce9\nerror: the output cannot be used: No space left on device",
        ),
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
    assert (tmp_path / "done").is_dir()
