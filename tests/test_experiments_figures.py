"""`experiments.figures` from records of the real ledgers, and `experiments.impedance`."""

import functools
import itertools
import json
import pathlib
import signal

import jax
import numpy as np
import pytest

from experiments import command, figures, impedance, networks, problem, rows, table1, tables
from experiments.ledger import Ledger
from jaxsr import dip, images, plots, reports
from jaxsr import figures as drawing

RESULTS = pathlib.Path(__file__).parents[1] / "results"

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def run(*args):
    return command.main(figures.Settings, figures.run, [str(arg) for arg in args])


@pytest.fixture
def measured(monkeypatch):
    """What is plotted, by file name."""
    found = {}
    for name in ("bands", "lines"):
        draw = getattr(plots, name)

        def keep(path, values, draw=draw, **options):
            found[path.name] = values
            draw(path, values, **options)

        monkeypatch.setattr(plots, name, keep)
    return found


def fit(folder, row, image, seed, psnr, average=0.99):
    """A record as `experiments.table1` leaves it of a fit, with its crops."""
    ledger = Ledger(folder / "table1")
    cell = tables.Cell("paper", row, "reference", image, seed)
    history = {"every": 10, "psnr": psnr, "psnr_output": [x - 1 for x in psnr]}
    kept = {"psnr": psnr[-1], "ssim": 0.5, "history": history, "snapshots": [10, 20]}
    made = {"row": row, "image": image, "seed": seed, "protocol": "paper-dip", "average": average}
    ledger.write(cell.name, made, kept, seconds=1.0, environment={})
    tile = np.full((96, 96, 3), psnr[-1] / 100, np.float32)
    images.write(ledger.folder / f"{cell.name}.png", tile)
    strip = np.concatenate([tile, 2 * tile], axis=1)
    images.write(ledger.folder / f"{cell.name}_snapshots.png", strip)
    (ledger.folder / "paper" / "truth").mkdir(exist_ok=True)
    images.write(ledger.folder / "paper" / "truth" / f"{image}.png", tile)


def test_what_is_on_record_is_drawn_and_the_rest_is_told(tmp_path, measured, capsys):
    assert run("--results", RESULTS, "--out", tmp_path, "--only", 4, 9) == 0
    line = measured["figure4.png"]["weights (1,2), 2 seeds"]
    assert list(line["x"]) == list(range(1, 51)) and len(line["y"]) == 2
    for seed, curve in enumerate(line["y"]):
        name = f"x4_charbonnier_w1-2_seed{seed}.json"
        record = json.loads((RESULTS / "lapsrn" / name).read_text())
        assert curve[-1] == pytest.approx(record["psnr"], abs=1e-3)
    assert (tmp_path / "figure9_253027.png").exists()
    captions = json.loads((tmp_path / "captions.json").read_text())
    assert list(captions) == ["figure4.png", "figure9_253027.png", "figure9_86000.png"]
    assert "paper-lapsrn has the truth's chroma" in captions["figure9_86000.png"]
    empty = ("--results", tmp_path / "none", "--out", tmp_path, "--only", 3, 4, 5, 7, 8, 9)
    capsys.readouterr()
    assert run(*empty) == 1
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 6 and all("python -m experiments." in line for line in printed)


