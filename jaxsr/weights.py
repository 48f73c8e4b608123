"""Foreign weights as Flax variables."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsr.errors import InputError

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
