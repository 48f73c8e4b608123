import pathlib
import re

import numpy as np
import PIL.Image
import pytest

pytestmark = pytest.mark.usefixtures("compiled_quickly")
ROOT = pathlib.Path(__file__).parents[1]


def snippets(name):
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), re.DOTALL)


DIP, LAPSRN = snippets("README.md")
SCORE, DEGRADE = snippets("docs/PROTOCOLS.md")


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save("small.png")


def test_the_example_of_deep_image_prior_runs():
    """README's code as it stands, but for the number of iterations."""
    assert "iterations=2000" in DIP
    exec(DIP.replace("iterations=2000", "iterations=1"), {})
    with PIL.Image.open("large.png") as large:
        assert large.size == (64, 64)


def test_the_example_of_lapsrn_runs(tmp_path, shared):
    (tmp_path / "LapSRN_x4.mat").symlink_to(shared / "weights" / "LapSRN_x4.mat")
    names = {}
    exec(LAPSRN, names)
    assert [names[level].shape for level in ("twice", "four_times")] == [
        (1, 32, 32, 1),
        (1, 64, 64, 1),
    ]
    with PIL.Image.open("large.png") as large:
        assert large.size == (64, 64)


def test_the_example_of_the_protocols_runs(tmp_path, capsys):
    pixels = np.random.default_rng(0).integers(0, 256, (70, 66, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save("photo.png")
    names = {}
    exec(SCORE, names)
    assert names["hr"].shape == (68, 64, 3) and names["lr"].shape == (17, 16, 3)
    assert "psnr_rgb" in capsys.readouterr().out
    (tmp_path / "Set5").mkdir()
    (tmp_path / "photo.png").rename("Set5/photo.png")
    exec(DEGRADE, {})
    np.testing.assert_array_equal(np.load("lr/photo.npy"), names["lr"])
