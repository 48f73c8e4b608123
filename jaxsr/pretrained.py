"""A trained network for luma in a folder: settings as JSON, weights as an Orbax checkpoint."""

import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsr import storage
from jaxsr.checkpoints import Checkpoints
from jaxsr.errors import InputError
from jaxsr.files import atomic
from jaxsr.models import DRCN, FSRCNN, SRCNN, VDSR, LapSRN
from jaxsr.models.luma import Network

NETWORKS: dict[str, Any] = {kind.__name__: kind for kind in (LapSRN, SRCNN, FSRCNN, VDSR, DRCN)}
# What Python and Flax raise on settings that make no network.
_NO_NETWORK = ArithmeticError, AttributeError, KeyError, RecursionError, TypeError, ValueError
_OWN = ("dtype", "parent", "name")  # the reader's choice, and Flax's


def _names(kind: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.name not in _OWN]


def settings(model: Network) -> dict[str, Any]:
    """The network and its settings, as `model.json` holds them; without `dtype`."""
    kind = type(model)
    return {"network": kind.__name__} | {name: getattr(model, name) for name in _names(kind)}


def digest(variables: dict[str, Any]) -> str:
    """SHA-256 of all weights, in the order of their names: tells one training from another."""
    found = hashlib.sha256()
    for leaf in jax.tree.leaves(variables):
        found.update(np.ascontiguousarray(leaf).tobytes())
    return found.hexdigest()


def save(folder: str | os.PathLike[str], model: Network, variables: dict[str, Any]) -> None:
    """Writes `model.json` and `weights/`; of earlier weights the last stay, for who reads them now.

    Args:
      folder: made where it is missing.
      model: of `NETWORKS`; its settings are kept, but for `dtype`, which is the reader's choice.
      variables: {"params": ...} in float32.

    Raises:
      InputError: `load` would not read that network or those weights, or the files cannot be
        written.
    """
    if type(model) not in NETWORKS.values():
        raise InputError(f"the network (={type(model).__name__}) must be of {', '.join(NETWORKS)}")
    types = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(variables)})
    if types != ["float32"]:
        raise InputError(f"the weights (of {', '.join(types) or 'none'}) must be of float32")
    try:
        text = json.dumps(settings(model), indent=2, default=lambda x: x.item()) + "\n"  # NumPy's
        _, like = _described(json.loads(text))
    except InputError:
        raise
    except _NO_NETWORK as error:
        raise InputError(f"the network (={type(model).__name__}) is none: {error}") from error
    if storage.names(variables) != storage.names(like):
        raise InputError(
            f"the weights (={_told(variables)}) must be those of the network (={_told(like)})"
        )
    folder = pathlib.Path(folder)
    with Checkpoints(folder / "weights", keep=2) as checkpoints:
        latest = checkpoints.latest_step()
        checkpoints.save(0 if latest is None else latest + 1, variables)
    with atomic(folder / "model.json") as temporary:
        temporary.write_text(text, encoding="utf-8")


def _described(record: dict[str, Any]) -> tuple[Network, Any]:
    """The network that `model.json` holds, and the shapes of its variables.

    Raises:
      InputError, TypeError, ValueError and others: there is no such network.
    """
    described = dict(record)
    kind = NETWORKS.get(described.pop("network"))
    if kind is None or set(described) != set(_names(kind)):
        raise ValueError("it describes another network")
    model = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in described.items()})
    luma = jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32)
    return model, jax.eval_shape(model.init, jax.random.key(0), luma)


def _told(variables: Any) -> str:
    leaves = jax.tree.leaves(variables)
    return f"{len(leaves)} arrays, {sum(leaf.size for leaf in leaves):,} numbers"


def load(folder: str | os.PathLike[str]) -> tuple[Network, dict[str, Any]]:
    """The network and the variables that `save` wrote, or a training run.

    Raises:
      InputError: the folder holds none, or it is damaged.
    """
    folder = pathlib.Path(folder)
    record = folder / "model.json"
    if folder.is_file():
        raise InputError(
            f"`{folder}` is a file: the folder of a network is needed, which of a MATLAB file "
            "`python -m experiments.import_lapsrn` makes"
        )
    try:
        model, like = _described(json.loads(record.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(
            f"`{folder}` holds no trained network ({record.name}: {error.strerror})"
        ) from error
    except _NO_NETWORK as error:
        reason = str(error) or type(error).__name__
        raise InputError(f"`{record}` is damaged or of another program: {reason}") from error
    with Checkpoints(folder / "weights", read_only=True) as checkpoints:
        return model, checkpoints.restore(like)
