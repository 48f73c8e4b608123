"""`python -m experiments.evaluate` in-process, on small images but for the published figures."""

import csv
import errno
import json
import math
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import skimage.color
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from experiments import command, evaluate, lumas, restoration, scores
from jaxsr import dip as solver
from jaxsr import files, images, losses, models, pretrained, protocols, upscaling, weights

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A 4x network of random weights, not far from bilinear."""
    folder = tmp_path_factory.mktemp("network")
    model = models.LapSRN(features=4, depth=1)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    rng = np.random.default_rng(0)

    def draw(leaf):
        return rng.standard_normal(leaf.shape, np.float32) / np.float32(np.sqrt(leaf.size) + 20)

    variables = jax.tree.map(draw, shapes)
    taps = np.array([0.25, 0.75, 0.75, 0.25], np.float32)
    for level in range(model.levels):
        enlarge = variables["params"][f"level_{level}_image"]
        enlarge["kernel"] = np.outer(taps, taps)[..., None, None]
    pretrained.save(folder, model, variables)
    return folder


def run(*args):
    return command.main(evaluate.Settings, evaluate.run, [str(arg) for arg in args])


def picture(path, shape=(64, 64, 3), seed=0):
    """Smooth, colourful, with some noise."""
    rows, cols, channels = np.indices(shape)
    waves = np.sin(rows / 9 + channels) * np.cos(cols / 7 - channels)
    noise = np.random.default_rng(seed).random(shape)
    values = np.rint(110 + 90 * waves + 30 * noise).astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    PIL.Image.fromarray(values.squeeze()).save(path)
    return path


def stored(path, mode="RGB"):
    """The file's values, 0..255, by Pillow."""
    with PIL.Image.open(path) as file:
        return np.asarray(file.convert(mode))


def results(out):
    """scores.json, and scores.csv by image."""
    with open(out / "scores.csv", newline="") as file:
        rows = {row.pop("image"): row for row in csv.DictReader(file)}
    return json.loads((out / "scores.json").read_text()), rows


