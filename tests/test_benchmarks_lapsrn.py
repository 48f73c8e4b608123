import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import ceilings, lapsrn, peers, work
from jaxsr import convolution, training
from jaxsr.errors import InputError
from jaxsr.models import LapSRN
from jaxsr.weights import lapsrn_from_mat
from tests.commands import main

TINY = LapSRN(factor=2, depth=1, features=4)
FORMS = ["eager", "eager-channels-last", "compile", "compile-channels-last"]


@pytest.fixture(autouse=True)
def quick():
    """Most of these tests' time is compilation, for programs that run once."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def peer_module():
    pytest.importorskip("torch", reason="PyTorch, the benchmarks' peer, is not installed")
    from benchmarks import torch_lapsrn

    return torch_lapsrn


def test_disagreement_is_of_the_largest_difference_and_value():
    theirs = np.array([-4.0, 2.0, 0.5])
    assert peers.disagreement(theirs, theirs) == 0
    assert peers.disagreement([-4.0, 2.0002, 0.4999], theirs) == pytest.approx(5e-5)
    for wrong in (theirs * 1.001, [np.nan, 2.0, 0.5]):
        with pytest.raises(RuntimeError, match="disagree"):
            peers.disagreement(wrong, theirs)


@pytest.mark.parametrize("factor", [2, 4])
def test_peer_is_the_released_network(peer_module, shared, factor):
    """Every level's image under the official weights, in float64."""
    model, variables = lapsrn_from_mat(shared / "weights" / f"LapSRN_x{factor}.mat")
    wide = jax.tree.map(lambda x: x.astype(np.float64), variables)
    network = peer_module.lapsrn(model, wide)
    assert sum(p.numel() for p in network.parameters()) == {2: 407_441, 4: 814_242}[factor]
    with np.load(shared / "golden" / "lapsrn_official.npz") as golden:
        low = golden[f"x{factor}_input"][None, :, :, None]
        peer = peer_module.Inference(network, low)
        for level in range(model.levels):
            expected = golden[f"x{factor}_level{level + 1}"]
            found = peer.image_at(level)[0, :, :, 0]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


def test_peer_trains_as_we_do(x64, peer_module):
    """The losses of four steps: Charbonnier, the level weights, the L2 term and Adam."""
    model = LapSRN(depth=1, features=3)
    config = training.Config(level_weights=(1, 2), batch=2, size=16, weight_decay=0.1)
    state = training.init(jax.random.key(0), model=model, config=config, dtype=jnp.float64)
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 1), jnp.float64)
    low, targets = jax.tree.map(np.asarray, training.image_pyramid(images, model=model))
    network = peer_module.lapsrn(model, state.variables)
    trainings = [
        peer_module.Training(
            network,
            low,
            targets,
            level_weights=config.level_weights,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            parts=parts,
            channels_last=channels_last,
        )
        for parts, channels_last in ((1, False), (2, True))
    ]
    step = jax.jit(functools.partial(training.step, model=model, config=config))
    for _ in range(4):
        state, metrics = step(state, images)
        for peer in trainings:
            assert peer.step().item() == pytest.approx(float(metrics["loss"]), rel=1e-10)


def test_gflop_are_those_that_pytorch_counts(peer_module):
    from torch.utils.flop_counter import FlopCounterMode

    low = jnp.zeros((1, 6, 8, 1))
    variables = jax.jit(TINY.init)(jax.random.key(0), low)
    peer = peer_module.Inference(peer_module.lapsrn(TINY, variables), np.asarray(low))
    with FlopCounterMode(display=False) as counted:
        peer.run(1)
    assert work.lapsrn_pass(variables, 48) * 1e9 == counted.get_total_flops()


@pytest.fixture
def tiny(monkeypatch):
    """The networks and the recipe in small: they compile in little time."""
    monkeypatch.setattr(peers, "PAUSE", 0)
    monkeypatch.setattr(peers, "precisions", lambda asked: asked or ("float32",))  # as on a GPU
    monkeypatch.setattr(lapsrn, "NETWORKS", {"paper": TINY})
    monkeypatch.setattr(lapsrn, "RECIPE", training.Config(batch=4, size=16))
    monkeypatch.setattr(ceilings, "measure", lambda precision: ceilings.Ceilings(100.0, 10.0))