def test_a_record_that_lacks_something_is_one_line(tmp_path, capsys):
    for row in ("dip-mse", "dip-charbonnier"):
        fit(tmp_path / "r", row, "86000", 0, [20.0, 21.0])
    args = ("--only", "8", "--results", tmp_path / "r", "--out", tmp_path / "out")
    assert run(*args) == 0
    for path in (tmp_path / "r" / "table1").rglob("*_seed0.json"):
        record = json.loads(path.read_text())
        del record["settings"]["protocol"]
        path.write_text(json.dumps(record))
    capsys.readouterr()
    assert run(*args) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: `--results` (=") and "figure 8 is made: KeyError" in said
    assert said.count("\n") == 1


def test_losses_are_compared_where_both_have_fits(tmp_path, measured):
    curves = {
        ("dip-mse", "253027", 0): [20.0, 22.0, 23.0],
        ("dip-mse", "253027", 1): [21.0, 23.0, 25.0],
        ("dip-mse", "16077", 0): [30.0, 30.0, 30.0],
        ("dip-charbonnier", "253027", 0): [24.0, 25.0, 26.0],
        ("dip-charbonnier", "253027", 1): [24.0, 25.0, 28.0],
    }
    for (row, image, seed), psnr in curves.items():
        fit(tmp_path, row, image, seed, psnr)
    assert run("--results", tmp_path, "--out", tmp_path, "--only", 3, 7, 8) == 0
    drawn = measured["figure3.png"]
    for row, title in (("dip-mse", "DIP (MSE)"), ("dip-charbonnier", "DIP (Charbonnier)")):
        both = np.array([curves[row, "253027", 0], curves[row, "253027", 1]])
        average, output = (drawn[f"{title}: {x}"] for x in ("running average", "output"))
        np.testing.assert_allclose(average["y"], both, atol=1e-12)  # of one image: none is moved
        np.testing.assert_allclose(output["y"], both - 1, atol=1e-12)
        assert list(average["x"]) == [10, 20, 30]
    assert (tmp_path / "figure7_253027_dip-mse.png").exists()
    assert (tmp_path / "figure8_253027.png").exists()
    # With another image, each is moved to the mean of all.
    fit(tmp_path, "dip-charbonnier", "16077", 0, [32.0, 32.0, 32.0])
    assert run("--results", tmp_path, "--out", tmp_path, "--only", 3) == 0
    moved = measured["figure3.png"]["DIP (Charbonnier): running average"]["y"]
    levels = np.mean([23, 25, 26, 28]), 31
    np.testing.assert_allclose(moved[0], 32 - 31 + np.mean(levels))


def test_without_an_average_the_output_is_drawn_alone(tmp_path, measured):
    for row in rows.DIP:
        fit(tmp_path, row, "253027", 0, [20.0, 22.0, 23.0], average=0.0)
    assert run("--results", tmp_path, "--out", tmp_path, "--only", 3) == 0
    drawn = measured["figure3.png"]
    assert list(drawn) == ["DIP (MSE)", "DIP (Charbonnier)"]
    np.testing.assert_allclose(drawn["DIP (MSE)"]["y"], [[19, 21, 22]], atol=1e-12)


def test_an_image_through_the_iterations(tmp_path, monkeypatch):
    """Five of the snapshots, first and last among them, under the PSNR that the history has."""
    found = {}
    draw = figures.figures.comparison

    def keep(path, images, captions, **options):
        found[path.name] = images, captions
        draw(path, images, captions, **options)

    monkeypatch.setattr(figures.figures, "comparison", keep)
    ledger, steps = Ledger(tmp_path / "table1"), [1, 2, 5, 10, 20, 50, 100]
    psnr = list(np.linspace(10, 28, 10))
    tiles = [np.full((96, 96, 3), np.float32(i / 255)) for i in range(len(steps))]
    for row in ("dip-mse", "dip-charbonnier"):
        cell = tables.Cell("paper", row, "reference", "86000", 0)
        kept = {"psnr": psnr[-1], "ssim": 0.5, "snapshots": steps}
        kept["history"] = {"every": 10, "psnr": psnr}
        made = {"average": 0.99 * (row == "dip-mse")}
        ledger.write(cell.name, made, kept, seconds=1.0, environment={})
        images.write(ledger.folder / f"{cell.name}_snapshots.png", np.concatenate(tiles, axis=1))
    assert run("--results", tmp_path, "--out", tmp_path, "--only", 7) == 0
    told = json.loads((tmp_path / "captions.json").read_text()).values()
    assert ["running average" in text for text in told] == [False, True]
    assert list(found) == ["figure7_86000_dip-mse.png", "figure7_86000_dip-charbonnier.png"]
    for shown, captions in found.values():
        assert list(shown) == [f"iteration {step}" for step in (1, 5, 10, 20, 100)]
        assert [image[0, 0, 0] * 255 for image in shown.values()] == pytest.approx([0, 2, 3, 4, 6])
        assert captions == {
            "iteration 10": "10.00 dB",
            "iteration 20": "12.00 dB",
            "iteration 100": "28.00 dB",
        }


def test_trainings_of_one_recipe_are_averaged_over_seeds(tmp_path, measured):
    record = json.loads((RESULTS / "lapsrn" / "x4_charbonnier_w1-2_seed0.json").read_text())
    first = record["history"]["psnr"]
    (tmp_path / "lapsrn").mkdir()
    others = {"seed": 1}, {"seed": 2, "epochs": 100}, {"seed": 3, "learning_rate": 1e-4}
    for number, change in enumerate(({}, *others)):
        made = {**record["settings"], **change}
        history = {**record["history"], "psnr": [x + number for x in first]}
        path = tmp_path / "lapsrn" / f"{number}.json"
        path.write_text(json.dumps({"settings": made, "history": history}))
    assert run("--results", tmp_path, "--out", tmp_path, "--only", 4) == 0
    curves = measured["figure4.png"]
    assert list(curves) == ["weights (1,2), 2 seeds"]
    np.testing.assert_allclose(curves["weights (1,2), 2 seeds"]["y"], [first, np.add(first, 1)])
    # A finished training beside them is a third seed; the one that is on record counts once.
    for seed in (1, 4):
        folder = tmp_path / "nets" / str(seed)
        folder.mkdir(parents=True)
        made = {**record["settings"], "seed": seed}
        reports.write_json(folder / "metrics.json", {"settings": made})
        psnr = {"psnr": np.add(first, seed).astype(np.float32)}
        reports.write_csv(folder / "history.csv", psnr, count="epoch")
    where = ("--results", tmp_path, "--lapsrn", tmp_path / "nets", "--out", tmp_path)
    assert run(*where, "--only", 4) == 0
    found = measured["figure4.png"]["weights (1,2), 3 seeds"]["y"]
    np.testing.assert_allclose(found, [first, np.add(first, 1), np.add(first, 4)], rtol=1e-6)


def test_figure_6_is_part_of_5_and_captions_add_up(tmp_path, monkeypatch, capsys):
    drawn, draw = [], drawing.comparison
    monkeypatch.setattr(
        drawing, "comparison", lambda *x, **more: drawn.append(x[:2]) or draw(*x, **more)
    )
    assert run("--results", RESULTS, "--out", tmp_path, "--only", 6, 5) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 and all("figure5_" in line for line in printed)
    low = images.read(RESULTS / "table1/paper/lr/86000.png").pixels
    (found,) = (x["low resolution"] for path, x in drawn if path.name == "figure5_86000.png")
    np.testing.assert_array_equal(found, low.repeat(4, 0).repeat(4, 1))  # the paper's (a)
    assert run("--results", RESULTS, "--out", tmp_path, "--only", 4) == 0
    captions = json.loads((tmp_path / "captions.json").read_text())
    assert list(captions) == ["figure4.png", "figure5_253027.png", "figure5_86000.png"]
    (tmp_path / "captions.json").write_text("[")
    assert run("--results", RESULTS, "--out", tmp_path, "--only", 4) == 2
    assert "captions.json` is damaged" in capsys.readouterr().err


def test_architectures_need_no_records(tmp_path, capsys):
    assert run("--out", tmp_path / "new", "--only", 1, 2, "--results", tmp_path) == 0
    assert {p.name for p in (tmp_path / "new").iterdir()} == {
        "captions.json",
        "figure1.png",
        "figure2.png",
    }
    assert run("--only", "10") == 2
    assert "`--only` (=10) must be among 1, 2, 3" in capsys.readouterr().err


def test_bands_hold_mean_and_deviation(tmp_path, monkeypatch):
    drawings = []
    save = plots.save
    monkeypatch.setattr(plots, "save", lambda *args: (drawings.append(args[1]), save(*args)))
    y = np.array([[1.0, 2.0, 4.0], [3.0, 2.0, 8.0]])
    plots.bands(tmp_path / "a.png", {"a": {"x": [1, 2, 3], "y": y}}, xlabel="x", ylabel="y")
    (axes,) = drawings[0].axes
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [2, 2, 6])
    (band,) = axes.collections
    top = band.get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx(6 + np.std([4, 8], ddof=1))


