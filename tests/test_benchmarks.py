import concurrent.futures
import functools
import itertools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import ceilings, dip, fits, ours, ours_lapsrn, peers, timing
from jaxsr import weights
from jaxsr.errors import InputError
from jaxsr.models import SkipUNet
from tests.commands import main

pytestmark = pytest.mark.usefixtures("compiled_quickly")
SMALL = {"down": (16, 8), "up": (12, 16), "skip": (4, 2)}


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(peers, "PAUSE", 0)


def test_timing_gives_median_and_spread():
    timed = timing.Timing((5.0, 1.0, 2.0, 100.0, 3.0))
    assert timed.median == 3.0
    assert timed.spread == 2.0  # deviations 2, 2, 1, 97, 0


def test_programs_take_turns_and_the_order_reverses():
    calls = []
    ticks = itertools.count(1)
    programs = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = timing.interleaved(programs, rounds=2, units=4, clock=lambda: float(next(ticks)))
    assert "".join(calls) == "aabbcc" + "ccbbaa"  # each unmeasured, then measured
    assert {t.seconds for t in times.values()} == {(0.25, 0.25)}


class Pending:
    """Stands in for an array that is still computed."""

    def __init__(self, done):
        self.done = done

    def block_until_ready(self):
        self.done.append(self)
        return self


def test_a_measurement_ends_when_the_device_is_done():
    done = []
    assert timing.once(lambda: Pending(done), clock=lambda: float(len(done))) == 1
    images = ours_lapsrn.Enlargement(lambda *_: [Pending(done)], None, None, 0.0)
    images.run(3)
    assert len(done) == 4  # of the images each, before the next


class SeenError(Exception):
    """Ends a benchmark before it compiles."""


@pytest.mark.parametrize(
    ("precision", "products", "dtype"),
    [
        ("float32", "highest", None),
        ("tf32", "tensorfloat32", None),
        ("bfloat16", "highest", jnp.bfloat16),
    ],
)
@pytest.mark.parametrize("remat", [False, True])
def test_what_is_timed_is_what_its_row_says(monkeypatch, precision, products, dtype, remat):
    def fit_of(size, *, model, loss, params):
        raise SeenError(size, model, loss, params, jax.config.jax_default_matmul_precision)

    monkeypatch.setattr(ours, "fit_of", fit_of)
    case = dip.Case((64, 96), "l1", precision, remat)
    with pytest.raises(SeenError) as seen:
        dip.measure(case, dip.Options(), ceilings.measure, alone=True)
    model = SkipUNet(dtype=dtype, remat=remat)
    assert seen.value.args == ((64, 96), model, "l1", None, products)


def test_ratio_is_of_the_medians():
    peer, ours = timing.Timing((2.0, 4.0, 9.0)), timing.Timing((1.0, 2.0, 3.0))
    assert timing.ratio(peer, ours) == (2.0, 0.0)  # rounds: 2, 2, 3


def test_compiled_runs_as_the_function_does():
    double, seconds = timing.compiled(jax.jit(lambda x: 2 * x), np.arange(3.0, dtype=np.float32))
    np.testing.assert_array_equal(double(np.ones(3, np.float32)), [2, 2, 2])
    assert 0 < seconds < 60


