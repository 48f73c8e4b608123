import pickle
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io

from jaxsr.errors import InputError
from jaxsr.models import LapSRN, SkipUNet
from jaxsr.weights import lapsrn_from_mat, skip_unet_from_torch

# One scale's modules in the reference, below its prefix, and where they go.
SCALE = {
    "1.0.1.1": ("skip_{i}", "conv", "conv"),
    "1.0.2": ("skip_{i}", "norm"),
    "1.1.1.1": ("halve_{i}", "conv", "conv"),
    "1.1.2": ("halve_{i}", "norm"),
    "1.1.4.1": ("down_{i}", "conv", "conv"),
    "1.1.5": ("down_{i}", "norm"),
    "2": ("join_{i}",),
    "3.1": ("up_{i}", "conv", "conv"),
    "4": ("up_{i}", "norm"),
    "6.1": ("mix_{i}", "conv", "conv"),
    "7": ("mix_{i}", "norm"),
}


def modules(scales):
    """Name in PyTorch -> path in `params`, for all modules of the network."""
    names = {
        "1.1.7." * i + name: tuple(part.format(i=i) for part in path)
        for i in range(scales)
        for name, path in SCALE.items()
    }
    return names | {"9.1": ("image", "conv")}


def as_torch(params, scales):
    """The state dict that these parameters come from."""
    state_dict = {}
    for name, path in modules(scales).items():
        node = params
        for part in path:
            node = node[part]
        if "kernel" in node:
            state_dict[f"{name}.weight"] = np.asarray(node["kernel"]).transpose(3, 2, 0, 1)
        else:
            state_dict[f"{name}.weight"] = np.asarray(node["scale"])
        state_dict[f"{name}.bias"] = np.asarray(node["bias"])
    return state_dict


def network_params(scales=5, channels=6, dtype=jnp.float32):
    """Parameters of a small network, all different numbers."""
    network = SkipUNet(down=(channels,) * scales, up=(channels,) * scales, skip=(4,) * scales)
    side = 2 * 2**scales
    latent = jax.ShapeDtypeStruct((1, side, side, 5), dtype)
    shapes = jax.eval_shape(network.init, jax.random.key(0), latent)["params"]
    rng = np.random.RandomState(0)
    return jax.tree.map(lambda x: rng.uniform(-1, 1, x.shape).astype(x.dtype), shapes)


@pytest.mark.parametrize("scales", [1, 2, 5])
def test_round_trip(scales):
    """Every parameter of every scale is named, and lands where the network looks for it."""
    params = network_params(scales)
    state_dict = as_torch(params, scales)
    back = skip_unet_from_torch(state_dict)
    assert set(back) == {"params"}
    jax.tree.map(np.testing.assert_array_equal, back["params"], params)
    assert sum(x.size for x in state_dict.values()) == sum(x.size for x in jax.tree.leaves(params))


def test_names_of_the_golden_data(golden_dip):
    """The released network's own names are those that the round trip makes."""
    golden = golden_dip("dip_charbonnier_x8_64x64_small")
    scales = golden.meta["scales"]
    assert set(golden.names) == set(as_torch(golden.variables["params"], scales))


def test_keeps_the_dtype():
    params = network_params(1)
    wide = {k: v.astype(np.float64) for k, v in as_torch(params, 1).items()}
    assert {x.dtype for x in jax.tree.leaves(skip_unet_from_torch(wide))} == {np.dtype(np.float64)}


def test_convolutions_are_turned_to_channels_last():
    kernel = np.arange(2 * 3 * 3 * 5.0).reshape(2, 5, 3, 3)
    params = skip_unet_from_torch({"1.1.7.3.1.weight": kernel})["params"]
    taken = params["up_1"]["conv"]["conv"]["kernel"]
    for k, c, i, j in np.ndindex(kernel.shape):
        assert taken[i, j, c, k] == kernel[k, c, i, j]


@pytest.mark.parametrize("prefix", ["", "1.1.7.", "1.1.7.1.1.7."])
def test_running_statistics_are_left_out(prefix):
    batch_norm = {
        f"{prefix}4.weight": np.ones(3),
        f"{prefix}4.bias": np.zeros(3),
        f"{prefix}4.running_mean": np.full(3, 7.0),
        f"{prefix}4.running_var": np.full(3, 8.0),
        f"{prefix}4.num_batches_tracked": np.array(9),
    }
    params = skip_unet_from_torch(batch_norm)["params"]
    ((name, module),) = params.items()
    assert name == f"up_{prefix.count('1.1.7.')}"
    assert set(module["norm"]) == {"scale", "bias"}


@pytest.mark.parametrize(
    "name",
    [
        "5.weight",
        "fc.bias",
        "1.1.7.9.1.weight",  # the image's convolution is at the top only
        "1.1.6.weight",
        "weight",
        "4.gain",
    ],
)
def test_refuses_an_unknown_name(name):
    with pytest.raises(InputError, match=rf"parameter name \(='{name}'\) is none of"):
        skip_unet_from_torch({name: np.zeros(3)})


