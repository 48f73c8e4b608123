"""`python -m experiments.upscale` and `import_lapsrn` in-process, with a small network."""

import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from experiments import command, import_lapsrn, paths, upscale
from jaxsr import images, pretrained, upscaling, weights
from jaxsr.models import LapSRN

SIDES = (9, 12)  # of all images, so that one program serves


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """(folder, model, variables) of a network that makes 2x, 3x and 4x."""
    model = LapSRN(depth=1, features=4)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape, np.float32), shapes)
    folder = tmp_path_factory.mktemp("network")
    pretrained.save(folder, model, variables)
    return folder, model, variables


@pytest.fixture(autouse=True)
def in_a_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(network):
    def run(*args):
        options = ("--checkpoint", network[0], "--out", "out")
        args = [str(arg) for arg in (*args, *options)]
        return command.main(upscale.Settings, upscale.run, args)

    return run


def picture(path, channels=3, dtype=np.uint8, **options):
    """Noise in a file, and what it should be read as."""
    top = np.iinfo(dtype).max
    values = np.random.default_rng(channels).integers(0, top, (*SIDES, channels), dtype=dtype)
    PIL.Image.fromarray(values[..., 0] if channels == 1 else values).save(path, **options)
    return values.astype(np.float32) / np.float32(top)


def upscaled(network, pixels, *, most=255, **options):
    """The expected pixels, of 8 bits."""
    with command.computing(command.device("auto"), "float32"):
        return np.rint(upscaling.upscale(pixels, *network[1:], **options) * np.float32(most))


def written(path, mode):
    """The pixels of a result, (H, W, C), after a look at its mode."""
    with PIL.Image.open(path) as result:
        assert result.mode == mode
        return np.asarray(result).reshape(*result.size[::-1], -1)


def failed(capsys):
    return [s for s in capsys.readouterr().err.splitlines() if s.startswith("failed: ")]


