import functools

import jax
import numpy as np
import PIL.Image
import pytest

from jaxsr import diagrams
from jaxsr.models import LapSRN, SkipUNet

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def count(model, *shape):
    """Parameters, by running the initialiser."""
    return sum(
        x.size
        for x in jax.tree.leaves(
            jax.jit(model.init)(jax.random.key(0), np.zeros(shape, np.float32))
        )
    )


@pytest.fixture
def texts(monkeypatch):
    """What the figures that are saved say."""
    said, save = [], diagrams.save

    def keep(path, figure):
        (axes,) = figure.axes
        said.append((axes.get_title(loc="left"), [text.get_text() for text in axes.texts]))
        save(path, figure)

    monkeypatch.setattr(diagrams, "save", keep)
    return said


def test_layers_are_those_of_a_call():
    """Shapes and parameters against a network that ran."""
    model = SkipUNet(down=(2, 3), up=(3, 2), skip=(1, 0))
    z = np.zeros((1, 8, 12, 3), np.float32)
    run = jax.jit(functools.partial(model.init_with_output, capture_intermediates=True))
    output, variables = run(jax.random.key(0), z)
    found = diagrams.layers(model, *z.shape)
    assert found["image"].shape == output.shape[1:]
    for name, layer in found.items():
        assert layer.shape == variables["intermediates"][name]["__call__"][0].shape[1:]
    assert sum(layer.parameters for layer in found.values()) == count(model, *z.shape)
    assert "skip_1" not in found


def test_the_published_networks(tmp_path, texts):
    diagrams.skip_unet(tmp_path / "2.png", SkipUNet(), side=256)
    diagrams.lapsrn(tmp_path / "1.png", LapSRN(depth=10, spread=3), side=32)
    titles = ["Skip U-Net: 2,217,831 parameters", "LapSRN, 4x: 814,242 parameters"]
    assert [title for title, _ in texts] == titles
    boxes = {text.split("\n")[0]: text.split("\n")[1:] for text in texts[0][1]}
    assert len(boxes) == 1 + 5 * 6 + 1 and boxes["down_4"] == [
        "8x8x128",
        f"3x3: {9 * 128**2 + 384:,}",
    ]
    boxes = {text.split("\n")[0]: text.split("\n")[1:] for text in texts[1][1]}
    assert (
        boxes["image of level 1"] == ["128x128x1, sum"] and boxes["level_1_image"][1] == "4x4: 16"
    )
    assert boxes["level_0_up"][1].startswith("3x3: ")  # the released one's
    assert boxes["10 of level_1_conv"] == ["64x64x64", "3x3: 36,928 each"]
    assert not any(name.startswith("level_0_conv_") for name in boxes)
    with PIL.Image.open(tmp_path / "1.png") as picture:
        assert np.asarray(picture).std() > 10


@pytest.mark.parametrize("switches", [{"pyramid": False}, {"residual": False}, {"factor": 8}])
def test_other_networks(tmp_path, texts, switches):
    model = LapSRN(depth=1, features=2, **switches)
    diagrams.lapsrn(tmp_path / "a.png", model, side=8)
    first = (tmp_path / "a.png").read_bytes()
    diagrams.lapsrn(tmp_path / "a.png", model, side=8)
    assert (tmp_path / "a.png").read_bytes() == first
    title, boxes = texts[0]
    assert f"{count(model, 1, 8, 8, 1):,} parameters" in title
    names = {text.split("\n")[0] for text in boxes}
    assert ("level_0_image" in names) == model.residual
    assert sum(name.startswith("image of level") for name in names) == model.levels