@pytest.mark.parametrize("text", ["", "128", "128x", "100x128", "32x64", "64x64x64", "-64x64"])
def test_sizes_the_network_cannot_take_are_refused(text, capsys):
    with pytest.raises(InputError, match=f"`sizes` \\(={text}\\)"):
        dip.parse_size(text)
    assert main(dip, [f"--sizes={text}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_fewer_iterations_for_more_pixels():
    assert dip.parse_size("320x480") == (320, 480)
    sizes = ((64, 64), (128, 128), (320, 480), (512, 512), (1024, 1024))
    assert [dip.default_iterations(size) for size in sizes] == [40, 10, 8, 8, 4]
    with pytest.raises(InputError, match=r"`rounds` \(=0\)"):
        dip.run(dip.Options(rounds=0))


def test_disagreeing_losses_stop_the_benchmark():
    assert peers.disagreement(1.00005, 1.0) == pytest.approx(5e-5)
    with pytest.raises(RuntimeError, match="disagree"):
        peers.disagreement(1.001, 1.0)
    with pytest.raises(RuntimeError, match="disagree"):
        peers.disagreement(float("nan"), 1.0)


@pytest.mark.skipif(sys.platform != "linux", reason="the other systems count by themselves")
def test_a_process_is_not_as_large_as_the_one_before():
    """One of a gibibyte becomes another by exec, which tells its own peak: JAX takes over 50 MB."""
    small = "from benchmarks import machine; print(machine.peak_rss_bytes())"
    large = "import os, sys; x = b'1' * 2**30; os.execv(sys.executable, "
    large += f"[sys.executable, '-c', {small!r}])"
    done = subprocess.run([sys.executable, "-c", large], capture_output=True, text=True, check=True)
    assert 50e6 < int(done.stdout) < 2**30


def test_ctrl_c_is_told_in_a_line(monkeypatch, capsys):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE")

    def run(_):
        assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"  # before JAX starts
        raise KeyboardInterrupt

    monkeypatch.setattr(dip, "run", run)
    assert main(dip, []) == 130
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("stopped: ") and said.err.count("\n") == 1


@pytest.fixture
def peer_module():
    pytest.importorskip("torch", reason="PyTorch, the benchmarks' peer, is not installed")
    from benchmarks import torch_peer

    return torch_peer


@pytest.mark.parametrize(
    ("loss", "channels_last"), [("mse", False), ("l1", False), ("charbonnier", True)]
)
def test_peer_starts_from_the_same_loss(peer_module, loss, channels_last):
    network = peer_module.skip_unet(**SMALL)
    params = weights.skip_unet_from_torch(peer_module.parameters_as_numpy(network))
    fit = ours.fit_of((64, 64), model=SkipUNet(**SMALL), loss=loss, params=params)
    latent, target = np.asarray(fit.state.latent), np.asarray(fit.target)
    theirs = peer_module.fit_of(network, latent, target, loss=loss, channels_last=channels_last)
    assert fit.forward_loss() == pytest.approx(
        theirs.loss_at(theirs.latent).item(), rel=peers.AGREEMENT
    )


def test_peer_is_the_published_network(peer_module):
    values = peer_module.parameters_as_numpy(peer_module.skip_unet()).values()
    assert sum(value.size for value in values) == 2_217_831


@pytest.mark.parametrize("alone", [True, False])
def test_a_run_writes_what_it_found(alone, request, monkeypatch, tmp_path, capsys):
    tiny = {"down": (8,), "up": (8,), "skip": (2,)}  # compiles in little time
    monkeypatch.setattr(dip, "SkipUNet", functools.partial(SkipUNet, **tiny))
    if not alone:
        torch_peer = request.getfixturevalue("peer_module")
        monkeypatch.setattr(
            torch_peer, "skip_unet", functools.partial(torch_peer.skip_unet, **tiny)
        )
        request.getfixturevalue("traced_by_pytorch")
    events, compare = [], peers.compare

    def measured(precision):
        events.append(precision)
        return ceilings.Ceilings(100.0, 10.0)

    def compared(*args, **options):
        events.append("fit")
        return compare(*args, **options)

    monkeypatch.setattr(ceilings, "measure", measured)
    monkeypatch.setattr(peers, "compare", compared)
    path = tmp_path / "dip.json"
    command = ["--sizes", "64x96", "--json", str(path), "--iterations", "2", "--rounds", "2"]
    assert main(dip, [*command, *(["--alone"] if alone else [])]) == 0

    assert events == ["fit", "float32"]  # a peak is of all before it
    found = json.loads(path.read_text())
    assert found["environment"]["versions"]["jax"] == jax.__version__
    assert ("torch" in found["environment"]["versions"]) == (not alone)
    (result,) = found["results"]
    ours_seconds = result["ours_seconds_per_iteration"]
    assert result["size"] == "64x96"
    state = ours.fit_of((64, 96), model=dip.SkipUNet(), loss="mse").state
    assert (
        sum(x.nbytes for x in jax.tree.leaves(state))
        < result["program_bytes"]
        < result["peak_rss_bytes"]
    )
    assert result["iterations_per_second"] == 1 / ours_seconds
    if alone:
        assert result["ratio"] is None and result["peers"] == {}
    else:
        best = min(peer["seconds_per_iteration"] for peer in result["peers"].values())
        assert result["torch_seconds_per_iteration"] == best
        assert result["ratio"] == best / ours_seconds
        assert len(result["peers"]) == 4
        assert result["loss_disagreement"] < peers.AGREEMENT
    assert capsys.readouterr().out.startswith("dip 64x96 charbonnier float32: ")
    pixels, ceiling = 64 * 96, found["ceilings"]["float32"]
    assert result["seconds_per_megapixel"] == pytest.approx(ours_seconds * 1e6 / pixels)
    speed = result["gflop_per_iteration"] / ours_seconds
    assert result["gflop_per_second"] == pytest.approx(speed)
    share = pytest.approx(speed / ceiling["gflop_per_second"])
    assert result["share_of_product_ceiling"] == share
    speed = result["gbytes_per_iteration"] / ours_seconds
    share = pytest.approx(speed / ceiling["gbytes_per_second"])
    assert result["share_of_copy_ceiling"] == share


def test_peers_run_where_jax_does(peer_module, monkeypatch):
    for backend, device in (("cpu", "cpu"), ("gpu", "cuda")):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert peer_module.placement(channels_last=True)["device"] == device


def test_only_compiled_peers_may_fail(peer_module, capsys):
    def fail():
        raise RuntimeError("no working C++ compiler\nand much more")

    assert peer_module.first(fail, compiled=True) is None
    assert capsys.readouterr().err == "torch.compile is left out: no working C++ compiler\n"
    with pytest.raises(RuntimeError, match="compiler"):
        peer_module.first(fail, compiled=False)
    assert peer_module.first(lambda: 3.0, compiled=False) == 3.0


def test_peer_repeats_the_reference(peer_module, shared):
    import torch

    golden = np.load(shared / "golden" / "dip_charbonnier_x8_64x64_small.npz")
    meta = json.loads(str(golden["meta"]))
    channels = (meta["channels"],) * meta["scales"]
    skip = (meta["skip_channels"],) * meta["scales"]
    network = peer_module.skip_unet(down=channels, up=channels, skip=skip).double()
    assert [name for name, _ in network.named_parameters()] == list(golden["parameter_names"])

    draw = np.random.RandomState(meta["seed"])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            shape = tuple(parameter.shape)
            if len(shape) == 4:
                value = draw.uniform(-1, 1, shape) / np.sqrt(np.prod(shape[1:]))
            else:
                value = name.endswith("weight") + 0.1 * draw.standard_normal(shape)
            parameter.copy_(torch.from_numpy(value))
    draw = np.random.RandomState(meta["seed"] + 1)
    height, width, factor = meta["height"], meta["width"], meta["factor"]
    latent = torch.from_numpy(draw.uniform(0, 0.1, (1, 32, height, width)))
    target = torch.from_numpy(draw.uniform(0, 1, (1, 3, height // factor, width // factor)))

    fit = peer_module.Fit(
        network,
        peer_module.downsample(factor, support=3),
        latent,
        target,
        loss=peer_module.LOSSES["charbonnier"],
        noise_std=0.0,
        learning_rate=meta["learning_rate"],
    )
    found = [fit.step().item() for _ in range(meta["steps"])]
    np.testing.assert_allclose(found, golden["losses"], rtol=1e-7)
    np.testing.assert_allclose(
        network(latent).detach().numpy(), golden["final_output"], rtol=0, atol=1e-6
    )


def test_all_ways_do_the_same_fits(monkeypatch, tmp_path, capsys):
    """In turn, under `vmap` and on devices: the same losses of the same fits; timed in turns."""
    monkeypatch.setattr(fits, "SkipUNet", lambda: SkipUNet(down=(4,), up=(4,), skip=(2,)))
    monkeypatch.setattr(jax.config, "update", lambda *_: None)  # JAX is in use already
    monkeypatch.setattr(jax, "local_devices", lambda: 2 * jax.devices())
    make, losses_ = fits.programs, {}

    def keep(*args):
        assert jax.config.jax_default_matmul_precision == "highest"  # while they are compiled
        for way, program in make(*args).items():
            losses_[way] = np.array(program())
        return {way: functools.partial(float, i) for i, way in enumerate(losses_, start=1)}

    monkeypatch.setattr(fits, "programs", keep)
    ticks = itertools.count(1)
    monkeypatch.setattr(fits.timing, "once", lambda program, *, clock: next(ticks) * program())
    path = tmp_path / "fits.json"
    args = ["--sizes", "64x64", "--fits", "3", "--iterations", "2", "--rounds", "3"]
    assert main(fits, [*args, "--json", str(path)]) == 0
    assert list(losses_) == list(fits.WAYS) and losses_["vmap"].shape == (3, 2)
    np.testing.assert_allclose(losses_["vmap"], losses_["in turn"], rtol=1e-3)
    np.testing.assert_allclose(losses_["devices"], losses_["in turn"], rtol=1e-6)
    found = json.loads(path.read_text())["results"]
    # The ticks go 1 2 3, 4 5 6, 7 8 9 while the order reverses: medians 6, 5 and 4 by way.
    seconds = [ticks * way / 6 for ticks, way in ((6, 1), (5, 2), (4, 3))]
    assert [result["ours_seconds_per_iteration"] for result in found] == pytest.approx(seconds)
    ratios = [seconds[0] / time for time in seconds]
    assert [result["ratio_to_in_turn"] for result in found] == pytest.approx(ratios)
    assert capsys.readouterr().out.count("times as fast as in turn") == 3
    assert main(fits, ["--fits", "0"]) == 2


def test_fits_on_one_device_are_compiled_once(monkeypatch, compiled_quickly):
    monkeypatch.setattr(fits, "SkipUNet", lambda: SkipUNet(down=(4,), up=(4,), skip=(2,)))
    programs, compiled = [], timing.compiled
    monkeypatch.setattr(timing, "compiled", lambda *args: programs.append(args) or compiled(*args))
    fit = ours.fit_of((64, 64), model=fits.SkipUNet(), loss="mse")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        ways = fits.programs(fit, 1, 3, jax.local_devices()[:1], pool)
    assert list(ways) == ["in turn", "vmap"] and len(programs) == 2
