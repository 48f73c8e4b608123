"""Figures of the pages that no record holds, computed anew from data that is not in the project."""

import json
import pathlib
import statistics

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from skimage.metrics import structural_similarity
from skimage.restoration import denoise_tv_chambolle

from experiments import baselines, problem, tables
from experiments.recipes import Settings
from jaxsr import images, operators, upscaling, weights
from jaxsr.metrics import psnr, ssim
from jaxsr.protocols import PROTOCOLS, jpeg_luma

ROOT = pathlib.Path(__file__).parents[1]
PAGES = {page.stem: " ".join(page.read_text().split()) for page in (ROOT / "docs").glob("*.md")}


@pytest.fixture(scope="module")
def lapsrn(shared):
    """The original, of an image of low resolution."""
    model, variables = weights.lapsrn_from_mat(shared / "weights" / "LapSRN_x4.mat")
    return lambda low: upscaling.upscale(low, model, variables)


def set5(shared):
    return [images.read(path).pixels for path in sorted(shared.glob("data/Set5/*.png"))]


def test_what_the_true_chroma_is_worth(shared, lapsrn):
    """Against that of the low resolution, enlarged by Pillow's bicubic."""
    protocol = PROTOCOLS["paper-lapsrn"]

    def with_low_chroma(result, hr):
        luma, truth = images.to_pillow(jpeg_luma(result)), images.to_pillow(hr).convert("YCbCr")
        small = tuple(side // 4 for side in truth.size)
        bicubic = PIL.Image.Resampling.BICUBIC
        chroma = [c.resize(small, bicubic).resize(truth.size, bicubic) for c in truth.split()[1:]]
        merged = PIL.Image.merge("YCbCr", (luma, *chroma)).convert("RGB")
        return images.from_uint8(np.asarray(merged))

    lost, lost_by_bicubic, lost_ssim = {}, {}, []
    for name in tables.names_of("paper"):
        (path,) = shared.glob(f"data/BSDS300/**/{name}.jpg")
        hr, low = protocol.degrade(images.read(path).pixels, 4)
        restored, bicubic = lapsrn(low), protocol.bicubic(low, hr.shape[:2])
        for result, losses in ((restored, lost), (bicubic, lost_by_bicubic)):
            without = np.float64(with_low_chroma(result, hr))
            losses[name] = protocol.score(result, hr, 4)["psnr"] - float(
                psnr(without, np.float64(hr))
            )
        without = float(ssim(with_low_chroma(restored, hr), hr))
        lost_ssim.append(protocol.score(restored, hr, 4)["ssim"] - without)
    mean, structure = statistics.fmean(lost.values()), f"{statistics.fmean(lost_ssim):.4f}"
    said = (
        f"loses {mean:.2f} dB (of 27.06) and {structure[1:]} of SSIM, {lost['210088'] / 10:.2f} dB"
    )
    other = f"{statistics.fmean(lost_by_bicubic.values()):.2f}"
    assert f"{said} of it by one image (210088), and bicubic {other} dB" in PAGES["RESULTS"]
    said = f"by {mean:.2f} dB with the original LapSRN, by {other} with bicubic"
    assert said in PAGES["PROTOCOLS"]


def test_what_ssims_border_is_worth(shared, lapsrn, compiled_quickly):
    protocol, options = PROTOCOLS["standard"], {"gaussian_weights": True, "sigma": 1.5}
    ours, theirs = [], []
    for image in set5(shared):
        hr, low = protocol.degrade(image, 4)
        result = images.from_uint8(images.to_uint8(lapsrn(low)))
        ours.append(protocol.score(result, hr, 4)["ssim"])
        luma = [images.rgb_to_y(np.float64(x))[4:-4, 4:-4, 0] for x in (result, hr)]
        found = structural_similarity(*luma, data_range=1, use_sample_covariance=False, **options)
        theirs.append(found)
    told = [f"{statistics.fmean(x):.4f}".lstrip("0") for x in (theirs, ours)]
    assert "gives {} instead of {} for LapSRN on Set5".format(*told) in PAGES["PROTOCOLS"]


def test_how_near_kernels_are_to_pillows_low_resolution(shared):
    protocol = PROTOCOLS["dip"]
    found = {kernel: [] for kernel in ("lanczos2", protocol.kernel)}
    for image in set5(shared):
        hr, low = protocol.degrade(image, 4)
        for kernel, values in found.items():
            seen = operators.downsample(4, kernel=kernel)(jnp.asarray(hr)[None])[0]
            values.append(float(psnr(seen, jnp.asarray(low))))
    released, own = ([f"{limit(x):.0f}" for limit in (min, max)] for x in found.values())
    assert "kernel is at {} to {} dB against Pillow's".format(*released) in PAGES["PROTOCOLS"]
    assert "rounding, at {} to {} dB".format(*own) in PAGES["PROTOCOLS"]


def of_the_best_weight(path, tried, **options):
    """PSNR of total variation by its best weight, and the record; that has the default's."""
    settings = Settings(task="denoise", hr=path, sigma=25.0).resolved()
    task = problem.load(settings)
    record = json.loads((ROOT / f"results/dip/{path.stem}_denoise_sigma25_seed0.json").read_text())

    def figure(restored):
        return task.protocol.score(restored, task.hr, 1)["psnr"]

    plain = figure(baselines.chambolle(task.observed, 25.0))
    assert plain == pytest.approx(record["tv"]["psnr"], abs=1e-3)
    best = max(
        figure(denoise_tv_chambolle(task.observed, weight=weight, channel_axis=-1, **options))
        for weight in tried
    )
    return best, record


def test_the_best_weight_on_whole_images(shared):
    tried = np.arange(6, 13) / 100
    names = ("bird", "butterfly", "woman")
    both = [of_the_best_weight(shared / f"data/Set5/{name}.png", tried) for name in names]
    found = [record["psnr"] - best for best, record in both]
    assert "DIP is still {:.1f}, {:.1f} and {:.1f} dB ahead".format(*found) in PAGES["BEYOND"]


def test_the_best_weight_on_crops(shared, tmp_path):
    tried, found = np.arange(4, 16) / 100, {}
    stops = json.loads((ROOT / "results/dip/stopping_sigma25.json").read_text())["runs"]
    for path in sorted(shared.glob("data/Set5/*.png")):
        crop = tmp_path / f"{path.stem}128.png"
        pixels = images.read(path).pixels
        images.write(crop, np.asarray(operators.crop(128, 128)(jnp.asarray(pixels))))
        options = {"eps": 1e-5, "max_num_iter": 500}
        best, _ = of_the_best_weight(crop, tried, **options)
        found[path.stem] = stops[path.stem]["psnr"] - best
    head = -found.pop("head")
    said = f"it is {min(found.values()):.1f} to {max(found.values()):.1f} dB ahead, and {head:.1f}"
    assert f"{said} behind" in PAGES["BEYOND"]


def test_what_clipping_noise_costs(shared):
    """Rounding costs nothing beside it."""
    costs, shown = {}, {}
    for path in sorted(shared.glob("data/Set5/*.png")):
        pixels = images.read(path).pixels.astype(np.float64)
        top, left = ((side - 128) // 2 for side in pixels.shape[:2])
        hr = pixels[top : top + 128, left : left + 128]
        noisy = hr + np.random.default_rng(0).normal(scale=25 / 255, size=hr.shape)

        def figure(observed, hr=hr):
            restored = denoise_tv_chambolle(observed, weight=0.7 * 25 / 255, channel_axis=-1)
            return float(psnr(restored, hr))

        drawn, clipped = figure(noisy), figure(noisy.clip(0, 1))
        for observed, same in ((noisy, drawn), (noisy.clip(0, 1), clipped)):
            assert figure(np.rint(255 * observed) / 255) == pytest.approx(same, abs=0.01)
        costs[path.stem] = drawn - clipped
        shown[path.stem] = f"{path.stem}: {clipped:.2f} dB, and {drawn:.2f} from the noise"
    worst = max(costs, key=costs.get)
    said = f"comes up to {costs[worst]:.2f} dB less close from clipped noise ({shown[worst]}"
    assert said in PAGES["PROTOCOLS"]