def test_bicubic_on_set5_as_published(shared, tmp_path, capsys):
    args = ("--data", shared / "data" / "Set5", "--out", "out")
    assert run(*args) == 0
    printed = capsys.readouterr().out.splitlines()
    record, rows = results(tmp_path / "out")
    names = ["baby", "bird", "butterfly", "head", "woman"]
    assert [image["name"] for image in record["images"]] == names
    assert [*rows] == [*names, "mean"]
    mean = record["mean"]
    assert f"{mean['psnr']:.3f} {mean['ssim']:.4f}" == "28.432 0.8108"
    assert printed[-2].split() == ["mean", "28.432", "0.8108"]
    assert printed[-1] == "to look at: out/report.html"
    assert len({len(line) for line in printed[-7:-1]}) == 1  # aligned
    assert protocols.PROTOCOLS["standard"].description in "".join(printed)
    for name in ("psnr", "ssim", "psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y"):
        values = [image[name] for image in record["images"]]
        assert mean[name] == pytest.approx(np.mean(values), abs=1e-12)
        assert [float(row[name]) for row in rows.values()] == [*values, mean[name]]
        assert float(rows["baby"][f"bicubic_{name}"]) == record["images"][0]["bicubic"][name]
    assert (record["method"], record["scale"], record["count"]) == ("bicubic", 4, 5)
    assert record["checkpoint"] is None and record["left_out"] == {}
    assert record["precision"] == "float32" and record["versions"]["jax"] == jax.__version__

    def written():
        return {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.*")}

    before = written()
    assert run(*args) == 0
    assert written() == before


def test_official_weights_on_butterfly_explained(shared, tmp_path, capsys):
    """The published dB, and three more from the written image by scikit-image and Pillow."""
    network = weights.lapsrn_from_mat(shared / "weights" / "LapSRN_x4.mat")
    pretrained.save(tmp_path / "x4", *network)
    path = shared / "data" / "Set5" / "butterfly.png"
    assert run("--data", path, "--checkpoint", "x4", "--out", "out", "--explain") == 0
    printed = capsys.readouterr().out
    record, _ = results(tmp_path / "out")
    scores = record["mean"]
    assert scores["psnr"] == pytest.approx(27.20, abs=0.005)
    assert scores["bicubic"]["psnr"] == pytest.approx(22.10, abs=0.005)
    assert record["method"] == "lapsrn" and record["settings"]["depth"] == 10

    pair = path, tmp_path / "out" / "images" / "butterfly.png"
    inside = slice(4, -4), slice(4, -4)

    def expected(truth, result):
        return peak_signal_noise_ratio(truth[inside], result[inside], data_range=255)

    rgb = [stored(p) for p in pair]
    figures = scores["explain"]["lapsrn"]
    assert figures["rgb"] == pytest.approx(expected(*rgb), abs=1e-6)
    pillow = [stored(p, "YCbCr")[..., 0] for p in pair]
    assert figures["pillow_y"] == pytest.approx(expected(*pillow), abs=1e-5)
    matlab = [skimage.color.rgb2ycbcr(image)[..., 0] for image in rgb]
    assert figures["matlab_y"] == pytest.approx(expected(*matlab), abs=1e-6)
    assert figures["matlab_y"] == pytest.approx(scores["psnr"], abs=1e-9)
    rounded = [np.round(luma) for luma in matlab]
    assert figures["matlab_y_rounded"] == pytest.approx(expected(*rounded), abs=1e-3)  # ties
    whole = peak_signal_noise_ratio(*matlab, data_range=255)
    assert figures["matlab_y_unshaved"] == pytest.approx(whole, abs=1e-6)
    table = [line.split() for line in printed.splitlines()]
    shown = next(line for line in reversed(table) if line[:1] == ["mean"])
    values = [scores["explain"][m][c] for m in ("lapsrn", "bicubic") for c in lumas.COLUMNS]
    assert shown[1:] == [f"{value:.3f}" for value in values]
    assert "20 log10(255/219) = 1.32 dB" in printed


def test_studio_range_adds_what_the_explanation_says():
    """The same luma in both ranges, neither rounded: gray images, of which Y is the pixel."""
    rng = np.random.default_rng(0)
    hr, result = (images.from_uint8(rng.integers(0, 256, (32, 32, 1), np.uint8)) for _ in range(2))
    figures = lumas.compare(result, hr, 4)
    assert "rgb" not in figures
    added = figures["matlab_y"] - figures["pillow_y"]
    assert added == pytest.approx(20 * math.log10(255 / 219), abs=1e-6)


def test_paper_lapsrn_restores_luma_alone(tmp_path, checkpoint):
    """A checkpoint alone names the method; the written image is what was scored."""
    path = picture(tmp_path / "data" / "waves.png", (66, 73, 3))
    common = ("--data", "data", "--protocol", "paper-lapsrn", "--checkpoint", checkpoint)
    assert run(*common, "--out", "out") == 0
    record, _ = results(tmp_path / "out")
    truth, written = stored(path)[1:65, :72], stored("out/images/waves.png")
    scores = record["images"][0]
    expected = peak_signal_noise_ratio(truth, written, data_range=255)
    assert scores["psnr"] == pytest.approx(expected, abs=1e-5)
    expected = structural_similarity(truth, written, data_range=255, channel_axis=-1)
    assert scores["ssim"] == pytest.approx(expected, abs=1e-6)
    pair = [np.asarray(PIL.Image.fromarray(i).convert("YCbCr")) for i in (truth, written)]
    luma, *chroma = np.abs(pair[0].astype(int) - pair[1]).mean((0, 1))
    assert luma > 5 and max(chroma) < 0.5


def test_images_that_others_restored_are_scored(tmp_path, capsys):
    """By scikit-image from the files; what is missing or of another size is left out."""
    truths = {
        name: picture(tmp_path / "data" / f"{name}.bmp", seed=i) for i, name in enumerate("abcd")
    }
    picture(tmp_path / "data" / "cut.png", (67, 66, 3))
    picture(tmp_path / "made" / "a.png", seed=5)
    picture(tmp_path / "made" / "b.tiff", seed=6)
    picture(tmp_path / "made" / "c.png", (60, 64, 3))
    picture(tmp_path / "made" / "cut.png", (64, 64, 3))
    assert run("--data", "data", "--out", "out", "--restored", "made", "--protocol", "plain") == 1
    record, _ = results(tmp_path / "out")
    assert record["method"] == "restored" and record["settings"] == {"restored": "made"}
    assert [image["name"] for image in record["images"]] == ["a", "b", "cut"]
    for image, name in zip(record["images"], ("a.png", "b.tiff"), strict=False):
        pair = stored(truths[image["name"]]), stored(tmp_path / "made" / name)
        expected = peak_signal_noise_ratio(*pair, data_range=255)
        assert image["psnr"] == pytest.approx(expected, abs=1e-6)
        np.testing.assert_array_equal(stored(f"out/images/{image['name']}.png"), pair[1])
    assert "`made/c.png` is 60x64x3" in record["left_out"]["c"]
    assert "ground truth 64x64x3 as the protocol crops it" in record["left_out"]["c"]
    assert (
        "must have one image called d, of any kind, but has none (it has a.png, say)"
        in record["left_out"]["d"]
    )
    assert (tmp_path / "out" / "report.html").exists()

    picture(tmp_path / "made" / "a.bmp")
    assert run("--data", "data", "--out", "two", "--restored", "made") == 1
    record, _ = results(tmp_path / "two")
    assert "but has a.bmp and a.png" in record["left_out"]["a"]

    for place in ("images", "bicubic", "hr"):
        before = (tmp_path / "out" / place / "a.png").read_bytes()
        assert run("--data", truths["a"], "--out", "out", "--restored", f"out/{place}/a.png") == 2
        assert "would overwrite" in capsys.readouterr().err
        assert (tmp_path / "out" / place / "a.png").read_bytes() == before


def test_restored_images_of_truths_that_differ_in_their_kind_alone(tmp_path):
    for i, name in enumerate(("a.png", "a.bmp", "b.png")):
        picture(tmp_path / "data" / name, seed=i)
        picture(tmp_path / "made" / name, seed=i + 5)
    assert run("--data", "data", "--out", "out", "--restored", "made", "--protocol", "plain") == 0
    record, _ = results(tmp_path / "out")
    for image in record["images"]:
        pair = (stored(tmp_path / x / image["file"]) for x in ("data", "made"))
        expected = peak_signal_noise_ratio(*pair, data_range=255)
        assert image["psnr"] == pytest.approx(expected, abs=1e-6)


def test_restored_luma_is_scored_under_the_chroma_of_the_truth(tmp_path):
    """As an RGB image or by itself; what is written is what was scored."""
    truth = picture(tmp_path / "data" / "waves.png")
    made = PIL.Image.open(picture(tmp_path / "rgb" / "waves.png", seed=5))
    (tmp_path / "y").mkdir()
    made.convert("YCbCr").split()[0].save(tmp_path / "y" / "waves.png")
    figures = []
    for kind in ("rgb", "y"):
        common = ("--data", "data", "--protocol", "paper-lapsrn", "--restored", kind)
        assert run(*common, "--out", f"out_{kind}") == 0
        record, _ = results(tmp_path / f"out_{kind}")
        figures.append(record["mean"]["psnr"])
        written = stored(f"out_{kind}/images/waves.png")
        expected = peak_signal_noise_ratio(stored(truth), written, data_range=255)
        assert figures[-1] == pytest.approx(expected, abs=1e-5)
    assert figures[0] == figures[1]


def test_options_of_lapsrn_reach_the_network(tmp_path, checkpoint):
    path = picture(tmp_path / "waves.png")
    common = ("--data", path, "--checkpoint", checkpoint, "--out", "out")
    protocol = protocols.PROTOCOLS["standard"]
    model, variables = pretrained.load(checkpoint)
    figures = []
    for scale, args, how in (
        (4, (), {}),
        (4, ("--self-ensemble",), {"self_ensemble": True}),
        (2, ("--scale", 2), {"scale": 2}),
    ):
        assert run(*common, *args) == 0
        hr, lr = protocol.degrade(images.read(path).pixels, scale)
        result = upscaling.upscale(lr, model, variables, **how)
        record, _ = results(tmp_path / "out")
        expected = protocol.score(result, hr, scale)
        assert record["mean"]["psnr"] == pytest.approx(expected["psnr"], abs=1e-9)
        assert record["settings"]["self_ensemble"] is bool(how.get("self_ensemble"))
        figures.append(expected["psnr"])
    assert len(set(figures)) == 3
    assert run(*common, "--precision", "bfloat16") == 0
    half = results(tmp_path / "out")[0]["mean"]["psnr"]
    assert 1e-6 < abs(half - figures[0]) < 0.1


def test_dip_fits_each_image_once(tmp_path, monkeypatch, capsys):
    """All but the iterations themselves, whose result is given."""
    result = np.random.default_rng(0).random((1, 64, 64, 3), np.float32)
    history = {name: np.ones(3, np.float32) for name in ("loss", "psnr_fit", "psnr", "psnr_y")}
    history |= {f"{name}_output": history[name] for name in ("psnr", "psnr_y")}

    def fit(key, lr, operator, *, config, loss, **options):
        assert (config.iterations, loss, lr.shape) == (3, losses.mse, (1, 16, 16, 3))
        state = solver.State({}, (), lr, key, jnp.int32(3), jnp.asarray(result))
        return solver.DIPResult(
            state.average, state.average, {}, history, True, state, 1.0, 3, 1.0, 0
        )

    monkeypatch.setattr(solver, "fit", fit)
    path = picture(tmp_path / "data" / "waves.png")
    common = ("--data", "data", "--method", "dip", "--out", "out", "--protocol", "paper-dip")
    options = ("--iterations", 3, "--loss", "mse", "--seed", 5, "--recipe", "reference")
    with monkeypatch.context() as patch:
        patch.setattr(restoration, "run", lambda settings, stop: command.INTERRUPTED)
        assert run(*common, *options) == command.INTERRUPTED
    assert "stopped after 0 of 1 images" in capsys.readouterr().out
    assert not (tmp_path / "out" / "scores.json").exists()
    assert run(*common, *options) == 0
    monkeypatch.delattr(solver, "fit")
    assert run(*common, *options, "--explain") == 0
    assert "out/dip/waves is finished" in capsys.readouterr().out

    record, _ = results(tmp_path / "out")
    figures, truth, rounded = record["images"][0], stored(path), stored("out/images/waves.png")
    np.testing.assert_array_equal(rounded, images.to_uint8(result[0]))
    expected = peak_signal_noise_ratio(truth / 255, result[0].astype(float), data_range=1)
    assert figures["psnr"] == pytest.approx(expected, abs=1e-6)  # not rounded: the protocol's rule
    expected = peak_signal_noise_ratio(truth[4:-4, 4:-4], rounded[4:-4, 4:-4], data_range=255)
    assert figures["explain"]["dip"]["rgb"] == pytest.approx(expected, abs=1e-5)
    metrics = json.loads((tmp_path / "out" / "dip" / "waves" / "metrics.json").read_text())
    assert figures["bicubic"] == metrics["bicubic"]
    settings = {"iterations": 3, "loss": "mse", "seed": 5, "kernel": "lanczos2"}
    assert settings.items() <= record["settings"].items()


def test_ctrl_c_stops_a_fit_between_its_chunks(tmp_path, monkeypatch, capsys):
    """With its image and a checkpoint, as `experiments.dip` does."""
    picture(tmp_path / "data" / "waves.png")
    stops = []

    def restored(settings, stop):
        stops.append(stop())
        signal.raise_signal(signal.SIGINT)
        stops.append(stop())
        return command.INTERRUPTED

    monkeypatch.setattr(restoration, "run", restored)
    before = signal.getsignal(signal.SIGINT)
    assert run("--data", "data", "--method", "dip", "--out", "out") == command.INTERRUPTED
    assert stops == [False, True] and signal.getsignal(signal.SIGINT) is before
    assert "stopped after 0 of 1 images, no scores were written" in capsys.readouterr().out


def test_one_bad_image_does_not_stop_the_rest(tmp_path, capsys):
    data = tmp_path / "data"
    good = picture(data / "good.png").read_bytes()
    picture(data / "gray.png", (48, 40, 1))
    picture(data / "good.bmp", seed=3)  # the same stem: these two keep their suffix
    picture(data / "tiny.png", (3, 40, 3))
    (data / "cut.png").write_bytes(good[:300])
    (data / "notes.txt").write_text("no image")
    (data / ".hidden.png").write_bytes(b"")
    assert run("--data", "data", "--out", "out", "--explain") == 1
    captured = capsys.readouterr()
    record, rows = results(tmp_path / "out")
    assert [image["name"] for image in record["images"]] == ["good.bmp", "good.png", "gray"]
    assert record["count"] == 3 and [*record["left_out"]] == ["cut", "tiny"]
    assert "3 of 5 images" in captured.out
    assert "sides of at least 4" in record["left_out"]["tiny"]
    first, second = captured.err.splitlines()[-2:]
    assert first.startswith("left out cut: ") and second.startswith("left out tiny: ")
    mean = np.mean([image["psnr"] for image in record["images"]])
    assert record["mean"]["psnr"] == pytest.approx(mean, abs=1e-12)
    assert "psnr_rgb" not in record["mean"] and rows["gray"]["psnr_rgb"] == ""
    assert rows["good.png"]["psnr_rgb"]
    assert images.read("out/images/gray.png").pixels.shape == (48, 40, 1)

    assert run("--data", data / "cut.png", "--out", "none") == 1
    assert "left out cut: " in capsys.readouterr().err
    assert not (tmp_path / "none" / "scores.json").exists()


def test_stopped_it_leaves_no_scores_of_other_images(tmp_path, checkpoint, monkeypatch, capsys):
    for name in ("a", "b"):
        picture(tmp_path / "data" / f"{name}.png")
    assert run("--data", "data", "--out", "out") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_file()) == [
        *("report.html", "scores.csv", "scores.json"),
    ]
    read = images.read

    def press(path):
        if path.name == "b.png":
            raise KeyboardInterrupt
        return read(path)

    with monkeypatch.context() as stopped:
        stopped.setattr(images, "read", press)
        again = run("--data", "data", "--out", "out", "--checkpoint", checkpoint)
    assert again == command.INTERRUPTED
    assert "stopped after 1 of 2 images, no scores were written\n" in capsys.readouterr().out
    assert not [p.name for p in (tmp_path / "out").iterdir() if p.is_file()]
    assert run("--data", "data/b.png", "--out", "out", "--scale", 1) == 2
    assert run("--data", "data", "--out", "out", "--checkpoint", checkpoint) == 0
    record, _ = results(tmp_path / "out")
    assert record["method"] == "lapsrn" and record["count"] == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--data", "missing"), "`--data` (=missing) does not exist"),
        (("--data", "empty"), "`empty` holds no image file"),
        (("--scale", 1), "`--scale` (=1) must be at least 2"),
        (("--scale", 8, "--checkpoint", "NETWORK"), "`scale` (=8) must be one that this network"),
        (("--checkpoint", "empty"), "`empty` holds no trained network"),
        (("--method", "lapsrn"), "needs `--checkpoint`"),
        (("--method", "restored"), "needs `--restored`"),
        (("--restored", "empty"), "`empty` holds no image file"),
        (("--restored", "data", "--checkpoint", "NETWORK"), "`--restored` (=data) goes with"),
        (("--method", "bicubic", "--checkpoint", "empty"), "`--checkpoint` (=empty) goes with"),
        (("--self-ensemble",), "`--self-ensemble` (=True) goes with `--method lapsrn` alone"),
        (("--seed", 0), "`--seed` (=0) goes with `--method dip` alone, not bicubic"),
        (("--loss", "mse", "--checkpoint", "NETWORK"), "`--loss` (=mse) goes with"),
        (("--iterations", 0, "--method", "dip"), "`--iterations` (=0) must be at least 1"),
        (("--out", "data/waves.png"), "`--out` (=data/waves.png) cannot be used"),
        (("--device", "tpu"), "`--device` (=tpu)"),
    ],
)
def test_bad_input_is_one_line(tmp_path, checkpoint, capsys, args, said):
    picture(tmp_path / "data" / "waves.png")
    (tmp_path / "empty").mkdir()
    args = [checkpoint if arg == "NETWORK" else arg for arg in args]
    defaults = {"--data": "data", "--out": "out"}
    given = [x for name, value in defaults.items() if name not in args for x in (name, value)]
    assert run(*given, *args) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_ground_truth_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "set").mkdir()
    picture(tmp_path / "set" / "images" / "waves.png")
    before = (tmp_path / "set" / "images" / "waves.png").read_bytes()
    assert run("--data", tmp_path / "set" / "images", "--out", tmp_path / "set") == 2
    assert "would overwrite" in capsys.readouterr().err
    assert (tmp_path / "set" / "images" / "waves.png").read_bytes() == before


