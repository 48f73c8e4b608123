"""A sample of `make fuzz`; and that it would notice."""

import pathlib
import pickle
import re
import subprocess
import sys

import pytest

from jaxsr.errors import InputError
from tests import fuzz


def test_a_sample():
    """In a process of its own: the memory that other tests took would count."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.fuzz", "--count", "20", "--seed", "1"]
    root = pathlib.Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"\d+  (\w+)", done.stdout)) == {"read", "refused"}
    assert "20 in all" in done.stdout and "FAILED" not in done.stdout


@pytest.mark.parametrize(
    ("error", "how"),
    [
        (InputError("one line"), "refused"),
        (InputError("two\nlines"), "said"),
        (ValueError("x"), "raised ValueError"),
    ],
)
def test_what_it_takes_for_a_failure(tmp_path, error, how):
    def reader(path):
        raise error

    assert fuzz.outcome(reader, tmp_path).startswith(how)


def test_a_reader_that_hangs_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.05)

    def reader(path):
        while True:
            pass

    assert fuzz.outcome(reader, tmp_path) == "raised TimeoutError()"


def test_the_pickle_would_leave_a_trace(tmp_path):
    pickle.loads(pickle.dumps(fuzz.Bomb(tmp_path / "pickled"))).close()
    assert (tmp_path / "pickled").exists()


def test_a_record_in_no_encoding_is_one_line(tmp_path):
    """Found by it: a byte that is no UTF-8 was a traceback."""
    (tmp_path / "metrics.json").write_bytes(b'{"psnr": \xff}')
    with pytest.raises(InputError, match="is damaged"):
        fuzz.record.read_metrics(tmp_path)
