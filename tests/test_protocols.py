import dataclasses
import pickle

import numpy as np
import PIL.Image
import pytest
from PIL.Image import Resampling
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jaxsr import images, operators, protocols
from jaxsr.errors import InputError

TEN = [16077, 37073, 101085, 189080, 21077, 85048, 86000, 106024, 210088, 253027]
SET5 = ["baby", "bird", "butterfly", "head", "woman"]


def mean_scores(name, paths, factor, upscale=None):
    protocol = protocols.PROTOCOLS[name]
    scores = []
    for path in paths:
        hr, lr = protocol.degrade(images.read(path).pixels, factor)
        assert hr.dtype == lr.dtype == np.float32
        result = (upscale or protocol.bicubic)(lr, hr.shape[:2])
        scores.append(protocol.score(result, hr, factor))
    return {key: np.mean([score[key] for score in scores]) for key in scores[0]}


def test_ssims_range_and_what_is_shaved():
    codes = np.random.default_rng(0).integers(0, 256, (2, 40, 48, 3), np.uint8)
    pair = [*map(images.from_uint8, codes)]
    for name, span in (("plain", 255), ("paper-dip", 2 * 255)):
        expected = structural_similarity(*codes, channel_axis=-1, data_range=span)
        found = protocols.PROTOCOLS[name].score(*pair, 4)["ssim"]
        assert found == pytest.approx(expected, abs=1e-6)
    expected = peak_signal_noise_ratio(*codes[:, 4:-4, 4:-4], data_range=255)
    found = protocols.PROTOCOLS["standard"].score(*pair, 4)["psnr_rgb"]
    assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_nan_is_refused(name):
    image = np.full((64, 64, 3), 0.5, np.float32)
    image[1, 2] = np.nan
    with pytest.raises(InputError, match="the image must be finite"):
        protocols.PROTOCOLS[name].degrade(image, 2)


def test_bicubic_row_of_the_papers_table_1(shared):
    paths = [shared / "data" / "BSDS300" / "images" / "test" / f"{name}.jpg" for name in TEN]
    scores = mean_scores("paper-dip", paths, 4)
    assert f"{scores['psnr']:.4f} {scores['ssim']:.4f}" == "25.1727 0.8055"
    assert f"{scores['psnr_rgb']:.4f} {scores['ssim_rgb']:.4f}" == "25.1727 0.7050"

    def nearest(lr, size):
        picture = PIL.Image.fromarray(images.to_uint8(lr))
        return images.from_uint8(np.asarray(picture.resize(size[::-1], Resampling.NEAREST)))

    scores = mean_scores("paper-dip", paths, 4, nearest)
    expected = "23.8033 0.7708 0.6602"
    assert f"{scores['psnr']:.4f} {scores['ssim']:.4f} {scores['ssim_rgb']:.4f}" == expected


@pytest.mark.parametrize("factor, expected", [(2, "33.687 0.9307"), (4, "28.432 0.8108")])
def test_bicubic_on_set5_as_published(shared, factor, expected):
    paths = [shared / "data" / "Set5" / f"{name}.png" for name in SET5]
    scores = mean_scores("standard", paths, factor)
    assert f"{scores['psnr']:.3f} {scores['ssim']:.4f}" == expected
    assert scores["psnr"] == scores["psnr_y"] and scores["ssim"] == scores["ssim_y"]


def test_bicubic_on_butterfly_under_dip(shared):
    scores = mean_scores("dip", [shared / "data" / "Set5" / "butterfly.png"], 4)
    assert f"{scores['psnr']:.2f}" == "22.40"


