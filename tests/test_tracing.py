"""Traces kept in files: by the library for any function, by the experiments for their fits."""

import dataclasses
import functools
import os
import pathlib
import subprocess
import sys
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import experiments
import jaxsr
from experiments import command, networks, problem, traces
from experiments import dip as dip_
from experiments.recipes import Settings
from jaxsr import dip, images, losses, operators, tracing
from jaxsr.models import SkipUNet

pytestmark = pytest.mark.usefixtures("compiled_quickly")


class Counted:
    """A function that counts its calls."""

    def __init__(self, function):
        self.function, self.calls = function, 0

    def __call__(self, *args, **options):
        self.calls += 1
        return self.function(*args, **options)


def cubes(x, power):
    return {"sum": jnp.sum(x**3) + power, "state": optax.EmptyState()}


def compiled(function, folder, *, shape=(5,), dtype=jnp.float32, **arguments):
    x = jax.ShapeDtypeStruct(shape, dtype)
    return tracing.trace(jax.jit(function), x, 0, folder=folder, **arguments).lower().compile()


def test_a_kept_trace_stands_for_the_function(tmp_path):
    function = Counted(cubes)
    for _ in range(2):
        jax.clear_caches()  # in which JAX keeps a function's trace while the process lasts
        result = compiled(function, tmp_path / "new" / "cubes")(jnp.arange(5.0), 1)
        assert result == {"sum": 0 + 1 + 8 + 27 + 64 + 1, "state": optax.EmptyState()}
    assert function.calls == 1 and len(list((tmp_path / "new" / "cubes").iterdir())) == 1


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert compiled(cubes, None)(jnp.arange(5.0), 1)["sum"] == 101
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", [0, 40, -1])
def test_a_damaged_file_is_written_anew(tmp_path, at):
    compiled(cubes, tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[at] ^= 1
    for content in (bytes(damaged), whole[: len(whole) // 2], b""):
        path.write_bytes(content)
        assert compiled(cubes, tmp_path)(jnp.arange(5.0), 1)["sum"] == 101
        assert path.read_bytes() == whole


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert compiled(cubes, tmp_path / "file" / "traces")(jnp.arange(5.0), 1)["sum"] == 101


def test_what_is_not_the_function_has_a_file_of_its_own(tmp_path, monkeypatch):
    def files():
        return len(list(tmp_path.iterdir()))

    compiled(cubes, tmp_path)
    compiled(cubes, tmp_path, shape=(6,))
    compiled(cubes, tmp_path, dtype=jnp.bfloat16)
    compiled(cubes, tmp_path, known=("of it", 1.0))
    assert files() == 4
    with jax.default_matmul_precision("float32"):
        compiled(cubes, tmp_path)
    with jax.enable_x64(True):
        compiled(cubes, tmp_path)
    assert files() == 6
    with jax.default_device(jax.devices()[0]):
        compiled(cubes, tmp_path)
    assert files() == 6
    weak = jax.ShapeDtypeStruct((5,), jnp.float32, weak_type=True)  # times a half it is one
    tracing.trace(jax.jit(cubes), weak, 0, folder=tmp_path)
    assert files() == 7
    tracing.trace(jax.jit(lambda x: x), (weak, 0), folder=tmp_path)  # the same leaves
    assert files() == 8
    packages = {"jax", "jaxlib", "flax", "optax", "numpy", "opt-einsum"}  # which a trace may be of
    assert tracing._versions().keys() == packages
    assert tracing._versions()["jax"] == jax.__version__
    names = [tracing._name(None, ())]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    names.append(tracing._name(None, ()))
    monkeypatch.setattr(tracing, "_versions", lambda: {"jax": "0.0"})
    names.append(tracing._name(None, ()))
    monkeypatch.setattr(tracing, "_CODE", "of an edited package")
    names.append(tracing._name(None, ()))
    assert len(set(names)) == 4


def test_the_platform_is_that_of_the_arrays_then_the_default(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    there = jax.device_put(jnp.zeros(2), jax.devices("cpu")[0])
    assert tracing.platform((1, there)) == "cpu"
    assert tracing.platform((1, jnp.zeros(2))) == "gpu"  # bound to no device
    assert tracing._lowered_for((1, there)) == ("cpu",) and tracing._lowered_for((1,)) is None
    with jax.default_device(jax.devices("cpu")[0]):
        assert tracing.platform((1,)) == "cpu" and tracing._lowered_for((1,)) == ("cpu",)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(tracing, "platform", lambda _: "gpu")
    assert tracing._lowered_for((1,)) == ("cuda",)  # no name of `jax.export`'s is gpu


def test_shapes_may_lie_on_no_device_yet():
    mesh = jax.sharding.AbstractMesh((1,), ("x",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    there = jax.ShapeDtypeStruct((4,), jnp.float32, sharding=sharding)
    here = jax.ShapeDtypeStruct((4,), jnp.float32)
    assert tracing._name(None, (there,)) == tracing._name(None, (here,))


def test_arrays_over_several_devices_have_traces_of_their_own(tmp_path):
    """`jax.export` writes a program for a number of devices."""
    script = """
import sys
import jax
from jax.sharding import NamedSharding, PartitionSpec
from jaxsr import tracing

jax.config.update("jax_num_cpu_devices", 2)
over_two = NamedSharding(jax.make_mesh((2,), ("x",)), PartitionSpec())
x = jax.numpy.arange(4.0)
for y in (jax.device_put(x, over_two), x, jax.device_put(x, over_two)):
    program = tracing.trace(jax.jit(lambda y: y + y), y, folder=sys.argv[1]).lower().compile()
    print(program(y).sum(), len(program(y).devices()))
"""
    environment = os.environ | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", script, str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "12.0 2\n12.0 1\n12.0 2\n"), ended.stderr
    assert len(list(tmp_path.iterdir())) == 2


def test_what_cannot_be_written_is_done_without(tmp_path):
    traced = tracing.trace(jax.jit(lambda x: 2 * x[1]), {1: jnp.ones(2)}, folder=tmp_path)
    np.testing.assert_array_equal(traced.lower().compile()({1: jnp.ones(2)}), [2, 2])
    assert list(tmp_path.iterdir()) == []


class Unnamed(NamedTuple):
    """A state that `jax.export` has no name for."""

    count: jax.Array


def test_a_fit_by_an_optimiser_whose_state_cannot_be_written(tmp_path):
    def scale(gradient, opt_state, params=None):
        return jax.tree.map(lambda x: -0.01 * x, gradient), opt_state

    own = optax.GradientTransformation(lambda params: Unnamed(jnp.zeros(())), scale)
    functions = linear() | {"optimiser": own}
    plain, kept = fit(5, **functions), fit(5, **functions, traces=tmp_path)
    np.testing.assert_array_equal(plain.image, kept.image)
    assert not list(tmp_path.iterdir())


def test_a_fit_by_an_optimiser_of_optax_is_kept(tmp_path):
    """With the state of a schedule beside Adam's."""
    functions = linear() | {"optimiser": optax.adam(optax.cosine_decay_schedule(0.01, 20))}
    plain = fit(5, **functions)
    for _ in range(2):
        np.testing.assert_array_equal(plain.image, fit(5, **functions, traces=tmp_path).image)
        assert len(list(tmp_path.iterdir())) == 2  # its start, and its iterations


def test_a_kept_trace_is_compiled_with_the_options_given(tmp_path):
    x = jnp.arange(5.0)
    for _ in range(2):
        traced = tracing.trace(
            jax.jit(lambda x: 2 * x), x, folder=tmp_path, compiler_options={"xla_no_such": True}
        )
        with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such"):
            traced.lower().compile()


def test_what_is_donated_is_used_up(tmp_path):
    for _ in range(2):
        x = jnp.arange(5.0)
        double = jax.jit(lambda x: 2 * x, donate_argnums=0)
        traced = tracing.trace(double, x, folder=tmp_path, donate_argnums=(0,))
        np.testing.assert_array_equal(traced.lower().compile()(x), [0, 2, 4, 6, 8])
        assert x.is_deleted()


HALF = operators.downsample(2, kernel="lanczos2")


def fit(iterations=30, *, size=(16, 24), patience=None, operator=HALF, **arguments):
    seen = jax.random.uniform(jax.random.key(5), (1, size[0] // 2, size[1] // 2, 3))
    return dip.fit(
        jax.random.key(3),
        seen,
        operator,
        size=size,
        loss=losses.charbonnier,
        config=dip.Config(iterations=iterations, patience=patience),
        reference=jax.random.uniform(jax.random.key(6), (1, *size, 3)),
        **arguments,
    )


def linear():
    """A network of one matrix."""
    return {
        "init_fn": Counted(lambda key, z: {"w": jax.random.normal(key, (z.shape[-1], 3))}),
        "apply_fn": Counted(lambda params, z: jax.nn.sigmoid(z @ params["w"])),
    }


@pytest.mark.parametrize("patience", [None, 4])
def test_a_fit_by_kept_traces_has_the_same_bits(tmp_path, patience):
    functions = linear() | {"patience": patience}
    plain, written = fit(**functions), fit(**functions, traces=tmp_path)
    jax.clear_caches()
    for counted in ("init_fn", "apply_fn"):
        functions[counted].calls = 0
    read = fit(**functions, traces=tmp_path)
    assert functions["init_fn"].calls == 0 and functions["apply_fn"].calls <= 1  # the last image
    half = fit(13, **functions, traces=tmp_path)
    resume = half.state, half.history
    resumed = fit(**functions, traces=tmp_path, resume=resume)
    assert functions["init_fn"].calls == 0
    for result in (written, read, resumed):
        for name in ("image", "last", "params", "history"):
            expected, found = getattr(plain, name), getattr(result, name)
            jax.tree.map(np.testing.assert_array_equal, expected, found)
    assert len(list(tmp_path.iterdir())) == 2


def test_fits_of_other_settings_do_not_take_each_others_traces(tmp_path):
    functions = linear() | {"traces": tmp_path}
    fit(**functions)
    assert fit(**functions, patience=2).state.detection is not None
    assert fit(**functions, size=(8, 8)).image.shape == (1, 8, 8, 3)
    assert len(list(tmp_path.iterdir())) == 6


def test_the_state_is_donated_to_a_kept_loop_too(tmp_path):
    states = []
    fit(3, **linear(), traces=tmp_path, on_chunk=lambda progress: states.append(progress.state))
    assert len(states) > 1 and states[0].average.is_deleted()


def test_fits_of_one_problem_share_its_programs(tmp_path):
    functions = linear() | {"traces": tmp_path}
    fit(**functions)
    before = tracing._program.cache_info().misses
    fit(**functions)
    assert tracing._program.cache_info().misses == before


def test_fits_of_many_problems_do_not_keep_their_programs(tmp_path, live_programs):
    functions, programs, most = linear(), [], tracing.PROGRAMS // 2  # two of each problem
    for i in range(most + 4):
        scaled = operators.compose(HALF, lambda x, i=i: x * (1 + i))
        fit(1, **functions, operator=scaled, traces=tmp_path / str(i))
        programs.append(live_programs())
    # Not one more a problem; what other tests left of theirs may go at any time.
    assert programs[-1] - programs[most] < len(programs) - 1 - most


@pytest.fixture
def cache(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "cache"))
    yield tmp_path / "cache"
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    images.write(path, np.random.default_rng(0).random((80, 96, 3), np.float32))
    return path


def folder(settings, **of_network):
    settings = settings.resolved()
    task = problem.load(settings)
    return traces.folder(settings, task, SkipUNet(**of_network), on=jax.devices()[0])


def test_traces_lie_below_the_compilation_cache(cache, picture):
    place = folder(Settings(hr=picture))
    assert place.parent == cache / "traces" and not cache.exists()
    for elsewhere in (None, "gs://bucket/cache"):
        jax.config.update("jax_compilation_cache_dir", elsewhere)
        assert folder(Settings(hr=picture)) is None


def test_nothing_is_kept_where_nothing_is_cached_or_for_another_platform(
    cache, picture, monkeypatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert folder(Settings(hr=picture)) is None
    monkeypatch.undo()
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        assert folder(Settings(hr=picture)) is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)


def test_a_second_command_traces_nothing_anew(cache, picture, tmp_path, monkeypatch, capsys):
    """Nor does one of another seed, and its result is that of a command without any traces."""
    small = functools.partial(networks.prior, down=(4,), up=(4,), skip=(2,))
    monkeypatch.setattr(networks, "prior", small)
    monkeypatch.setattr(command, "use_compilation_cache", lambda: None)
    exported = Counted(jax.export.export)
    monkeypatch.setattr(tracing.export, "export", exported)

    def run(out, seed):
        options = ("--iterations", "3", "--out", str(tmp_path / out), "--seed", seed)
        assert command.main(dip_.Settings, dip_.run, ["--hr", str(picture), *options]) == 0
        return (tmp_path / out / "sr.npy").read_bytes()

    run("first", "0")
    assert exported.calls == 2
    second = run("second", "1")
    assert exported.calls == 2
    jax.config.update("jax_compilation_cache_dir", None)
    assert run("plain", "1") == second


# Of every setting: a value that changes no program, or one that may.
APART = {
    "seed": 1,
    "iterations": 7,
    "checkpoint_every": 3,
    "out": pathlib.Path("elsewhere"),
    "device": "cpu",
    "degrade_seed": 1,
}
WITHIN = {
    "task": "denoise",
    "loss": "mse",
    "factor": 2,
    "kernel": "area",
    "sigma": 10.0,
    "missing": 0.2,
    "blur": 1.0,
    "learning_rate": 0.02,
    "noise_std": 0.1,
    "tv_weight": 0.5,
    "average": 0.5,
    "patience": 5,
    "precision": "bfloat16",
    "remat": True,
    "recipe": "reference",
    "protocol": "dip",
}
FILES = ("hr", "lr", "mask", "blur_kernel")
GENERAL = {"loss_alpha": 0.5, "loss_scale": 0.1}


def test_every_setting_is_thought_of():
    named = {*APART, *WITHIN, *FILES, *GENERAL}
    assert named == {field.name for field in dataclasses.fields(Settings)}


@pytest.mark.parametrize(("name", "value"), APART.items())
def test_seeds_and_lengths_share_their_traces(cache, picture, name, value):
    given = Settings(hr=picture)
    assert folder(dataclasses.replace(given, **{name: value})) == folder(given)


@pytest.mark.parametrize(("name", "value"), (WITHIN | GENERAL).items())
def test_settings_have_traces_of_their_own(cache, picture, name, value):
    given = Settings(hr=picture, loss="general" if name in GENERAL else None)
    assert folder(dataclasses.replace(given, **{name: value})) != folder(given)


def test_images_share_their_traces_where_their_sizes_are_the_same(cache, tmp_path, picture):
    rng = np.random.default_rng(1)
    shapes = {"other": (80, 96, 3), "wide": (80, 100, 3), "gray": (80, 96, 1)}
    for name, shape in shapes.items():
        images.write(tmp_path / f"{name}.png", rng.random(shape, np.float32))
    found = {name: folder(Settings(hr=tmp_path / f"{name}.png")) for name in shapes}
    assert found["other"] == folder(Settings(hr=picture))
    assert len(set(found.values())) == 3


@pytest.mark.parametrize("setting", ["mask", "blur_kernel"])
def test_masks_and_kernels_are_known_by_what_they_hold(cache, tmp_path, picture, setting):
    shape = {"mask": (80, 96, 1), "blur_kernel": (5, 5, 1)}[setting]
    values = np.ones(shape, np.float32)
    values[1, 1] = 0
    images.write(tmp_path / "one.png", values)
    images.write(tmp_path / "same.png", values)
    values[0, 0] = 0
    images.write(tmp_path / "another.png", values)
    given = Settings(task="inpaint" if setting == "mask" else "deblur", hr=picture)
    found = [
        folder(dataclasses.replace(given, **{setting: tmp_path / f"{name}.png"}))
        for name in ("one", "same", "another")
    ]
    assert found[0] == found[1] != found[2]


def test_missing_pixels_are_known_by_where_they_are(cache, picture):
    given = Settings(task="inpaint", hr=picture)
    assert folder(given) != folder(dataclasses.replace(given, degrade_seed=1))


def test_code_and_networks_have_traces_of_their_own(cache, picture, monkeypatch):
    found = {folder(Settings(hr=picture)), folder(Settings(hr=picture), down=(64,) * 5)}
    monkeypatch.setattr(traces, "_CODE", "other code")
    found.add(folder(Settings(hr=picture)))
    assert len(found) == 3


def test_the_digest_of_the_code_is_of_every_file(tmp_path):
    assert tracing.code(jaxsr) == tracing._CODE and tracing.code(experiments) == traces._CODE
    package = types.SimpleNamespace(__path__=[str(tmp_path)])
    digests = []
    for name, text in (("a.py", "x = 1"), ("b/c.py", ""), ("a.py", "x = 2"), ("b/d.txt", "")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        digests.append(tracing.code(package))
    assert len(set(digests)) == 3 and digests[2] == digests[3]
