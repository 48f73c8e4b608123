"""Foreign weights as Flax variables."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import scipy.io

from jaxsr.errors import InputError
from jaxsr.models import LapSRN
from jaxsr.models.lapsrn import FACTORS

# One scale of the reference's skip network: its module path below the scale -> ours, by index.
_SCALE = {
    "1.0.1.1": "skip_{i}/conv",
    "1.0.2": "skip_{i}/norm",
    "1.1.1.1": "halve_{i}/conv",
    "1.1.2": "halve_{i}/norm",
    "1.1.4.1": "down_{i}/conv",
    "1.1.5": "down_{i}/norm",
    "2": "join_{i}",
    "3.1": "up_{i}/conv",
    "4": "up_{i}/norm",
    "6.1": "mix_{i}/conv",
    "7": "mix_{i}/norm",
}
_DEEPER = "1.1.7."
_IMAGE = {"9.1": "image"}
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def skip_unet_from_torch(state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The PyTorch skip network's parameters as variables of `models.SkipUNet`.

    Args:
      state_dict: NumPy arrays under the names of https://github.com/DmitryUlyanov/deep-image-prior
        (`skip` with bias, 1x1 up-convolutions and reflection padding); convolutions are OIHW. The
        running statistics of batch norms are left out: the network never uses them.

    Returns:
      {"params": ...} in the arrays' dtype, convolutions HWIO.

    Raises:
      InputError: a name that the reference's network does not have.
    """
    params: dict[str, Any] = {}
    for name, array in state_dict.items():
        module, _, kind = name.rpartition(".")
        if kind in _BUFFERS:
            continue
        *path, leaf = [*_place(module, kind).split("/"), kind]
        array = np.asarray(array)
        is_norm = path[-1] == "norm" or path[-1].startswith("join")
        if not is_norm:
            path.append("conv")
        node = params
        for part in path:
            node = node.setdefault(part, {})
        if leaf == "bias":
            node["bias"] = array
        elif is_norm:
            node["scale"] = array
        else:
            node["kernel"] = array.transpose(2, 3, 1, 0)
    return {"params": params}


def _place(module: str, kind: str) -> str:
    """Our path of the reference's module, of which `kind` is a weight or a bias."""
    name, scale = ".".join(filter(None, (module, kind))), 0
    while module.startswith(_DEEPER):
        module, scale = module.removeprefix(_DEEPER), scale + 1
    names = _SCALE if scale else _SCALE | _IMAGE
    if module not in names or kind not in ("weight", "bias"):
        raise InputError(f"parameter name (={name!r}) is none of the reference skip network's")
    return names[module].format(i=scale)


def lapsrn_from_mat(path: str | os.PathLike[str]) -> tuple[LapSRN, dict[str, Any]]:
    """The released LapSRN of a MATLAB file, as a module and its variables.

    Reads what Lai et al. published for 2x, 4x and 8x (MatConvNet's `net`, a struct of named
    arrays); nothing in the file is executed.

    Returns:
      the `models.LapSRN` of the file's factor and depth, and {"params": ...} in the file's float32.

    Raises:
      InputError: the file is missing, damaged, or holds another network.
    """
    values = _mat_parameters(path)
    levels = sum(name.endswith("_img_up_f") for name in values)
    depth = sum(name.startswith("level1_conv") and name.endswith("_f") for name in values)
    if 2**levels not in FACTORS or not depth:
        raise InputError(f"`{path}` holds another network than LapSRN, of {len(values)} parameters")
    model = LapSRN(factor=2**levels, depth=depth, spread=3)
    names = {"input_conv": "input"}
    for level in range(levels):  # the file counts from the finest, 1, to the coarsest
        theirs, ours = f"level{levels - level}", f"level_{level}"
        names |= {f"{theirs}_conv{i + 1}": f"{ours}_conv_{i}" for i in range(depth)}
        names |= {f"{theirs}_upconv": f"{ours}_up", f"{theirs}_residual_conv": f"{ours}_detail"}
        names |= {f"{theirs}_img_up": f"{ours}_image"}
    luma = jax.ShapeDtypeStruct((1, 4, 4, 1), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), luma)["params"]
    params = {
        ours: {
            kind: _mat_array(path, values, theirs + suffix, shapes[ours][kind].shape)
            for kind, suffix in (("kernel", "_f"), ("bias", "_b"))
            if kind in shapes[ours]
        }
        for theirs, ours in names.items()
    }
    for level in range(levels):  # transposed convolutions stand there as (h, w, K, C)
        up = params[f"level_{level}_up"]
        up["kernel"] = np.ascontiguousarray(up["kernel"].swapaxes(2, 3))
    if values:
        raise InputError(f"`{path}` holds a parameter ({min(values)!r}) that LapSRN does not have")
    return model, {"params": params}


def _mat_parameters(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of `net.params` by name."""
    try:
        with open(path, "rb") as file:
            net = scipy.io.loadmat(file, variable_names=["net"])["net"]
        entries = net["params"][0, 0].ravel()
        return {str(entry["name"].item()): np.asarray(entry["value"]) for entry in entries}
    except Exception as error:  # SciPy raises all kinds on damaged and foreign files
        if isinstance(error, OSError) and error.strerror:
            raise InputError(f"`{path}` cannot be read: {error.strerror}") from error
        raise InputError(f"`{path}` is damaged, or no LapSRN in MATLAB's format") from error


def _mat_array(
    path: str | os.PathLike[str], values: dict[str, np.ndarray], name: str, shape: tuple[int, ...]
) -> np.ndarray:
    """The parameter of that name, taken out of `values`; MATLAB drops trailing axes of length 1."""
    if name not in values:
        raise InputError(f"`{path}` lacks the parameter {name!r} of LapSRN")
    array = values.pop(name)
    sides, needed = ([n for n in axes if n != 1] for axes in (array.shape, shape))
    if sides != needed or array.dtype.kind != "f":
        kind = f"{array.dtype}{list(array.shape)}"
        raise InputError(f"`{path}`: {name!r} (of {kind}) must be floats of {list(shape)}")
    return np.ascontiguousarray(array.reshape(shape))
