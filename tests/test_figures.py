import concurrent.futures
import subprocess
import sys

import jax.numpy as jnp
import matplotlib
import numpy as np
import PIL.Image
import pytest
import skimage.data
import skimage.measure

from jaxsr import figures, plots
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


def test_comparison_shows_the_pixels_themselves(tmp_path, photographs):
    window = (24, 60, 32, 32)
    figures.comparison(tmp_path / "a.png", photographs, {"bicubic": "22.40 dB"}, zoom=window)
    picture = pixels(tmp_path / "a.png")
    assert picture.shape == (16 + 48 + 384 + 12 + 384 + 16, 16 + 3 * 384 + 2 * 12 + 16, 3)
    for name, image in photographs.items():
        whole = enlarged(image, 12 if name == "low resolution" else 3)
        scale = 16 if name == "low resolution" else 4
        square = enlarged(image, scale)[24 * 4 : 56 * 4, 60 * 4 : 92 * 4]
        closer = np.kron(square[::4, ::4], np.ones((12, 12, 1), np.uint8))
        assert holds(picture, closer)
        assert holds(picture, whole[:69])  # above the frame
        assert holds(picture, whole[72:168, 180:276])  # inside it
        assert not holds(picture, whole)  # which is drawn
    everything = picture.reshape(-1, 3)
    for colour, inner, outer in (((255, 200, 0), 96, 100), ((32, 32, 32), 100, 102)):
        frame = np.sum(np.all(everything == colour, axis=-1))
        assert 3 * (outer**2 - inner**2) <= frame <= 3 * (outer**2 - inner**2) + 50


def test_comparison_is_the_same_bytes_twice_whatever_the_users_style(tmp_path, photographs):
    import matplotlib

    figures.comparison(tmp_path / "a.png", photographs, {"bicubic": "22.40 dB, $5"})
    with matplotlib.rc_context(
        {"font.size": 20, "savefig.dpi": 40, "image.interpolation": "bicubic"}
    ):
        figures.comparison(tmp_path / "b.png", photographs, {"bicubic": "22.40 dB, $5"})
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize(
    ("shape", "closer"),  # by how much the window, a quarter of each side, is enlarged
    [
        ((16, 16, 1), 96),
        ((64, 20, 3), 24),
        ((37, 301, 3), 4),
        ((900, 1300, 3), 2),
        ((1, 1, 3), 384),
    ],
)
def test_comparison_takes_any_size_and_gray(tmp_path, shape, closer):
    image = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    figures.comparison(tmp_path / "a.png", {"bicubic": image, "result": jnp.asarray(image)}, {})
    top, left, rows, cols = figures.most_detailed(image)
    crop = np.broadcast_to(image, (*shape[:2], 3))[top : top + rows, left : left + cols]
    assert holds(pixels(tmp_path / "a.png"), enlarged(crop, closer))


def test_the_window_has_the_most_detail_of_the_first_and_ignores_the_truth(tmp_path, photographs):
    flat = np.full((40, 60, 3), 0.5, np.float32)
    flat[17:21, 33:41] = np.random.default_rng(0).uniform(size=(4, 8, 3))
    top, left, rows, cols = figures.most_detailed(flat)
    assert (rows, cols) == (10, 15)
    assert top <= 16 and top + rows >= 21 and left <= 32 and left + cols >= 41
    others = photographs | {"ground truth": np.flip(photographs["ground truth"], axis=(0, 1))}
    figures.comparison(tmp_path / "a.png", photographs, {})
    figures.comparison(tmp_path / "b.png", others, {})
    a, b = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    np.testing.assert_array_equal(a[:, : 16 + 2 * 396], b[:, : 16 + 2 * 396])


def test_comparison_refuses_what_does_not_fit(tmp_path):
    image, odd = np.zeros((12, 12, 3)), np.zeros((5, 6, 3))
    with pytest.raises(InputError, match=r"`images` \(`odd` of shape \(5, 6, 3\)\) must be 12x12"):
        figures.comparison(tmp_path / "a.png", {"bicubic": image, "odd": odd}, {})
    with pytest.raises(InputError, match=r"`zoom` \(=\(8, 8, 5, 4\)\) must lie in the image"):
        figures.comparison(tmp_path / "a.png", {"bicubic": image}, {}, zoom=(8, 8, 5, 4))
    with pytest.raises(InputError, match=r"`images` \(`flat` of shape \(12, 12\)\) must be"):
        figures.comparison(tmp_path / "a.png", {"flat": image[..., 0]}, {})
    with pytest.raises(InputError, match=r"`images` \(=none\) must be at least one"):
        figures.comparison(tmp_path / "a.png", {}, {})
    assert list(tmp_path.iterdir()) == []