def test_bands_leave_the_start_aside_and_draw_alike_what_belongs_together(tmp_path, monkeypatch):
    drawings = []
    save = plots.save
    monkeypatch.setattr(plots, "save", lambda *args: (drawings.append(args[1]), save(*args)))
    y = np.concatenate([[-90.0], np.linspace(20, 26, 19)])
    curves = {
        "a": {"x": range(20), "y": [y]},
        "b": {"x": range(20), "y": [y + 1]},
        "a, noisy": {"x": range(20), "y": [y - 1], "of": "a"},
    }
    plots.bands(tmp_path / "a.png", curves, xlabel="x", ylabel="y", aside=0.1)
    (axes,) = drawings[0].axes
    a, b, noisy = axes.lines
    assert noisy.get_color() == a.get_color() != b.get_color()
    assert (a.get_linestyle(), noisy.get_linestyle()) == ("-", ":")
    low, high = axes.get_ylim()
    assert 18 < low < 19.5 and 27 < high < 28


@pytest.mark.parametrize("lengths", [(5,) * 4, (25,) * 4, (32,) * 4, (5, 13, 27, 15, 29)])
def test_a_legend_is_in_the_picture(tmp_path, monkeypatch, lengths):
    drawings = []
    save = plots.save
    monkeypatch.setattr(plots, "save", lambda *args: (save(*args), drawings.append(args[1])))
    names = [letter * length for letter, length in zip("vwxyz", lengths, strict=False)]
    curves = {name: {"x": [1, 2], "y": [[1, 2]]} for name in names}
    plots.bands(tmp_path / "a.png", curves, xlabel="x", ylabel="y")
    (legend,) = drawings[0].legends
    box = legend.get_window_extent()
    assert len(legend.get_texts()) == len(lengths) and box.x0 >= 0 and box.x1 <= 960


