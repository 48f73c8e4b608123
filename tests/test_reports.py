import csv
import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import skimage.data

from jaxsr import reports
from jaxsr.errors import InputError
from jaxsr.images import from_uint8, to_uint8


@pytest.fixture(scope="module")
def photographs():
    """A 128x128 photograph, reduced and enlarged again by 4."""
    hr = PIL.Image.fromarray(skimage.data.astronaut()[40:168, 160:288])
    lr = hr.resize((32, 32), PIL.Image.Resampling.LANCZOS)
    bicubic = lr.resize((128, 128), PIL.Image.Resampling.BICUBIC)
    images = {"low resolution": lr, "bicubic": bicubic, "ground truth": hr}
    return {name: from_uint8(np.asarray(image)) for name, image in images.items()}


def pixels(path):
    with PIL.Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def holds(picture, part):
    """Whether `part` is somewhere in `picture`, pixel by pixel."""
    rows, cols = part.shape[:2]
    corner = np.all(picture[: -rows + 1, : -cols + 1] == part[0, 0], axis=-1)
    return any(
        np.array_equal(picture[y : y + rows, x : x + cols], part)
        for y, x in zip(*np.nonzero(corner), strict=True)
    )


def enlarged(image, factor):
    return np.kron(to_uint8(image), np.ones((factor, factor, 1), np.uint8))


def test_json_keeps_order_and_numbers(tmp_path):
    record = {
        "psnr_rgb": np.float32(22.4),
        "perfect": math.inf,
        "bad": jnp.float32(jnp.nan),
        "bicubic": {"ssim": 0.1 + 0.2, "list": [np.int64(3), -np.inf, True, None]},
        "array": np.array([0.1, 0.2], np.float32),
        "bf16": jnp.bfloat16(0.1),
        "image": tmp_path / "é.png",
    }
    reports.write_json(tmp_path / "a.json", record)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.startswith('{\n  "psnr_rgb": 22.4,\n  "perfect": "inf",\n  "bad": "nan",\n')
    assert text.endswith("}\n")
    back = json.loads(text, parse_constant=pytest.fail)
    assert list(back) == list(record)
    assert back["bicubic"] == {"ssim": 0.1 + 0.2, "list": [3, "-inf", True, None]}
    assert back["array"] == [0.1, 0.2]
    assert jnp.bfloat16(back["bf16"]) == record["bf16"]
    assert back["image"] == str(record["image"])
    assert float(back["perfect"]) == math.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_csv_reads_back_bit_for_bit(tmp_path, dtype):
    rng = np.random.default_rng(0)
    integers = np.uint32 if dtype is np.float32 else np.uint64
    random_bits = rng.integers(0, np.iinfo(integers).max, 2000, integers).view(dtype)
    values = np.concatenate([random_bits, np.array([0.1, -0.0, 1e-42, np.inf, np.nan], dtype)])
    values = np.where(np.isnan(values), dtype(np.nan), values)
    counts = np.arange(len(values))
    reports.write_csv(tmp_path / "a.csv", {"loss": values, "a, b": counts})
    with open(tmp_path / "a.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["iteration", "loss", "a, b"]
    assert [int(row[0]) for row in rows] == list(range(1, len(values) + 1))
    back = np.array([dtype(row[1]) for row in rows])
    np.testing.assert_array_equal(back.view(integers), values.view(integers))
    assert [int(row[2]) for row in rows] == counts.tolist()
    first = (tmp_path / "a.csv").read_bytes()
    reports.write_csv(tmp_path / "a.csv", {"loss": values, "a, b": counts})
    assert (tmp_path / "a.csv").read_bytes() == first


def test_csv_writes_short_numbers(tmp_path):
    reports.write_csv(tmp_path / "a.csv", {"psnr": jnp.array([22.4, 0.1, 1e-8], jnp.float32)})
    assert (tmp_path / "a.csv").read_text() == "iteration,psnr\n1,22.4\n2,0.1\n3,1e-08\n"


@pytest.mark.parametrize(
    "columns", [{}, {"a": np.zeros(2), "b": np.zeros(3)}, {"a": np.zeros((2, 2))}]
)
def test_csv_refuses_ragged_columns(tmp_path, columns):
    with pytest.raises(InputError, match=r"`columns` \(of shapes .* must be 1-D and equally long"):
        reports.write_csv(tmp_path / "a.csv", columns)
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_told(tmp_path, photographs):
    path = tmp_path / "missing" / "file.png"
    for write in (
        lambda: reports.write_json(path, {}),
        lambda: reports.write_csv(path, {"a": np.zeros(2)}),
        lambda: reports.comparison(path, photographs, {}),
        lambda: reports.curves(path, {"a": {"p": np.zeros(2)}}, columns={"p": "p"}, ylabel="p"),
    ):
        with pytest.raises(InputError, match=r"file.png` cannot be written: No such file"):
            write()


def test_comparison_shows_the_pixels_themselves(tmp_path, photographs):
    window = (24, 60, 32, 32)
    reports.comparison(tmp_path / "a.png", photographs, {"bicubic": "22.40 dB"}, zoom=window)
    picture = pixels(tmp_path / "a.png")
    assert picture.shape == (16 + 48 + 384 + 12 + 384 + 16, 16 + 3 * 384 + 2 * 12 + 16, 3)
    for name, image in photographs.items():
        whole = enlarged(image, 12 if name == "low resolution" else 3)
        scale = 16 if name == "low resolution" else 4
        square = enlarged(image, scale)[24 * 4 : 56 * 4, 60 * 4 : 92 * 4]
        closer = np.kron(square[::4, ::4], np.ones((12, 12, 1), np.uint8))
        assert holds(picture, closer)
        assert holds(picture, whole[:70])  # above the frame
        assert holds(picture, whole[72:168, 180:276])  # inside it
        assert not holds(picture, whole)  # which is drawn
    everything = picture.reshape(-1, 3)
    frame = np.sum(np.all(everything == (255, 200, 0), axis=-1))
    assert frame >= 3 * (100 * 100 - 96 * 96)


def test_comparison_is_the_same_bytes_twice_whatever_the_users_style(tmp_path, photographs):
    import matplotlib

    reports.comparison(tmp_path / "a.png", photographs, {"bicubic": "22.40 dB, $5"})
    with matplotlib.rc_context(
        {"font.size": 20, "savefig.dpi": 40, "image.interpolation": "bicubic"}
    ):
        reports.comparison(tmp_path / "b.png", photographs, {"bicubic": "22.40 dB, $5"})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    "shape", [(16, 16, 1), (64, 20, 3), (37, 301, 3), (900, 1300, 3), (1, 1, 3)]
)
def test_comparison_takes_any_size_and_gray(tmp_path, shape):
    image = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    reports.comparison(tmp_path / "a.png", {"bicubic": image, "result": jnp.asarray(image)}, {})
    top, left, rows, cols = reports.most_detailed(image)
    crop = np.broadcast_to(image, (*shape[:2], 3))[top : top + rows, left : left + cols]
    assert any(holds(pixels(tmp_path / "a.png"), enlarged(crop, k)) for k in range(1, 400))