def released(model, seed=0):
    """A network's parameters as the released files name and store them, with its variables."""
    luma = jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), luma)
    rng = np.random.RandomState(seed)
    variables = jax.tree.map(lambda x: rng.uniform(-1, 1, x.shape).astype(np.float32), shapes)
    params = variables["params"]
    values = {}

    def store(theirs, ours):
        kernel = params[ours]["kernel"]
        if theirs.endswith("upconv"):
            kernel = kernel.transpose(0, 1, 3, 2)
        while kernel.shape[-1] == 1:
            kernel = kernel[..., 0]
        values[f"{theirs}_f"] = kernel
        if "bias" in params[ours]:
            values[f"{theirs}_b"] = params[ours]["bias"][None]

    store("input_conv", "input")
    for level in range(model.levels):
        theirs, ours = f"level{model.levels - level}", f"level_{level}"
        for i in range(model.depth):
            store(f"{theirs}_conv{i + 1}", f"{ours}_conv_{i}")
        store(f"{theirs}_upconv", f"{ours}_up")
        store(f"{theirs}_residual_conv", f"{ours}_detail")
        store(f"{theirs}_img_up", f"{ours}_image")
    return values, variables


def write_mat(path, values):
    """A `net` like MatConvNet's, of arrays by name."""
    params = np.zeros((1, len(values)), [(n, object) for n in ("name", "value", "learningRate")])
    for entry, (name, value) in zip(params[0], values.items(), strict=True):
        entry["name"], entry["value"], entry["learningRate"] = name, value, np.ones((1, 1))
    net = {"vars": np.zeros((1, 0)), "params": params, "meta": {"scale": 8.0}}
    scipy.io.savemat(path, {"net": net}, do_compression=True)
    return path


SMALL = LapSRN(factor=2, depth=1, spread=3)  # the least that the format can hold


def test_a_file_of_8x_comes_back(tmp_path):
    """Released with 5 convolutions a level; no file of it is at hand, so one in the same layout."""
    expected = LapSRN(factor=8, depth=5, spread=3)
    values, variables = released(expected)
    model, found = lapsrn_from_mat(write_mat(tmp_path / "LapSRN_x8.mat", values))
    assert model == expected
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    assert {x.dtype for x in jax.tree.leaves(found)} == {np.dtype(np.float32)}


@pytest.mark.parametrize(("factor", "count"), [(2, 407_441), (4, 814_242)])
def test_the_released_files(shared, factor, count):
    path = shared / "weights" / f"LapSRN_x{factor}.mat"
    model, variables = lapsrn_from_mat(path)
    assert model == LapSRN(factor=factor, depth=10, spread=3)
    assert sum(x.size for x in jax.tree.leaves(variables)) == count
    entries = scipy.io.loadmat(path)["net"]["params"][0, 0].ravel()
    # The layout of the files that the other tests make.
    found = {entry["name"].item(): entry["value"].shape for entry in entries}
    assert found == {name: value.shape for name, value in released(model)[0].items()}


def refusal(path):
    """The one line that a file is refused with."""
    with pytest.raises(InputError) as error:
        lapsrn_from_mat(path)
    message = str(error.value)
    assert message.startswith(f"`{path}`") and "\n" not in message
    return message


def without(values, name):
    return {key: value for key, value in values.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: without(v, "level1_upconv_b"), "lacks the parameter 'level1_upconv_b'"),
        (lambda v: v | {"level2_conv1_f": v["level1_conv1_f"]}, "'level2_conv1_f') that LapSRN"),
        (lambda v: v | {"input_conv_f": np.ones((5, 5, 1, 64))}, "float64[5, 5, 1, 64]) must be"),
        # As many numbers, in another order.
        (
            lambda v: v | {"level1_conv1_f": v["level1_conv1_f"].transpose(3, 2, 0, 1)},
            "'level1_conv1_f' (of float32[64, 64, 3, 3]) must be floats of [3, 3, 64, 64]",
        ),
        (lambda v: v | {"level1_conv1_b": np.ones((1, 64), np.uint8)}, "(of uint8[1, 64]) must be"),
        (lambda v: without(v, "level1_img_up_f"), "another network than LapSRN, of 8 parameters"),
        (lambda v: {"fc_f": np.ones((3, 3))}, "another network than LapSRN, of 1 parameters"),
    ],
)
def test_another_network_is_refused(tmp_path, change, message):
    assert message in refusal(write_mat(tmp_path / "net.mat", change(released(SMALL)[0])))


def test_foreign_and_damaged_files_are_refused(tmp_path):
    sound = write_mat(tmp_path / "sound.mat", released(SMALL)[0])
    lapsrn_from_mat(sound)
    content = sound.read_bytes()
    path = tmp_path / "net.mat"
    for part in (0, 1, 100, 130, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:part])
        assert "is damaged, or no LapSRN in MATLAB's format" in refusal(path)
    for foreign in ({"x": np.ones(3)}, {"net": np.ones(3)}, {"net": {"params": np.ones(3)}}):
        scipy.io.savemat(path, foreign)
        assert "is damaged, or no LapSRN" in refusal(path)
    assert refusal(tmp_path / "none.mat").endswith("cannot be read: No such file or directory")
    assert refusal(tmp_path).endswith("cannot be read: Is a directory")


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return shutil.copyfile, (__file__, self.path)


def test_a_pickle_is_not_run(tmp_path):
    sprung = tmp_path / "sprung"
    path = tmp_path / "LapSRN_x4.mat"
    path.write_bytes(pickle.dumps(Trap(str(sprung))))
    pickle.loads(path.read_bytes())
    assert sprung.exists(), "the trap does not work"
    sprung.unlink()
    assert "is damaged, or no LapSRN" in refusal(path)
    assert not sprung.exists()
