"""`experiments.dip --task`: what is observed, by independent means; what a fit leaves."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from skimage import metrics
from skimage import restoration as classic

from experiments import baselines, command, dip, networks, problem, restoration
from experiments.recipes import Settings
from jaxsr import images, models, operators

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    network = functools.partial(networks.prior, down=(4,), up=(4,), skip=(2,))
    monkeypatch.setattr(networks, "prior", network)
    monkeypatch.setattr(restoration, "INPAINTING", {"double": models.INPAINTING["double"]})
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    monkeypatch.chdir(tmp_path)
    images.write(tmp_path / "cup.png", problem.photograph()[30:94, 20:90])


def run(*args):
    return command.main(dip.Settings, dip.run, [str(arg) for arg in args])


def pixels(name):
    return images.read(name).pixels


def load(**given):
    paths = {k: pathlib.Path(v) for k, v in given.items() if isinstance(v, str) and k != "task"}
    return problem.load(Settings(**given | paths).resolved())


def left(out, hr, result):
    """The metrics of a run, checked against scikit-image's of the files that it left."""
    record = json.loads((out / "metrics.json").read_text())
    for figures, name in ((record, result), (record[record["baseline"]], record["baseline"])):
        found = pixels(out / f"{name}.png")
        assert figures["psnr"] == pytest.approx(metrics.peak_signal_noise_ratio(hr, found), 1e-5)
    return record


def test_denoise(tmp_path):
    assert run("--task", "denoise", "--hr", "cup.png", "--iterations", 6, "--out", "out") == 0
    hr, noisy = pixels("cup.png"), pixels("out/noisy.png")
    inside = (hr > 0.3) & (hr < 0.7)  # where nothing is cut off
    noise = (noisy - hr)[inside] * 255
    assert abs(noise.mean()) < 3 * 25 / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(25, rel=3 / np.sqrt(2 * noise.size))
    tv = classic.denoise_tv_chambolle(
        noisy, weight=0.7 * 25 / 255, eps=1e-5, max_num_iter=1000, channel_axis=-1
    )
    assert np.abs(pixels("out/tv.png") - tv).max() < 0.6 / 255
    record = left(tmp_path / "out", hr, "restored")
    assert record["stopped_at"] <= 6 and "sigma 25" in record["protocol_description"]
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert (config["loss"], config["patience"], config["noise_std"]) == ("mse", 1000, 1 / 30)
    assert "low resolution" not in (tmp_path / "out/report.html").read_text()


def test_inpaint(tmp_path):
    task = ("--task", "inpaint", "--iterations", 3)
    assert run(*task, "--hr", "cup.png", "--missing", 0.3, "--out", "out") == 0
    hr, masked = pixels("cup.png"), pixels("out/masked.png")
    lost = (masked != hr).any(-1)
    assert not masked[lost].any() and lost.sum() <= round(0.3 * lost.size)
    assert lost.sum() > 0.29 * lost.size  # a lost pixel may have been black
    record = left(tmp_path / "out", hr, "restored")
    assert record["baseline"] == "biharmonic" and "stopped_at" not in record
    filled = classic.inpaint_biharmonic(masked, lost, channel_axis=-1)
    assert np.abs(pixels("out/biharmonic.png") - np.clip(filled, 0, 1)).max() < 0.6 / 255

    images.write("known.png", np.where(lost, 0.0, 1.0)[..., None].astype(np.float32))
    observed = ("--observed", "out/masked.png", "--mask", "known.png")
    assert run(*task, *observed, "--out", "mine") == 0
    assert (tmp_path / "mine/restored.png").read_bytes() == (
        tmp_path / "out/restored.png"
    ).read_bytes()  # the same problem, known another way


def test_deblur(tmp_path):
    assert run("--task", "deblur", "--hr", "cup.png", "--iterations", 3, "--out", "out") == 0
    hr, blurred = pixels("cup.png"), pixels("out/blurred.png")
    expected = scipy.ndimage.gaussian_filter(hr, (1.6, 1.6, 0), mode="nearest", radius=(5, 5, 0))
    assert np.abs(blurred - expected).max() < 0.51 / 255
    record = left(tmp_path / "out", hr, "restored")
    assert record["baseline"] == "tv" and record["tv"]["psnr"] > 2 + (
        metrics.peak_signal_noise_ratio(hr, blurred)
    )


