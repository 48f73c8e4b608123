"""The networks: Deep Image Prior's, and by name those that `experiments.lapsrn` trains."""

import functools
from typing import Any, Literal

import jax.numpy as jnp

from experiments import command
from jaxsr.errors import InputError
from jaxsr.models import LapSRN, SkipUNet
from jaxsr.models.luma import Network
from jaxsr.pretrained import NETWORKS

Name = Literal["lapsrn", "srcnn", "fsrcnn", "vdsr", "drcn"]


@functools.lru_cache
def prior(precision: command.Precision, **settings: Any) -> SkipUNet:
    """Deep Image Prior's network, in that precision: for the same settings the same module.

    A compiled program is known by the module whose `apply` it holds: fits that share one share it.
    """
    return SkipUNet(dtype=jnp.bfloat16 if precision == "bfloat16" else None, **settings)


def build(name: Name, scale: int, dtype: Any, **of_lapsrn: Any) -> Network:
    """The network of a name; the others than LapSRN are as published.

    Raises:
      InputError: one of LapSRN's settings is given for another.
    """
    if name == "lapsrn":
        return LapSRN(factor=scale, dtype=dtype, **of_lapsrn)
    default = LapSRN()
    for setting, value in of_lapsrn.items():
        if value != getattr(default, setting):
            given = f"`--no-{setting}`" if value is False else f"`--{setting}` (={value})"
            raise InputError(f"{given} goes with `--network lapsrn` alone")
    network: Network = NETWORKS[name.upper()](factor=scale, dtype=dtype)
    return network


def level_weights(model: Network) -> tuple[float, ...]:
    """Ones; where every image is of full size, half for the result and half for all the others.

    The latter is recursive supervision: Kim et al. (DRCN, CVPR 2016) let the half decay.
    """
    count = len(model.enlargements)
    if count > 1 and model.enlargements[0] == model.factor:
        return (*(0.5 / (count - 1),) * (count - 1), 0.5)
    return (1.0,) * count