def test_dollars_in_names_are_no_mathematics(tmp_path):
    history = {"x": np.arange(5.0)}
    names = {"s$_{$": history, "a$\\foo$": history}
    plots.curves(tmp_path / "a.png", names, columns={"x": "x"}, ylabel="y")
    curve = {"x": [1, 2], "y": [[1, 2.0]]}
    plots.bands(tmp_path / "b.png", {"a$\\foo$": curve}, xlabel="x", ylabel="y")
    rows = {"a$\\foo$": [1.0]}
    texts = {name: ["1"] for name in rows}
    plots.heat_map(tmp_path / "c.png", rows, texts=texts, columns=["$\\foo$"], label="dB")


def test_drawing_in_threads_leaves_the_users_style(tmp_path, photographs):
    history = {"a": {"x": np.arange(50.0)}}

    def draw(i):
        if i % 2:
            plots.curves(tmp_path / f"{i}.png", history, columns={"x": "x"}, ylabel="y")
        else:
            figures.comparison(tmp_path / f"{i}.png", photographs, {})

    with matplotlib.rc_context({"lines.linewidth": 3.7}):
        before = dict(matplotlib.rcParams)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            list(pool.map(draw, range(12)))
        assert dict(matplotlib.rcParams) == before
    assert len({(tmp_path / f"{i}.png").read_bytes() for i in range(12)}) == 2


def drawn(drawings):
    (axes,) = drawings[0].axes
    return axes


@pytest.fixture
def drawings(monkeypatch):
    """The figures that were drawn, which are written all the same."""
    kept = []
    for module in (figures, plots):
        save = module.save
        monkeypatch.setattr(
            module, "save", lambda *args, save=save: (kept.append(args[1]), save(*args))
        )
    return kept


def words(texts):
    return [text.get_text() for text in texts]


def test_a_comparison_says_what_each_image_is(tmp_path, drawings):
    image = np.zeros((8, 8, 3))
    names = dict.fromkeys(("low", "bicubic", "truth"), image)
    figures.comparison(tmp_path / "a.png", names, {"bicubic": "22.40 dB"})
    (figure,) = drawings
    left, middle, right = (16 + i * (384 + 12) + 384 / 2 for i in range(3))
    width = figure.bbox.width
    found = {(x.get_text(), round(x.get_position()[0] * width)) for x in figure.texts}
    assert {x for x in found if x[0]} == {
        *(("low", left), ("bicubic", middle), ("22.40 dB", middle), ("truth", right))
    }


def test_curves_are_named_where_they_are_several(tmp_path, drawings):
    history = {"psnr": np.r_[np.full(980, 27.0), np.full(20, 15.0)]}
    options = {"columns": {"psnr": "running average"}, "xlabel": "epoch", "ylabel": "PSNR (dB)"}
    path = tmp_path / "a.png"
    plots.curves(path, {"a": history}, **options, baseline={"bicubic": 22.4})
    plots.curves(path, {"a": history, "b": history}, **options)
    one, two = (words(figure.legends[0].get_texts()) for figure in drawings)
    assert one == ["running average", "bicubic"]
    assert two == ["a: running average", "b: running average"]
    axes = drawn(drawings)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "PSNR (dB)")
    assert axes.get_ylim()[0] < 15  # 2 % of the values: not only a collapse or two


def test_curves_draw_the_values_from_iteration_1(tmp_path, drawings):
    iterations = np.arange(1, 1001)
    psnr = (27 - 20 * np.exp(-iterations / 40)).astype(np.float32)
    psnr[700] = -5.0  # one collapse
    psnr[800] = np.nan
    plots.curves(
        tmp_path / "a.png",
        {"run": {"psnr": psnr, "loss": psnr}},
        columns={"psnr": "running average"},
        ylabel="PSNR (dB)",
        baseline={"bicubic": 22.4, "perfect": np.inf},
    )
    line, level = drawn(drawings).lines
    np.testing.assert_array_equal(line.get_xdata(), iterations)
    np.testing.assert_array_equal(line.get_ydata(), psnr)
    assert list(level.get_ydata()) == [22.4, 22.4]
    low, high = drawn(drawings).get_ylim()
    assert 20 < low < 22.4 and 27 < high < 28
    assert pixels(tmp_path / "a.png").shape == (540, 960, 3)


def test_curves_are_the_same_bytes_twice(tmp_path):
    histories = {name: {"psnr": np.linspace(20, 27, 50)} for name in ("mse", "charbonnier")}
    for name in ("a.png", "b.png"):
        plots.curves(tmp_path / name, histories, columns={"psnr": "PSNR"}, ylabel="PSNR (dB)")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("values", [[], [1.0], [3.0, 3.0], [np.nan, np.nan], [np.inf, 2.0]])