def test_a_kernel_from_a_file():
    kernel = np.zeros((3, 5, 1), np.float32)
    kernel[1, 0], kernel[1, 4], kernel[2, 2] = 1, 1, 2 / 255 * 51
    images.write("kernel.png", kernel)
    task = load(task="deblur", hr="cup.png", blur_kernel="kernel.png")
    weights = kernel[..., 0] / kernel.sum()
    expected = scipy.ndimage.convolve(task.hr, weights[..., None], mode="nearest")
    assert np.abs(task.observed - expected).max() < 0.51 / 255
    assert task.digest != load(task="deblur", hr="cup.png", blur=1.0).digest
    np.save("kernel.npy", 7 * kernel[..., 0])
    same = load(task="deblur", hr="cup.png", blur_kernel="kernel.npy")
    assert np.abs(same.observed - task.observed).max() < 1.01 / 255  # the image's grays are rounded


def test_a_kernel_saved_by_numpy_is_not_rounded():
    kernel = np.random.default_rng(0).normal(1e-3, 2e-3, (5, 3))  # below an image's first gray
    np.save("kernel.npy", kernel)
    task = load(task="deblur", hr="cup.png", blur_kernel="kernel.npy")
    expected = scipy.ndimage.convolve(
        task.hr.astype(np.float64), kernel[..., None] / kernel.sum(), mode="nearest"
    )
    assert np.abs(task.observed - expected.clip(0, 1)).max() < 0.51 / 255


def test_compositions():
    """Blurred, halved, noisy, and with pixels missing, all at once."""
    degraded = {"blur": 0.8, "factor": 2, "missing": 0.25, "hr": "cup.png"}
    task = load(**degraded)
    known = task.observed.any(-1, keepdims=True)
    assert 0.74 < known.mean() <= 0.75
    seen = np.asarray(task.stages(task.hr))
    assert np.abs(np.clip(seen, 0, 1) - task.observed).max() < 1.6 / 255  # rounded twice
    noisy = load(**degraded, sigma=10)
    assert noisy.baseline_name == "tv" and noisy.baseline.shape == task.hr.shape
    kept = (known[..., 0]) & (task.observed > 0.2).all(-1) & (task.observed < 0.8).all(-1)
    assert (noisy.observed - task.observed)[kept].std() * 255 == pytest.approx(10, rel=0.1)
    other = load(**degraded, sigma=10, degrade_seed=1)
    assert (other.observed.any(-1) != noisy.observed.any(-1)).any()
    one, another = (load(task="denoise", hr="cup.png", degrade_seed=seed) for seed in (0, 1))
    assert (one.observed != another.observed).any()


INPAINT = ("--task", "inpaint", "--mask")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--task", "denoise", "--factor", 2), "`--factor` (=2) goes with `--task sr` alone"),
        (("--task", "deblur", "--protocol", "dip"), "`--protocol` (=dip) goes with `--task sr`"),
        (("--task", "denoise", "--sigma", 0), "`--sigma` (=0.0) must be above 0"),
        (("--missing", 1), "`--missing` (=1.0) must be above 0 and below 1"),
        (("--blur", -1), "`--blur` (=-1.0) must be in [0.01, 50]"),
        (("--blur", 1e-200), "`--blur` (=1e-200) must be in [0.01, 50]"),
        (("--sigma", 1e39), "`--sigma` (=1e+39) must be above 0, at most 1000"),
        (("--seeds", 10**9), "`--seeds` (=1000000000) must be at most 10000"),
        (("--blur", 1, "--blur-kernel", "cup.png"), "exclude each other: give one"),
        (("--missing", 0.5, "--mask", "cup.png"), "exclude each other: give one"),
        (("--blur-kernel", "cup.png"), "(=cup.png, of 70x64) must be 2-D with odd sides"),
        (("--blur-kernel", "dark.npy"), "(=dark.npy) must be finite with a sum above 0, not 0.0"),
        (("--blur-kernel", "deep.npy"), "(=deep.npy, of 3x3x3) must be 2-D with odd sides"),
        (("--blur-kernel", "text.npy"), "(=text.npy) cannot be read: it holds <U1, not real"),
        (("--blur-kernel", "none.npy"), "(=none.npy) cannot be read: No such file"),
        (("--mask", "cup.png"), "(=cup.png) must have the observation's 32x32, not 70x64 pixels"),
        ((*INPAINT, "black.png"), "must leave a pixel observed: white"),
        ((*INPAINT, "white.png"), "must have a pixel missing: black"),
        ((*INPAINT, "erased.png"), "`--mask` (=erased.png) must not be transparent anywhere"),
        ((*INPAINT, "colour.png"), "`--mask` (=colour.png) must be gray"),
        (("--observed", "cup.png", "--protocol", "dip"), "(=dip) goes with `--hr` alone"),
        (("--iterations", 10**7 + 1), "must be at most 10 million"),
        (("--mask", "none.png"), "none.png"),
        (("--task", "inpaint", "--observed", "cup.png"), "needs `--mask`"),
        (("--task", "deblur", "--observed", "cup.png"), "needs `--blur` or `--blur-kernel`"),
        (("--observed", "cup.png", "--missing", 0.5), "`--missing` (=0.5) goes with `--hr` alone"),
        (("--patience", -1), "`--patience` (=-1) must be at least 0"),
    ],
)
def test_bad_input_is_one_line(capsys, args, said):
    black, erased = np.zeros((128, 128, 3), np.float32), np.ones((128, 128, 1), np.float32)
    erased[:5] = 0
    images.write("black.png", black)
    images.write("white.png", black + 1)
    images.write("erased.png", black + 1, alpha=erased)
    images.write("colour.png", np.concatenate([erased, black[..., 1:] + 1], -1))
    kernels = {"dark": np.zeros((3, 3)), "deep": np.ones((3, 3, 3)), "text": np.array([["a"]])}
    for name, kernel in kernels.items():
        np.save(f"{name}.npy", kernel)
    assert run(*args) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1