def test_a_folder_of_all_kinds(run, network, tmp_path, capsys):
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    picture(folder / "deeper" / "left.png")
    picture(folder / ".hidden.png")
    (folder / "notes.txt").write_text("no image, and not taken for one")
    pixels = {
        "rgb.png": picture(folder / "rgb.png"),
        "rgb.TIF": picture(folder / "rgb.TIF"),
        "gray.png": picture(folder / "gray.png", 1),
        "rgb.bmp": picture(folder / "rgb.bmp"),
    }
    deep = {f"deep.{x}": picture(folder / f"deep.{x}", 1, np.uint16) for x in ("png", "tif", "pgm")}
    alpha = {"alpha.png": picture(folder / "alpha.png", 4), "la.png": picture(folder / "la.png", 2)}
    picture(folder / "photo.jpg")
    with PIL.Image.open(folder / "rgb.png") as rgb:
        rgb.convert("CMYK").save(folder / "inks.tif")
        rgb.quantize(7).save(folder / "palette.gif")

    assert run("in", "--scale", 2) == 0
    names = {path.name for path in folder.iterdir() if path.suffix} - {"notes.txt"}
    names = names - {"palette.gif", ".hidden.png"} | {"palette.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names | {"upscale.json"}
    for name, values in pixels.items():
        result = written(tmp_path / "out" / name, "L" if values.shape[-1] == 1 else "RGB")
        np.testing.assert_array_equal(result, upscaled(network, values, scale=2))
    for name, values in deep.items():
        result = written(tmp_path / "out" / name, "I" if name == "deep.pgm" else "I;16")
        np.testing.assert_array_equal(result, upscaled(network, values, scale=2, most=65535))
    for name, values in alpha.items():
        result = written(tmp_path / "out" / name, "LA" if values.shape[-1] == 2 else "RGBA")
        expected = upscaled(network, values[..., :-1], scale=2)
        np.testing.assert_array_equal(result[..., :-1], expected)
        expected = upscaling.bicubic(values[..., -1:], 2)
        np.testing.assert_array_equal(result[..., -1:], images.to_uint8(expected))
    for name, source in (("inks.tif", "inks.tif"), ("palette.png", "palette.gif")):
        with PIL.Image.open(folder / source) as other:
            values = np.asarray(other.convert("RGB"), np.float32) / np.float32(255)
        result = written(tmp_path / "out" / name, "RGB")
        np.testing.assert_array_equal(result, upscaled(network, values, scale=2))
    with PIL.Image.open(tmp_path / "out" / "photo.jpg") as result:
        assert result.format == "JPEG" and result.size == (24, 18)
    printed = capsys.readouterr().out
    assert "palette.gif is written as palette.png" in printed
    assert "12 of 12 upscaled 2x to out" in printed


def test_the_default_scale_is_the_factor(run, network, tmp_path):
    pixels = picture(tmp_path / "a.png")
    assert run("a.png") == 0
    result = written(tmp_path / "out" / "a.png", "RGB")
    np.testing.assert_array_equal(result, upscaled(network, pixels))


def test_tiles_and_the_ensemble(run, network, tmp_path, monkeypatch):
    pixels = picture(tmp_path / "a.png")
    tiles = []
    function = upscaling.upscale

    def spy(*args, **options):
        tiles.append(options["tile"])
        return function(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(upscaling, "upscale", spy)
        assert run("a.png", "--scale", 2) == 0
        assert run("a.png", "--scale", 2, "--self-ensemble", "--tile", 3, "--overwrite") == 0
    assert tiles == [512, 3]  # a large image is tiled unasked
    expected = upscaled(network, pixels, scale=2, tile=3, self_ensemble=True)
    np.testing.assert_array_equal(written(tmp_path / "out" / "a.png", "RGB"), expected)


def test_globs_and_a_file_named_twice(run, tmp_path, capsys):
    for name in ("a1.png", "a2.png", "b.png", "[odd].png"):
        picture(tmp_path / name)
    assert run("a?.png", "a1.png", "./a1.png", "[odd].png", "--scale", 2) == 0
    assert results() == ["[odd].png", "a1.png", "a2.png"]
    assert "3 of 3 upscaled" in capsys.readouterr().out


def results():
    return sorted({*os.listdir("out")} - {"upscale.json"})


def test_results_of_another_scale_or_network_are_not_taken_for_done(run, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    assert run("a.png", "--scale", 2) == 0
    first = (tmp_path / "out" / "a.png").read_bytes()
    for args, said in (
        (("--scale", 4), "made with `--scale` (=2), not 4: see --overwrite"),
        (("--scale", 2, "--self-ensemble"), "made with `--self-ensemble` (=False), not True: see"),
        (("--scale", 2, "--precision", "tf32"), "made with `--precision` (=float32), not tf32"),
    ):
        capsys.readouterr()
        assert run("a.png", *args) == 1
        captured = capsys.readouterr()
        assert f"failed: `out/a.png` was {said}" in captured.err and "1 failed" in captured.out
    record = tmp_path / "out" / "upscale.json"
    known = json.loads(record.read_text())
    other = {"a.png": known["a.png"] | {"weights_sha256": "of another"}}
    record.write_text(json.dumps(other))
    assert run("a.png", "b.png", "--scale", 2) == 1
    assert "`out/a.png` was made with another `--checkpoint`" in capsys.readouterr().err
    assert (tmp_path / "out" / "a.png").read_bytes() == first
    assert json.loads(record.read_text()) == other | {"b.png": known["a.png"]}
    assert run("a.png", "b.png", "--scale", 4, "--overwrite") == 0
    assert written("out/a.png", "RGB").shape == (36, 48, 3)
    assert {made["scale"] for made in json.loads(record.read_text()).values()} == {4}
    for foreign in ('{"mine": 1}', "no JSON"):
        record.write_text(foreign)
        assert run("a.png", "--scale", 4, "--overwrite") == 2
        err = capsys.readouterr().err.splitlines()[-1]
        assert err.startswith("error: `out/upscale.json` is damaged")
        assert record.read_text() == foreign


def test_one_bad_file_does_not_stop_the_others(run, tmp_path, capsys):
    picture(tmp_path / "c.png")
    (tmp_path / "a.png").write_text("no image")
    whole = (tmp_path / "c.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    picture(tmp_path / "alpha.png", 4)
    (tmp_path / "alpha.png").rename("alpha.jpg")
    assert run("a.png", "alpha.jpg", "b.png", "c.png", "--scale", 2) == 1
    assert results() == ["c.png"]
    captured = capsys.readouterr()
    assert "1 of 4 upscaled 2x to out, 3 failed" in captured.out
    lines = captured.err.splitlines()[-3:]
    for line, name in zip(lines, ("a.png", "alpha.jpg", "b.png"), strict=True):
        assert line.startswith("failed: ") and name in line


def test_nothing_is_overwritten_unasked(run, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_text("precious")
    args = ("a.png", "b.png", "--scale", 2)
    for done, there in ((1, 1), (0, 2)):
        assert run(*args) == 0
        assert (tmp_path / "out" / "a.png").read_text() == "precious"
        assert written("out/b.png", "RGB").shape == (18, 24, 3)
        captured = capsys.readouterr()
        assert captured.out.endswith(
            f"{done} of 2 upscaled 2x to out, {there} there already (see --overwrite)\n"
        )
        assert "failed" not in captured.err
    assert run(*args, "--overwrite") == 0
    assert written("out/a.png", "RGB").shape == (18, 24, 3)


def test_a_file_that_takes_another_name_leaves_one_that_has_it(tmp_path):
    files = [tmp_path / name for name in ("a.gif", "a.png", "b.pfm", "c.pbm", "d.ppm")]
    jobs, there, refused = upscale.plan(files, tmp_path / "out", overwrite=False)
    names = {result.name: file.name for result, file in jobs.items()}
    assert names == {"a.png": "a.png", "d.ppm": "d.ppm", "b.png": "b.pfm", "c.png": "c.pbm"}
    assert not there and len(refused) == 1
    assert refused[0].startswith(f"`{files[0]}` has its result at ")


def test_two_names_of_one_file_are_two(tmp_path):
    (tmp_path / "in").mkdir()
    picture(tmp_path / "in" / "b.png")
    (tmp_path / "in" / "a.png").symlink_to("b.png")
    (tmp_path / "same").symlink_to("in")
    found = paths.matching([tmp_path / "in", tmp_path / "same", tmp_path / "in" / "b.png"])
    assert found == [tmp_path / "in" / "a.png", tmp_path / "in" / "b.png"]


def test_two_files_of_one_name_and_a_file_in_the_way(run, tmp_path, capsys):
    for name in ("one/a.png", "two/a.png", "two/a.gif", "out/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(tmp_path / name)
    precious = (tmp_path / "out" / "b.png").read_bytes()
    args = ("one", "two", "out", "--scale", 2, "--overwrite")
    assert run(*args) == 1
    lines = failed(capsys)
    assert "`two/a.png`" in lines[0] and "to be upscaled itself" in lines[1]
    assert "`two/a.gif` has its result at `out/a.png`, as `one/a.png` has" in lines[2]
    assert len(lines) == 3 and (tmp_path / "out" / "b.png").read_bytes() == precious


def test_ctrl_c_ends_after_the_file(run, tmp_path, monkeypatch, capsys):
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    read = images.read

    def press(path):
        if path.name == "b.png":
            os.kill(os.getpid(), signal.SIGINT)
        return read(path)

    with monkeypatch.context() as patch:
        patch.setattr(images, "read", press)
        assert run(".", "--scale", 2) == command.INTERRUPTED
    assert results() == ["a.png", "b.png"]
    printed = capsys.readouterr().out
    assert "2 of 3 upscaled" in printed and "stopped with 1 to go" in printed


def test_a_device_out_of_memory_does_not_stop_the_batch(network, tmp_path, monkeypatch, capsys):
    def full(pixels, *_, **__):
        if pixels.shape[-1] == 1:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand a dump")
        return pixels

    for name, mode in (("a.png", "L"), ("b.png", "RGB")):
        PIL.Image.new(mode, (4, 4)).save(tmp_path / name)
    monkeypatch.setattr(upscale.upscaling, "upscale", full)
    args = [".", "--checkpoint", str(network[0]), "--out", "out"]
    assert command.main(upscale.Settings, upscale.run, args) == 1
    assert results() == ["b.png"]
    said = "failed: `a.png` is too large for this machine: RESOURCE_EXHAUSTED: Out of memory\n"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "there is no image"),
        (("missing.png",), "`missing.png` does not exist"),
        (("a.png", "no*.png"), "`no*.png` matches no file"),
        (("empty",), "`empty` holds no image file"),
        (("a.png", "--scale", "5"), "`--scale` (=5) must be one that this network makes: 2, 3, 4"),
        (("a.png", "--scale", "8"), "`--scale` (=8)"),
        (("a.png", "--tile", "0"), "`--tile` (=0) must be at least 1"),
        (("a.png", "--device", "tpu"), "`--device` (=tpu)"),
        (("a.png", "--out", "a.png"), "`--out` (=a.png) cannot be used"),
        (("a.png", "--checkpoint", "empty"), "`empty` holds no trained network"),
    ],
)
def test_bad_input_is_one_line(network, tmp_path, capsys, args, said):
    picture(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    for name, value in (("--checkpoint", str(network[0])), ("--out", "out")):
        args = args if name in args else (*args, name, value)
    assert command.main(upscale.Settings, upscale.run, list(args)) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def imported(*args):
    return command.main(import_lapsrn.Settings, import_lapsrn.run, [str(arg) for arg in args])


def test_the_released_weights_become_a_checkpoint(shared, tmp_path, capsys):
    file = shared / "weights" / "LapSRN_x2.mat"
    assert imported(file, "--out", "x2") == 0
    said = "LapSRN 2x, 10 convolutions a level, 407,441 parameters, is in x2"
    assert capsys.readouterr().out == said + "\n"
    model, variables = pretrained.load("x2")
    expected_model, expected = weights.lapsrn_from_mat(file)
    assert model == expected_model
    jax.tree.map(np.testing.assert_array_equal, variables, expected)

    assert imported(file, "--out", "x2") == 0
    assert "is already in x2" in capsys.readouterr().out
    (tmp_path / "theirs").mkdir()
    shutil.copy(file, "theirs")
    for args, message in (
        ((file, "--out", "theirs"), "`--out` (=theirs) must be new, empty"),
        ((shared / "weights" / "LapSRN_x4.mat", "--out", "x2"), "`--out` (=x2) must be new"),
        ((file, "--out", "theirs/LapSRN_x2.mat"), "cannot be used"),
        (("x2/model.json", "--out", "new"), "`x2/model.json` is damaged"),
        (("missing.mat", "--out", "new"), "`missing.mat` cannot be read"),
    ):
        assert imported(*args) == 2
        captured = capsys.readouterr()
        assert message in captured.err and captured.err.count("\n") == 1
    assert os.listdir("theirs") == ["LapSRN_x2.mat"] and not (tmp_path / "new").exists()


def test_what_made_a_result_stays_on_record_while_it_stays(run, tmp_path, capsys):
    picture("a.png")
    assert run("a.png") == 0
    kept, sound = (tmp_path / "out/upscale.json").read_bytes(), (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(sound[:60])
    assert run("a.png", "--self-ensemble", "--overwrite") == 1
    assert (tmp_path / "out/upscale.json").read_bytes() == kept
    (tmp_path / "a.png").write_bytes(sound)
    assert run("a.png", "--self-ensemble") == 1
    assert "was made with `--self-ensemble` (=False), not True" in capsys.readouterr().err


def test_another_process_may_write_into_the_folder(run, tmp_path, monkeypatch):
    picture("a.png")
    enlarge = upscaling.upscale

    def meanwhile(*args, **options):
        upscale.note(tmp_path / "out", "b.png", {"scale": 4})
        return enlarge(*args, **options)

    monkeypatch.setattr(upscaling, "upscale", meanwhile)
    assert run("a.png") == 0
    assert json.loads((tmp_path / "out/upscale.json").read_text()).keys() == {"a.png", "b.png"}