def test_from_the_fits_themselves(tmp_path, measured, monkeypatch):
    """Figures 3, 7 and 8 of what `experiments.table1` leaves, against its runs' own files."""
    network = functools.partial(networks.prior, down=(4,), up=(4,), skip=(2,))
    monkeypatch.setattr(networks, "prior", network)
    monkeypatch.setattr(rows, "Settings", functools.partial(rows.Settings, iterations=25))
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    monkeypatch.setitem(tables.IMAGES, "bsds300", ("37073",))
    monkeypatch.setattr(tables, "SHOWN", {"37073": (8, 16)})
    monkeypatch.setattr(tables, "SIDE", 32)
    monkeypatch.chdir(tmp_path)
    pathlib.Path("data").mkdir()
    images.write("data/37073.png", problem.photograph()[:64, :96])
    args = ["--bsds300", "data", "--tables", "paper", "--only", *rows.DIP, "--seeds", "0", "1"]
    assert command.main(table1.Settings, table1.run, args) == 0
    pictures, draw = {}, figures.figures.comparison

    def keep(path, panels, captions, **options):
        pictures[path.name] = panels
        draw(path, panels, captions, **options)

    monkeypatch.setattr(figures.figures, "comparison", keep)
    assert run("--out", "drawn", "--only", 3, 7, 8) == 0
    curves = measured["figure3.png"]
    for row, title in (("dip-mse", "DIP (MSE)"), ("dip-charbonnier", "DIP (Charbonnier)")):
        folders = [pathlib.Path(f"runs/table1/paper/{row}_reference_seed{i}/37073") for i in (0, 1)]
        histories = [np.genfromtxt(f / "history.csv", delimiter=",", names=True) for f in folders]
        expected = [table["psnr_output"][[9, 19]] for table in histories]
        np.testing.assert_allclose(curves[title]["y"], expected, rtol=1e-5)
        snapshot = images.read(folders[0] / "snapshots" / "000020.png").pixels[8:40, 16:48]
        last = pictures[f"figure7_37073_{row}.png"]["iteration 20"]
        np.testing.assert_array_equal(last, snapshot)
        result = images.read(folders[0] / "sr.png").pixels[8:40, 16:48]
        np.testing.assert_array_equal(pictures["figure8_37073.png"][title], result)
    truth = problem.photograph()[8:40, 16:48]
    np.testing.assert_array_equal(pictures["figure8_37073.png"]["ground truth"], truth)


@pytest.fixture
def small(monkeypatch):
    network = functools.partial(networks.prior, down=(4,), up=(4,), skip=(2,))
    monkeypatch.setattr(networks, "prior", network)
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)