def test_double_nearest_and_the_released_inpainting_network():
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    double = models.INPAINTING["double"]
    assert np.array_equal(double(x), x.repeat(2, 1).repeat(2, 2))
    network = models.SkipUNet(**models.INPAINTING)
    latent = jax.ShapeDtypeStruct((1, 64, 64, 32), np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), latent)
    # By the layers' sizes: weights and biases, norms of two numbers a channel.
    conv = [(9 * 32 + 1) * 128, *[(9 * 128 + 1) * 128] * 9]  # down: two a scale
    conv += [(32 + 1) * 128, *[(128 + 1) * 128] * 4]  # skip
    conv += [(9 * 256 + 1) * 128, (128 + 1) * 128] * 5 + [(128 + 1) * 3]  # up, mix; image
    norms = 5 * 2 * (2 * 128 + 128 + 256 + 2 * 128)
    assert sum(x.size for x in jax.tree.leaves(shapes)) == sum(conv) + norms


def test_the_curve_on_y_is_shaved_by_the_factor(x64):
    task = problem.load(Settings(factor=4).resolved())
    image = np.random.default_rng(0).random((1, 128, 128, 3))
    weights = np.array([65.481, 128.553, 24.966]) / 255
    error = ((image - task.hr) @ weights)[:, 4:-4, 4:-4]
    found = task.score(jnp.asarray(image), jnp.asarray(task.hr, jnp.float64)[None])
    assert float(found["psnr_y"]) == pytest.approx(-10 * np.log10((error**2).mean()), abs=1e-5)


def test_total_variations_weight_grows_with_the_noise():
    """Of two pixels each moves towards the other by the weight: 1e-4 + 0.5 / 10."""
    seen = np.array([0.2, 0.8], np.float32).reshape(1, 2, 1)
    found = baselines.tv_restored(seen, seen, operators.identity, 25.5)
    np.testing.assert_allclose(found.ravel(), [0.2501, 0.7499], atol=0.02)


@pytest.mark.parametrize(
    ("given", "noise", "iterations"),
    [
        ({"factor": 2}, 0.01, 1150),
        ({"factor": 3}, 0.03, 2000),
        ({"factor": 5}, 0.03, 2000),
        ({"factor": 6}, 0.05, 4000),
        ({"factor": 8}, 0.05, 4000),
        ({"task": "denoise", "sigma": 49.0}, 1 / 30, 3000),
        ({"task": "denoise", "sigma": 50.0}, 1 / 20, 3000),
        ({"task": "inpaint"}, 0.03, 6001),
        ({"task": "deblur"}, 0.01, 2000),
    ],
)
def test_the_released_recipes(given, noise, iterations):
    found = Settings(**given).resolved()
    assert (found.noise_std, found.iterations) == (noise, iterations)
