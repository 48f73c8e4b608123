import pathlib
import re

import numpy as np
import PIL.Image

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_library_example_runs(tmp_path, monkeypatch):
    """README's code as it stands, but for the number of iterations."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert "iterations=2000" in code
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save("small.png")
    exec(code.replace("iterations=2000", "iterations=1"), {})
    with PIL.Image.open("large.png") as large:
        assert large.size == (64, 64)