def test_curves_take_short_flat_and_broken_histories(tmp_path, values):
    histories = {"run": {"psnr": np.array(values)}}
    plots.curves(tmp_path / "a.png", histories, columns={"psnr": "PSNR"}, ylabel="PSNR (dB)")
    assert pixels(tmp_path / "a.png").shape == (540, 960, 3)


def test_lines_go_through_their_points(tmp_path, drawings):
    points = {"ours": {0.1: 2.0, 1.0: 20.0}, "theirs": {0.1: 3.0}}
    for name in ("a.png", "b.png"):
        plots.lines(tmp_path / name, points, xlabel="x", ylabel="y", logarithmic="xy")
    ours, theirs = drawn(drawings).lines
    np.testing.assert_array_equal(ours.get_xydata(), [[0.1, 2], [1, 20]])
    np.testing.assert_array_equal(theirs.get_xydata(), [[0.1, 3]])
    assert drawn(drawings).get_xscale() == drawn(drawings).get_yscale() == "log"
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_figures_need_no_pyplot():
    code = "import sys, jaxsr.plots, jaxsr.diagrams; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unwritable_place_is_told(tmp_path, photographs):
    path = tmp_path / "missing" / "file.png"
    for write in (
        lambda: figures.comparison(path, photographs, {}),
        lambda: plots.curves(path, {"a": {"p": np.zeros(2)}}, columns={"p": "p"}, ylabel="p"),
    ):
        with pytest.raises(InputError, match=r"file.png` cannot be written: No such file"):
            write()


@pytest.mark.parametrize("suffix", ["pdf", "svg"])
def test_curves_as_vectors_are_the_same_bytes_twice(tmp_path, suffix):
    points = {"one": {1.0: 2.0, 2.0: 3.0}}
    written = []
    for _ in range(2):
        plots.lines(tmp_path / f"a.{suffix}", points, xlabel="megapixels", ylabel="seconds")
        written.append((tmp_path / f"a.{suffix}").read_bytes())
    assert written[0] == written[1]
    assert written[0].startswith({"pdf": b"%PDF-", "svg": b"<?xml"}[suffix])
    with pytest.raises(InputError, match=r"a\.gif` must end in \.png, \.pdf, \.svg"):
        plots.lines(tmp_path / "a.gif", points, xlabel="x", ylabel="y")


def test_details_are_sought_along_both_axes():
    image = np.full((40, 40, 1), 0.5, np.float32)
    image[:, 4:12:2] = 1.0
    image[:, 24:] += 0.1 * (np.arange(40) % 2)[:, None, None]  # along the rows, but weak
    assert figures.most_detailed(image)[1] < 12
    assert figures.most_detailed(image.transpose(1, 0, 2))[0] < 12


def test_large_images_are_shown_by_their_blocks_means(tmp_path):
    image = np.random.default_rng(0).random((900, 1300, 3), np.float32)
    figures.comparison(tmp_path / "a.png", {"x": image}, {}, zoom=(800, 1200, 32, 32))
    means = skimage.measure.block_reduce(to_uint8(image), (2, 2, 1), np.mean)
    assert holds(pixels(tmp_path / "a.png"), np.rint(means)[:60, :60])


def test_heat_map_is_red_below_zero_and_blue_above(tmp_path):
    path = tmp_path / "map.png"
    values = {"a": [-1.0, 1.0], "b": [None, 0.0]}
    texts = {"a": ["", ""], "b": ["", ""]}
    plots.heat_map(path, values, texts=texts, columns=("x", "y"), label="dB")
    pixels = np.asarray(PIL.Image.open(path).convert("RGB")).astype(int)
    found = [(pixels == colour).all(-1) for colour in ([103, 0, 31], [5, 48, 97])]
    assert all(colour.sum() > 1000 for colour in found)
    red, blue = (np.nonzero(colour)[1].mean() for colour in found)
    assert red < blue  # -1 is in the first column
    first = path.read_bytes()
    plots.heat_map(path, values, texts=texts, columns=("x", "y"), label="dB")
    assert path.read_bytes() == first


def test_a_heat_maps_cells_are_their_rows_and_columns(tmp_path, drawings):
    values = {"mse": [-2.0, -0.5, None], "l1": [-1.0, -0.25, -0.1]}
    texts = {"mse": ["a", "b", "c"], "l1": ["d", "e", "f"]}
    plots.heat_map(tmp_path / "a.png", values, texts=texts, columns=("x", "y", "z"), label="dB")
    axes = drawings[0].axes[0]
    assert {x.get_text(): x.get_position() for x in axes.texts} == {
        **{"a": (0, 0), "b": (1, 0), "c": (2, 0)},
        **{"d": (0, 1), "e": (1, 1), "f": (2, 1)},
    }
    assert words(axes.get_xticklabels()) == ["x", "y", "z"]
    assert words(axes.get_yticklabels()) == ["mse", "l1"]
    assert axes.images[0].get_clim() == (-2, 2)  # also where nothing is above 0
