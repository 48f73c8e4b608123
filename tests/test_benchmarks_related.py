import json

import jax
import pytest

from benchmarks import peers, related
from jaxsr.models import DRCN, FSRCNN
from tests.commands import main


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Small networks, that compile in little time and run once."""
    monkeypatch.setattr(peers, "PAUSE", 0)
    small = {
        "fsrcnn": lambda factor: FSRCNN(factor=factor, features=3, shrunk=2, depth=1),
        "drcn": lambda factor: DRCN(factor=factor, features=2, depth=2),
    }
    monkeypatch.setattr(related, "NETWORKS", small)
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_a_run_writes_what_it_found(tmp_path, capsys):
    path = tmp_path / "related.json"
    options = ["--sizes", "16x24", "--factor", "2", "--networks", "fsrcnn", "drcn"]
    assert main(related, [*options, "--calls", "2", "--rounds", "2", "--json", str(path)]) == 0

    found = json.loads(path.read_text())
    fsrcnn, drcn = found["results"]
    # Weights, biases and slopes, layer by layer; then DRCN's two draws and two weights of the mean.
    layers = [(25 * 3, 2 * 3), (3 * 2, 2 * 2), (9 * 2 * 2, 2 * 2), (2 * 3, 2 * 3), (81 * 3, 1)]
    assert fsrcnn["parameters"] == sum(map(sum, layers))
    assert drcn["parameters"] == (9 * 2 + 2) + 3 * (9 * 2 * 2 + 2) + (9 * 2 + 1) + 2
    for result in (fsrcnn, drcn):
        seconds = result["ours_seconds_per_image"]
        assert result["megapixels_per_second"] == pytest.approx(16 * 24 / 1e6 / seconds)
        assert (result["size"], result["factor"], result["ratio"]) == ("16x24", 2, None)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("inference fsrcnn x2 16x24: ")
    assert f"{fsrcnn['parameters']:,} parameters" in printed[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--networks", "drcn", "--sizes=30x48"],
            "`--sizes` (=30x48) must be HEIGHTxWIDTH, each a multiple of 4, at least 4",
        ),
        (["--networks=edsr"], "`--networks` (=edsr) must be of fsrcnn, drcn"),
        (["--networks", "drcn", "--rounds=0"], "`--rounds` (=0) must be at least 1"),
    ],
)
def test_bad_options_are_told_in_a_line(options, message, capsys):
    assert main(related, options) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