def test_the_explanation_says_which_way_roundings_and_borders_are_off():
    figures = {"rgb": 19.0, "pillow_y": 19.5, "matlab_y": 20.0}
    figures |= {"matlab_y_rounded": 20.25, "matlab_y_unshaved": 18.5}
    text = lumas.explanation([("mean", {"bicubic": figures})], 4)
    assert "would be +0.250 dB off" in text and "would be -1.500 dB off" in text
    exact = dict.fromkeys(figures, math.inf)
    text = lumas.explanation([("mean", {"bicubic": exact})], 4)
    assert "nan" not in text and text.endswith("= 1.32 dB.")


def test_the_gain_is_over_what_stands_beside():
    row = {"psnr": 28.5, "ssim": 0.8, "bicubic": {"psnr": 27.25, "ssim": 0.75}}
    *_, line = scores.summary([("a", row)], beside="bicubic").splitlines()
    assert line.split() == ["a", "28.500", "0.8000", "27.250", "0.7500", "+1.250"]
    exact = {"psnr": math.inf, "ssim": 1.0, "bicubic": {"psnr": math.inf, "ssim": 1.0}}
    *_, line = scores.summary([("a", exact)], beside="bicubic").splitlines()
    assert line.split() == ["a", "inf", "1.0000", "inf", "1.0000", "-"]
    exact["bicubic"]["psnr"] = 20.0
    assert scores.figures(exact, "bicubic")[-1] == math.inf