def test_paper_lapsrn_lends_the_true_chroma(shared):
    pixels = images.read(shared / "data" / "Set5" / "butterfly.png").pixels
    protocol = protocols.PROTOCOLS["paper-lapsrn"]
    hr, lr = protocol.degrade(pixels, 4)
    assert lr.shape == (hr.shape[0] // 4, hr.shape[1] // 4, 1)
    picture = PIL.Image.fromarray(images.to_uint8(hr)).convert("YCbCr")
    luma, blue, red = picture.split()
    small = luma.resize((lr.shape[1], lr.shape[0]), Resampling.BICUBIC)
    np.testing.assert_array_equal(images.to_uint8(lr)[..., 0], small)
    large = small.resize(picture.size, Resampling.BICUBIC)
    merged = np.asarray(PIL.Image.merge("YCbCr", (large, blue, red)).convert("RGB"))
    reference = images.to_uint8(hr)
    scores = protocol.score(protocol.bicubic(lr, hr.shape[:2]), hr, 4)
    expected = peak_signal_noise_ratio(reference, merged, data_range=255)
    assert scores["psnr"] == pytest.approx(expected, abs=1e-5)
    expected = structural_similarity(reference, merged, channel_axis=-1, data_range=255)
    assert scores["ssim"] == pytest.approx(expected, abs=1e-6)
    colour = protocol.score(np.stack([np.asarray(large)] * 3, -1) / 255, hr, 4)
    # The chroma of an RGB result is replaced; its luma is rounded once more.
    assert colour["psnr"] == pytest.approx(scores["psnr"], abs=0.01)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
@pytest.mark.parametrize("channels, factor", [(1, 4), (3, 3), (1, 2)])
def test_the_named_kernel_makes_the_low_resolution(name, channels, factor):
    protocol = protocols.PROTOCOLS[name]
    rng = np.random.default_rng(1)
    pixels = images.from_uint8(rng.integers(60, 196, (101, 133, channels), dtype=np.uint8))
    hr, lr = protocol.degrade(pixels, factor)
    multiple = 32 if name in ("dip", "paper-dip") else 1
    assert all(side % multiple == side % factor == 0 for side in hr.shape[:2])
    source = protocols.jpeg_luma(hr) if name == "paper-lapsrn" else hr
    ours = operators.downsample(factor, kernel=protocol.kernel)(source[None])[0]
    assert ours.shape == lr.shape
    assert np.abs(ours - lr).max() < (1e-6 if name == "standard" else 1.25 / 255)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_what_equals_the_truth_has_no_error(name):
    pixels = images.from_uint8(np.arange(32 * 32, dtype=np.uint8).reshape(32, 32, 1))
    scores = protocols.PROTOCOLS[name].score(pixels, pixels, 4)
    assert (scores["psnr"], scores["ssim"]) == (np.inf, 1)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_another_process_may_score(name):
    protocol = protocols.PROTOCOLS[name]
    sent = pickle.loads(pickle.dumps(protocol))
    truth, noise = np.random.default_rng(0).random((2, 64, 96, 3), np.float32)
    hr, lr = protocol.degrade(truth, 4)
    np.testing.assert_array_equal(sent.degrade(truth, 4)[1], lr)
    np.testing.assert_array_equal(sent.bicubic(lr, (64, 96)), protocol.bicubic(lr, (64, 96)))
    assert sent.score(noise, hr, factor=4) == protocol.score(noise, hr, 4)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_gray_images_have_no_rgb_figures(name):
    protocol = protocols.PROTOCOLS[name]
    rng = np.random.default_rng(2)
    pixels = images.from_uint8(rng.integers(0, 256, (64, 96, 1), dtype=np.uint8))
    hr, lr = protocol.degrade(pixels, 4)
    result = protocol.bicubic(lr, hr.shape[:2])
    scores = protocol.score(result, hr, 4)
    assert set(scores) == {"psnr", "ssim", "psnr_y", "ssim_y"}
    assert all(np.isfinite(value) for value in scores.values())
    rgb = protocols.PROTOCOLS[name].score(result.repeat(3, -1), hr.repeat(3, -1), 4)
    assert rgb["psnr_y"] == pytest.approx(scores["psnr_y"], abs=1e-3)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
@pytest.mark.parametrize("factor", [4.0, "4", True, -4, 0])
def test_a_factor_is_a_whole_number(name, factor):
    with pytest.raises(
        InputError, match=rf"`factor` \(={factor}\) must be (an integer|at least 1)"
    ):
        protocols.PROTOCOLS[name].degrade(np.full((32, 32, 3), 0.25), factor)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_integers_are_refused(name):
    """They would be taken for values in [0, 1]."""
    protocol, values = protocols.PROTOCOLS[name], np.zeros((32, 32, 3), np.uint8)
    with pytest.raises(InputError, match=r"\(of uint8\) must hold floats in \[0, 1\]"):
        protocol.degrade(values, 4)
    with pytest.raises(InputError, match=r"\(of uint8\) must hold floats in \[0, 1\]"):
        protocol.score(images.from_uint8(values), values, 4)
    with pytest.raises(InputError, match=r"\(of uint8\) must hold floats in \[0, 1\]"):
        protocol.score(values, images.from_uint8(values), 4)
    with pytest.raises(InputError, match=r"\(of uint8\) must hold floats in \[0, 1\]"):
        protocol.bicubic(values, (128, 128))
    with pytest.raises(InputError, match=r"\(of uint8\) must hold floats in \[0, 1\]"):
        images.rgb_to_y(values)
    hr, lr = protocol.degrade(np.full((32, 32, 3), 0.25), 4)
    assert hr.dtype == lr.dtype == np.float32


@pytest.mark.parametrize("factor", [7, 25, 49, 75, 77])
def test_standards_low_resolution_has_no_pixel_too_many(factor):
    """1 / factor, rounded, times the side may lie above the whole number."""
    hr, lr = protocols.PROTOCOLS["standard"].degrade(
        np.full((7 * factor, 3 * factor, 1), 0.5), factor
    )
    assert lr.shape == (7, 3, 1) and hr.shape == (7 * factor, 3 * factor, 1)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_other_shapes_are_one_line(name):
    protocol = protocols.PROTOCOLS[name]
    with pytest.raises(InputError, match=r"\(64, 64, [13]\)"):
        protocol.score(np.full((32, 32, 3), 0.5), np.full((64, 64, 3), 0.5), 4)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_values_of_another_range_and_other_channels_are_refused(name):
    protocol, image = protocols.PROTOCOLS[name], np.full((64, 64, 3), 0.5, np.float32)
    for pair in ((255 * image, image), (image, 255 * image)):
        with pytest.raises(InputError, match=r"\(up to 127.5\) must hold floats in \[0, 1\]"):
            protocol.score(*pair, 4)
    with pytest.raises(InputError, match=r"\(64, 64, 4\)\) must be \(H, W, 1\) or \(H, W, 3\)"):
        protocol.degrade(np.full((64, 64, 4), 0.5, np.float32), 4)


def test_protocols_are_named_described_and_frozen():
    assert list(protocols.PROTOCOLS) == ["plain", "paper-dip", "paper-lapsrn", "standard", "dip"]
    for name, protocol in protocols.PROTOCOLS.items():
        assert protocol.name == name and "\n" not in protocol.description
        with pytest.raises(dataclasses.FrozenInstanceError):
            protocol.name = "another"


def test_a_border_that_leaves_nothing_is_told_of_the_image():
    image = np.full((70, 80, 3), 0.5, np.float32)
    with pytest.raises(
        InputError, match=r"of 80x70\) must have more than 80 pixels a side: the pr"
    ):
        protocols.PROTOCOLS["standard"].score(image, image, 40)


def test_dip_shaves_4_whatever_the_factor_and_standard_the_factor():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
    luma = 16 + codes / 255 @ np.array([65.481, 128.553, 24.966])
    for factor in (2, 3, 8):
        for name, shave in (("dip", 4), ("standard", factor)):
            a, b = luma[:, shave:-shave, shave:-shave]
            expected = 10 * np.log10(255**2 / np.mean((a - b) ** 2))
            score = protocols.PROTOCOLS[name].score(*map(images.from_uint8, codes), factor)
            assert score["psnr"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["paper-dip", "dip"])
def test_sides_become_multiples_of_32(name):
    pixels = np.random.default_rng(0).random((80, 112, 3), np.float32)
    hr, lr = protocols.PROTOCOLS[name].degrade(pixels, 4)
    np.testing.assert_array_equal(hr, pixels[8:72, 8:104])
    assert lr.shape == (16, 24, 3)
