import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsr.errors import InputError
from jaxsr.models import SkipUNet
from jaxsr.weights import skip_unet_from_torch

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