def test_the_window_has_the_most_detail_of_bicubic_and_ignores_the_truth(tmp_path, photographs):
    flat = np.full((40, 60, 3), 0.5, np.float32)
    flat[17:21, 33:41] = np.random.default_rng(0).uniform(size=(4, 8, 3))
    top, left, rows, cols = reports.most_detailed(flat)
    assert (rows, cols) == (10, 15)
    assert top <= 16 and top + rows >= 21 and left <= 32 and left + cols >= 41
    others = photographs | {"ground truth": np.flip(photographs["ground truth"], axis=(0, 1))}
    reports.comparison(tmp_path / "a.png", photographs, {})
    reports.comparison(tmp_path / "b.png", others, {})
    a, b = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    np.testing.assert_array_equal(a[:, : 16 + 2 * 396], b[:, : 16 + 2 * 396])


def test_comparison_refuses_what_does_not_fit(tmp_path):
    image, odd = np.zeros((12, 12, 3)), np.zeros((5, 6, 3))
    with pytest.raises(InputError, match=r"`images` \(`odd` of shape \(5, 6, 3\)\) must be 12x12"):
        reports.comparison(tmp_path / "a.png", {"bicubic": image, "odd": odd}, {})
    with pytest.raises(InputError, match=r"`zoom` \(=\(8, 8, 5, 4\)\) must lie in the image"):
        reports.comparison(tmp_path / "a.png", {"bicubic": image}, {}, zoom=(8, 8, 5, 4))
    assert list(tmp_path.iterdir()) == []


def drawn(figures):
    (axes,) = figures[0].axes
    return axes


def test_curves_draw_the_values_from_iteration_1(tmp_path, monkeypatch):
    figures = []
    save = reports._save
    monkeypatch.setattr(reports, "_save", lambda *args: (figures.append(args[1]), save(*args)))
    iterations = np.arange(1, 1001)
    psnr = (27 - 20 * np.exp(-iterations / 40)).astype(np.float32)
    psnr[700] = -5.0  # one collapse
    psnr[800] = np.nan
    reports.curves(
        tmp_path / "a.png",
        {"run": {"psnr": psnr, "loss": psnr}},
        columns={"psnr": "running average"},
        ylabel="PSNR (dB)",
        baseline={"bicubic": 22.4, "perfect": np.inf},
    )
    line, level = drawn(figures).lines
    np.testing.assert_array_equal(line.get_xdata(), iterations)
    np.testing.assert_array_equal(line.get_ydata(), psnr)
    assert list(level.get_ydata()) == [22.4, 22.4]
    low, high = drawn(figures).get_ylim()
    assert 20 < low < 22.4 and 27 < high < 28
    assert pixels(tmp_path / "a.png").shape == (540, 960, 3)


def test_curves_are_the_same_bytes_twice(tmp_path):
    histories = {name: {"psnr": np.linspace(20, 27, 50)} for name in ("mse", "charbonnier")}
    for name in ("a.png", "b.png"):
        reports.curves(tmp_path / name, histories, columns={"psnr": "PSNR"}, ylabel="PSNR (dB)")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("values", [[], [1.0], [3.0, 3.0], [np.nan, np.nan], [np.inf, 2.0]])
def test_curves_take_short_flat_and_broken_histories(tmp_path, values):
    histories = {"run": {"psnr": np.array(values)}}
    reports.curves(tmp_path / "a.png", histories, columns={"psnr": "PSNR"}, ylabel="PSNR (dB)")
    assert pixels(tmp_path / "a.png").shape == (540, 960, 3)


def test_environment_names_versions_and_hardware():
    record = reports.environment(jax.devices("cpu")[0])
    assert record["versions"]["jax"] == jax.__version__
    assert record["versions"]["numpy"] == np.__version__
    assert record["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["device"]["platform"] == "cpu"
    assert record["device"]["cpu"] and record["device"]["cores"] >= 1
    assert json.loads(json.dumps(record)) == record


def test_figures_need_no_pyplot():
    code = "import sys, jaxsr.reports; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
