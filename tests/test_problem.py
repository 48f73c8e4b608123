"""What a fit is of: the operator's and the scores' window, masks, kernels, baselines, networks."""

import dataclasses
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from experiments import baselines, command, folder, networks, problem, restoration
from experiments.recipes import Settings
from jaxsr import dip, images, losses, models, operators
from jaxsr.errors import InputError
from jaxsr.resample import imresize


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    images.write("cup.png", problem.photograph()[30:94, 20:90])


def load(**given):
    paths = {k: pathlib.Path(v) for k, v in given.items() if k in ("hr", "lr", "mask")}
    return problem.load(Settings(**given | paths).resolved())


def test_settings_reach_the_solver(monkeypatch):
    class Asked(Exception):
        """In the place of a fit, with its arguments."""

    def fit(key, observation, operator, **options):
        raise Asked(key, options)

    monkeypatch.setattr(restoration.dip, "fit", fit)
    given = {"iterations": 7, "learning_rate": 0.02, "noise_std": 0.07, "patience": 5}
    own = {"seed": 3, "loss": "l1", "recipe": "reference", "tv_weight": 0.5}
    paths = {"hr": pathlib.Path("cup.png"), "out": pathlib.Path("out")}
    with pytest.raises(Asked) as asked:
        restoration.run(Settings(**paths, **given, **own))
    key, options = asked.value.args
    assert key == jax.random.key(3)
    assert options["config"] == dip.Config(average=0.0, **given)
    assert options["loss"] is losses.l1
    ramp = jnp.broadcast_to(jnp.linspace(0, 1, 5)[:, None], (4, 5, 1))
    assert float(options["regulariser"](ramp)) == pytest.approx(0.5 * 0.25)


def test_the_middle_of_a_canvas_is_seen_scored_and_shown():
    images.write("noise.png", np.random.default_rng(0).random((68, 100, 3), np.float32))
    task = load(hr="noise.png")
    assert task.canvas(32) == (96, 128)
    canvas = np.zeros((1, 96, 128, 3), np.float32)
    canvas[:, 14:82, 14:114] = task.hr
    seen = task.operator()(canvas)
    assert np.abs(np.clip(seen[0], 0, 1) - task.observed).max() < 1.5 / 255
    assert task.score(jnp.asarray(canvas), task.reference())["psnr"] == np.inf
    shown = folder.RunFolder._pixels(types.SimpleNamespace(problem=task), canvas)
    np.testing.assert_array_equal(shown, task.hr)
    assert dataclasses.replace(task, size=(34, 20)).canvas(32) == (64, 64)  # twice the multiple


def test_y_is_shaved_by_the_factor():
    for factor in (2, 3, 4):
        assert load(hr="cup.png", factor=factor).score.shave == factor
    assert load(hr="cup.png", task="denoise").score.shave == 0


def test_a_protocol_fixes_the_operators_kernel():
    kernels = dict.fromkeys(("plain", "dip", "paper-dip"), "pillow-lanczos")
    kernels |= {"standard": "matlab-bicubic", "paper-lapsrn": "pillow-bicubic"}
    for protocol, kernel in kernels.items():
        settings = Settings(hr=pathlib.Path("cup.png"), protocol=protocol)
        assert settings.resolved().kernel == kernel


def test_a_mask_decides_what_is_seen_and_which_fit_it_is():
    known = np.full((64, 70, 1), 200 / 255, np.float32)
    known[5:20, 7:30] = 100 / 255
    images.write("one.png", known)
    known[0, 0] = 0
    images.write("two.png", known)
    one, two = (load(task="inpaint", lr="cup.png", mask=f"{name}.png") for name in ("one", "two"))
    expected = images.read("cup.png").pixels.copy()
    expected[5:20, 7:30] = 0
    np.testing.assert_array_equal(one.observed, expected)
    assert one.digest != two.digest


def test_a_pixel_is_always_known():
    assert load(hr="cup.png", task="inpaint", missing=0.9999).observed.any()


def test_luma_is_fitted_to_jpegs_luma():
    expected = np.asarray(PIL.Image.open("cup.png").convert("YCbCr"))[..., 0]
    task = load(hr="cup.png", protocol="paper-lapsrn", factor=2)
    np.testing.assert_array_equal(np.rint(255 * task.reference()[0, ..., 0]), expected)


def test_transparency_is_enlarged():
    pixels = np.full((20, 24, 4), 200, np.uint8)
    pixels[:9, :, 3] = 0
    pixels[:, 5:, 3] //= 2
    PIL.Image.fromarray(pixels).save("clear.png")
    expected = imresize(images.from_uint8(pixels[..., 3:]), 2).clip(0, 1)
    np.testing.assert_allclose(load(lr="clear.png", factor=2).alpha, expected, atol=1e-6)


def test_total_variations_weight_grows_with_the_noise(monkeypatch):
    asked, image = [], np.zeros((2, 2, 1), np.float32)
    monkeypatch.setattr(baselines, "_minimised", lambda *args: asked.append(args) or (image, None))
    baselines.tv_restored(image, image, operators.identity, 25.5)
    assert asked[0][3:] == (pytest.approx(1e-4 + 0.5 * 0.1), 1e-2)


def test_baselines_know_of_the_noise(monkeypatch):
    monkeypatch.setattr(baselines, "tv_restored", lambda *args: args)
    assert load(task="deblur", hr="cup.png", sigma=10.0).baseline[-1] == 10
    assert load(task="inpaint", hr="cup.png", sigma=10.0).baseline_name == "tv"
    assert load(task="inpaint", hr="cup.png").baseline_name == "biharmonic"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"task": "inpaint", "missing": 0.02},
            {"double": models.INPAINTING["double"], "skip": (128,) * 5, "remat": False},
        ),
        ({"task": "denoise", "remat": True, "precision": "bfloat16"}, {"remat": True}),
    ],
)
def test_settings_choose_the_network(monkeypatch, given, expected):
    class Asked(Exception):
        """Instead of a fit."""

    def prior(precision, **settings):
        raise Asked(precision, settings)

    monkeypatch.setattr(networks, "prior", prior)
    with pytest.raises(Asked) as asked:
        restoration.run(Settings(hr=pathlib.Path("cup.png"), out=pathlib.Path("out"), **given))
    precision = given.get("precision", "float32")
    assert asked.value.args == (precision, {"channels": 3} | expected)


def test_precisions_are_those_of_jax():
    assert networks.prior("bfloat16").dtype == jnp.bfloat16
    assert networks.prior("tf32").dtype is networks.prior("float32").dtype is None
    products = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "bfloat16"}
    for name, told in products.items():
        with command.computing(jax.devices()[0], name):
            assert jax.config.jax_default_matmul_precision == told


def test_level_weights_of_drcn_are_half_for_the_result():
    assert networks.level_weights(models.DRCN(depth=4)) == (0.125,) * 4 + (0.5,)
    assert networks.level_weights(models.LapSRN()) == (1, 1)


def test_gray_is_called_gray():
    images.write("gray.png", np.full((64, 64, 1), 0.5, np.float32))
    assert load(hr="gray.png").description.startswith("8-bit gray, no shave")
    assert load(hr="cup.png").description.startswith("8-bit RGB, no shave")


def test_too_small_a_truth_is_named():
    images.write("tiny.png", np.zeros((40, 64, 3), np.float32))
    rule = r"the observation of `--hr` \(=tiny.png\), of 16x10 pixels, must have at least 16 a side"
    with pytest.raises(InputError, match=rule):
        load(hr="tiny.png")