def test_what_is_cropped_or_left_out_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    draw = np.random.default_rng(0)
    for name, shape in (("a", (65, 64, 3)), ("b", (64, 64, 4)), ("c", (64, 64, 3))):
        pixels = draw.integers(0, 256, shape, np.uint8)
        PIL.Image.fromarray(pixels).save(f"data/{name}.png")
    assert command.main(evaluate.Settings, evaluate.run, ["--data", "data", "--out", "out"]) == 0
    told = capsys.readouterr().out
    assert "cropped, as protocol standard asks: 1 of 3 images" in told
    assert "compared without their transparency: 1 of 3 images" in told


def test_a_foreign_folder_is_left_alone(tmp_path, capsys):
    image = picture(tmp_path / "data/a.png")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    (tmp_path / "run/report.html").write_text("mine")
    assert run("--data", image, "--out", "run") == 2
    said = "must be new, empty or of an evaluation: it holds config.json"
    assert said in capsys.readouterr().err
    assert (tmp_path / "run/report.html").read_text() == "mine"


def test_an_evaluation_takes_the_place_of_an_earlier_one(tmp_path):
    first, second = picture(tmp_path / "data/a.png"), picture(tmp_path / "data/b.png")
    assert run("--data", first, "--out", "out") == 0
    assert run("--data", second, "--scale", 2, "--out", "out") == 0
    assert sorted(path.name for path in tmp_path.glob("out/*/*.png")) == 3 * ["b.png"]