def test_impedance_is_higher_for_noise(small, tmp_path, measured, capsys):
    args = ["--size", "64", "--iterations", "20", "--results", str(tmp_path / "impedance")]
    assert command.main(impedance.Settings, impedance.run, args) == 0
    losses = {
        path.stem: json.loads(path.read_text())["loss"]
        for path in (tmp_path / "impedance").glob("*/*.json")
    }
    image, noise, shuffled = (losses[f"{x}_seed0"] for x in ("image", "noise", "shuffled"))
    assert image < shuffled < noise  # the shuffled pixels have less variance than uniform noise
    first = capsys.readouterr().out
    assert command.main(impedance.Settings, impedance.run, args) == 0  # nothing is fitted again
    assert "..." in first and "..." not in capsys.readouterr().out
    assert run("--results", tmp_path, "--out", tmp_path, "--only", "impedance") == 0
    drawn = measured["impedance_coffee.png"]
    assert list(drawn) == ["image", "image and noise", "shuffled", "noise"]
    assert drawn["noise"]["y"][0][-1] == pytest.approx(noise, rel=1e-5)
    assert [list(curve["x"]) for curve in drawn.values()] == [[10, 20]] * 4
    # A fit that is too short to be drawn, of another image, does not keep it from the others.
    short = ["--hr", str(tmp_path / "tiny.png"), "--size", "64", "--iterations", "3", *args[4:]]
    images.write(tmp_path / "tiny.png", problem.photograph()[:64, :64])
    assert command.main(impedance.Settings, impedance.run, short) == 0
    capsys.readouterr()
    assert run("--results", tmp_path, "--out", tmp_path, "--only", "impedance") == 0
    # Another seed of other iterations is no second curve of the same.
    other = [*args[:2], "--iterations", "10", "--seed", "1", *args[4:]]
    assert command.main(impedance.Settings, impedance.run, other) == 0
    capsys.readouterr()
    assert run("--results", tmp_path, "--out", tmp_path, "--only", "impedance") == 2
    err = capsys.readouterr().err
    assert "_seed0.json` and `" in err and "_seed1.json` differ in `iterations` (=20 and 10)" in err
    assert err.count("\n") == 1
    assert command.main(impedance.Settings, impedance.run, ["--size", "65"]) == 2
    assert "`--size` (=65) must be a multiple of 32" in capsys.readouterr().err


def test_a_stopped_fit_of_the_impedance_is_no_record(small, tmp_path, monkeypatch, capsys):
    args = ["--size", "64", "--iterations", "20", "--results", str(tmp_path)]
    fit, calls = dip.fit, itertools.count(1)

    def pressed_in(call, chunks):
        """Ctrl-C after some chunks of a fit."""

        def interrupted(*arguments, on_chunk, **options):
            left = itertools.count(1)

            def chunk(progress):
                if this == call and next(left) == chunks:
                    signal.raise_signal(signal.SIGINT)
                return on_chunk(progress)

            this = next(calls)
            return fit(*arguments, on_chunk=chunk, **options)

        return interrupted

    with monkeypatch.context() as patch:
        patch.setattr(dip, "fit", pressed_in(2, 1))
        assert command.main(impedance.Settings, impedance.run, args) == command.INTERRUPTED
    assert [path.stem for path in tmp_path.glob("*/*.json")] == ["image_seed0"]
    out = capsys.readouterr().out
    assert "goes on from there" in out and out.count("missing") == 3
    with monkeypatch.context() as patch:  # in the last chunk of the last: nothing is missing
        patch.setattr(dip, "fit", pressed_in(5, 3))
        assert command.main(impedance.Settings, impedance.run, args) == 0
    assert len(list(tmp_path.glob("*/*.json"))) == 4
    assert "goes on from there" not in capsys.readouterr().out


def test_what_is_fitted():
    image = problem.photograph()
    found = impedance.targets(jax.random.key(0), image)
    np.testing.assert_array_equal(found["image"], image)
    same = [np.sort(found[x].reshape(-1, 3), axis=0) for x in ("image", "shuffled")]
    np.testing.assert_array_equal(*same)
    assert abs(np.diff(found["shuffled"], axis=0)).mean() > 2 * abs(np.diff(image, axis=0)).mean()
    inside = (image > 0.4) & (image < 0.6)
    noise = (found["image-and-noise"] - image)[inside]
    assert noise.std() == pytest.approx(25 / 255, rel=0.05)
    assert found["noise"].std() == pytest.approx(np.sqrt(1 / 12), rel=0.02)