@pytest.mark.parametrize("alone", [True, False])
def test_a_run_writes_what_it_found(alone, request, tiny, tmp_path, capsys):
    if not alone:
        request.getfixturevalue("traced_by_pytorch")
    path = tmp_path / "lapsrn.json"
    command = ["--sizes", "16x24", "--json", str(path), "--calls", "2", "--steps", "3"]
    command += ["--precisions", "float32", "tf32", "--parts", "2", "--rounds", "2"]
    command += ["--factor", "2"]
    command += ["--alone"] if alone else []
    assert main(lapsrn, command) == 0

    found = json.loads(path.read_text())
    assert ("torch" in found["environment"]["versions"]) == (not alone)
    image, image_tf32, step, step_tf32 = found["results"]
    assert image_tf32["name"] == "inference paper x2 16x24 tf32"
    assert step_tf32["name"] == "training paper x2 4x16x16 tf32"
    assert {result["factor"] for result in found["results"]} == {2}
    precisions = [result["precision"] for result in found["results"]]
    assert precisions == ["float32", "tf32", "float32", "tf32"]
    assert (image["work"], image["size"]) == ("inference", "16x24")
    assert image["images_per_second"] == 1 / image["ours_seconds_per_image"]
    assert (step["work"], step["size"], step["parts"]) == ("training", "4x16x16", 2)
    assert step["images_per_second"] == pytest.approx(4 / step["ours_seconds_per_step"])
    per_pixel = image["gflop_per_image"] / (16 * 24)
    assert step["gflop_per_step"] == pytest.approx(3 * 4 * 16**2 * per_pixel)
    for result in found["results"]:
        unit = result["unit"]
        speed = result[f"gflop_per_{unit}"] / result[f"ours_seconds_per_{unit}"]
        assert result["gflop_per_second"] == pytest.approx(speed)
        assert result["share_of_product_ceiling"] == pytest.approx(speed / 100)
        if alone:
            assert result["ratio"] is None and result["peers"] == {}
            continue
        best = min(peer[f"seconds_per_{unit}"] for peer in result["peers"].values())
        assert result["ratio"] == best / result[f"ours_seconds_per_{unit}"]
        in_parts = [f"{form}-2-parts" for form in FORMS]
        assert list(result["peers"]) == (FORMS if unit == "image" else FORMS + in_parts)
        assert result["disagreement"] < peers.AGREEMENT
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("inference paper x2 16x24: ")
    assert printed[2].startswith("training paper x2 4x16x16: ")


@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_ours_rounds_to_tf32_where_it_is_asked_for(tiny, monkeypatch, precision):
    seen, compiled = [], lapsrn.timing.compiled

    def keep(*args):
        seen.append(jax.config.jax_default_matmul_precision)
        return compiled(*args)

    monkeypatch.setattr(lapsrn.timing, "compiled", keep)
    options = lapsrn.Options(factor=2, calls=1, steps=1, rounds=1)
    ceiling = ceilings.Ceilings(100.0, 10.0)
    lapsrn.inference("paper", (8, 8), precision, options, ceiling, alone=True)
    lapsrn.training_step(precision, options, ceiling, alone=True)
    assert seen == 2 * [{"float32": "highest", "tf32": "tensorfloat32"}[precision]]


def test_peers_round_to_tf32_where_it_is_asked_for(peer_module, traced_by_pytorch):
    from torch import backends

    low = jnp.ones((1, 4, 4, 1))
    variables = TINY.init(jax.random.key(0), low)
    for precision, rounded in (("tf32", True), ("float32", False)):
        peer_module.inferences(TINY, variables, low, calls=1, precision=precision)
        assert backends.cudnn.allow_tf32 == backends.cuda.matmul.allow_tf32 == rounded


def test_another_network_in_pytorch_stops_the_benchmark(
    tiny, peer_module, traced_by_pytorch, monkeypatch
):
    another = functools.partial(peer_module.functional.leaky_relu, negative_slope=0.1)
    monkeypatch.setattr(peer_module, "_leaky_relu", another)
    with pytest.raises(InputError, match="disagree"):
        lapsrn.run(lapsrn.Options(sizes=("16x24",), rounds=1))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "--sizes=30x48",
            "`--sizes` (=30x48) must be HEIGHTxWIDTH, each a multiple of 4, at least 4",
        ),
        ("--calls=0", "`--calls` (=0) must be at least 1"),
        ("--steps=0", "`--steps` (=0) must be at least 1"),
        ("--parts=0", "`--parts` (=0) must be at least 1"),
    ],
)
def test_bad_options_are_told_in_a_line(option, message, capsys):
    assert main(lapsrn, [option]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_parts_must_divide_the_batch(tiny, capsys):
    assert main(lapsrn, ["--sizes", "--alone", "--parts=3"]) == 2
    assert "`--parts` (=3) must divide the batch (=4)" in capsys.readouterr().err


def test_gflop_of_a_network_counted_by_hand():
    variables = jax.eval_shape(TINY.init, jax.random.key(0), jnp.zeros((1, 6, 8, 1)))
    low = 9 * 4 + 9 * 4 * 4 + 16 * 4 * 4 + 16  # a pixel: input, convolution, up, image
    high = 9 * 4  # detail
    expected = 2 * 48 * (low + 4 * high)
    assert work.lapsrn_pass(variables, 48) * 1e9 == pytest.approx(expected)


def test_gflop_of_a_training_step_are_the_compilers(monkeypatch):
    """Of one with plain convolutions; it counts losses, bilinear enlargement and Adam besides."""

    def conv(x, w, stride=1):
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, w, (stride, stride), "VALID", dimension_numbers=layout
        )

    monkeypatch.setattr(convolution, "conv", conv)
    model, config = LapSRN(), training.Config(batch=2, size=64)
    images = jax.ShapeDtypeStruct((2, 64, 64, 1), jnp.float32)
    start = functools.partial(training.init, model=model, config=config)
    state = jax.eval_shape(start, jax.random.key(0))
    step = functools.partial(training.step, model=model, config=config)
    flops = jax.jit(step).lower(state, images).cost_analysis()["flops"]
    counted = 3 * work.lapsrn_pass(state.variables, 2 * 16**2)
    assert counted == pytest.approx(flops / 1e9, rel=0.03)