def test_an_evaluation_takes_the_place_of_one_that_was_stopped(tmp_path):
    """Which has left images, but no scores."""
    first, second = picture(tmp_path / "data/a.png"), picture(tmp_path / "data/b.png")
    assert run("--data", first, "--out", "out") == 0
    for record in ("scores.json", "scores.csv", "report.html"):
        (tmp_path / "out" / record).unlink()
    assert run("--data", second, "--out", "out") == 0
    assert sorted(path.name for path in tmp_path.glob("out/*/*.png")) == 3 * ["b.png"]


def test_images_of_ones_own_are_no_evaluation(tmp_path, capsys):
    (tmp_path / "out").mkdir()
    own = picture(tmp_path / "out/images/holiday.png")
    assert run("--data", picture(tmp_path / "data/a.png"), "--out", "out") == 2
    assert "it holds images alone" in capsys.readouterr().err and own.exists()


def test_one_evaluation_at_a_time(tmp_path, capsys):
    """Images of one beside scores of another would tell nobody."""
    image = picture(tmp_path / "data/a.png")
    assert run("--data", image, "--out", "out") == 0
    held = files.lock(tmp_path / "out")
    assert run("--data", image, "--scale", 2, "--out", "out") == 2
    os.close(held)
    assert "is in use by another process" in capsys.readouterr().err
    assert results(tmp_path / "out")[0]["scale"] == 4
    assert run("--data", image, "--scale", 2, "--out", "out") == 0


def test_scores_are_there_before_they_are_printed(tmp_path, monkeypatch):
    """As into a pipe whose reader has had enough."""
    image = picture(tmp_path / "data/a.png")

    def closed(*_, **__):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(evaluate.scores, "summary", closed)
    assert run("--data", image, "--out", "out") == 2
    assert results(tmp_path / "out")[0]["count"] == 1
