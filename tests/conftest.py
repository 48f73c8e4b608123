import gc
import importlib.metadata
import json
import os
import pathlib
from typing import Any, NamedTuple

# Before JAX starts: the tests run on the CPU unless the environment names another platform (for a
# GPU `cuda,cpu`, since some ask for a CPU; not yet tried), and leave a GPU's memory to others.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
# Without YNNPACK's products, by its former emitters, in one piece (the workers have the cores) and
# at LLVM's first level, XLA compiles in half of the time or less, which is most of the tests'. Only
# where the flags are known to exist: XLA aborts on others.
if importlib.metadata.version("jaxlib") == "0.10.2":
    quickly = "--xla_cpu_experimental_ynn_fusion_type= --xla_cpu_use_fusion_emitters=false"
    quickly += " --xla_cpu_parallel_codegen_split_count=1 --xla_backend_optimization_level=1"
    os.environ.setdefault("XLA_FLAGS", quickly)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr import losses, operators
from jaxsr.models import SkipUNet
from jaxsr.weights import skip_unet_from_torch

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_collection_finish():
    """What has been imported stays, and need not be looked at by each collection of garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def x64():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module", autouse=True)
def programs_freed():
    """A compiled program holds memory maps, of which Linux allows a process 65,530: a worker that
    kept the programs of every module would be killed on its way."""
    yield
    jax.clear_caches()


@pytest.fixture
def live_programs():
    """`live_programs()` counts the compiled programs that are kept."""

    def count() -> int:
        gc.collect()  # what other tests left is no part of it
        return len(jax.devices()[0].client.live_executables())

    before = count()
    kept = jax.jit(lambda x: x - 3.25).lower(1.0).compile()
    assert count() == before + 1
    del kept
    return count


@pytest.fixture(scope="module")
def compiled_quickly(tmp_path_factory):
    """A module's programs are hardly optimised, and those alike compiled once: for tests of what is
    done with results, where compiling would take the time."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.getbasetemp() / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_disable_most_optimizations": True,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
    yield
    for name, value in zip(settings, (None, 1.0, False), strict=True):  # JAX's own
        jax.config.update(name, value)


@pytest.fixture
def traced_by_pytorch(monkeypatch):
    """`torch.compile` traces, and makes no machine code, which would take minutes."""
    nn = pytest.importorskip("torch.nn", reason="PyTorch, the benchmarks' peer, is not installed")
    compile_ = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: compile_(self, backend="eager"))


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of golden data and photographs, which is not part of the repository."""
    folder = os.environ.get("JAXSR_SHARED")
    if not folder:
        pytest.skip("JAXSR_SHARED is not set: it names the folder of golden data")
    return pathlib.Path(folder)


class GoldenDIP(NamedTuple):
    """One Deep Image Prior problem of the reference, in float64, with what came of it there."""

    meta: dict[str, Any]
    names: list[str]  # of the parameters, as in PyTorch
    state_dict: dict[str, np.ndarray]  # under those names
    variables: dict[str, Any]  # the same as Flax variables
    network: SkipUNet
    latent: jax.Array  # (1, H, W, 32)
    observation: jax.Array  # (1, h, w, 3)
    operator: operators.Operator
    loss: losses.Loss
    expected: dict[str, np.ndarray]  # images NCHW


@pytest.fixture
def golden_dip(x64, shared):
    """`golden_dip(name)` draws the problem of that name."""

    def draw(name: str) -> GoldenDIP:
        with np.load(shared / "golden" / f"{name}.npz") as file:
            expected = dict(file)
        meta = json.loads(str(expected["meta"]))
        names = [str(n) for n in expected["parameter_names"]]
        shapes = [json.loads(str(shape)) for shape in expected["parameter_shapes"]]
        rng = np.random.RandomState(meta["seed"])
        state_dict = {n: _parameter(rng, n, s) for n, s in zip(names, shapes, strict=True)}
        rng = np.random.RandomState(meta["seed"] + 1)
        height, width, factor = meta["height"], meta["width"], meta["factor"]
        latent = rng.uniform(0, 0.1, (1, 32, height, width))
        observation = rng.uniform(0, 1, (1, 3, height // factor, width // factor))
        scales = meta["scales"]
        return GoldenDIP(
            meta=meta,
            names=names,
            state_dict=state_dict,
            variables=skip_unet_from_torch(state_dict),
            network=SkipUNet(
                down=(meta["channels"],) * scales,
                up=(meta["channels"],) * scales,
                skip=(meta["skip_channels"],) * scales,
            ),
            latent=jnp.asarray(latent.transpose(0, 2, 3, 1)),
            observation=jnp.asarray(observation.transpose(0, 2, 3, 1)),
            operator=operators.downsample(factor, kernel=meta["kernel"]),
            loss=losses.LOSSES[meta["loss"]],
            expected=expected,
        )

    return draw


def _parameter(rng: np.random.RandomState, name: str, shape: list[int]) -> np.ndarray:
    if len(shape) == 4:
        return rng.uniform(-1, 1, shape) / np.sqrt(np.prod(shape[1:]))
    if name.endswith("weight"):
        return 1 + 0.1 * rng.standard_normal(shape)
    return 0.1 * rng.standard_normal(shape)
