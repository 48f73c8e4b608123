"""Deep Image Prior in PyTorch, to be measured against: the network, the operator and one step.

Written from the method's description (Ulyanov et al., CVPR 2018, and its supplement). Parameters
carry the names of the released code's `state_dict`, so that `jaxsr.weights.skip_unet_from_torch`
reads them. Layout NCHW. PyTorch is optional (the extra `torch`): only the benchmarks and their
tests import this file.
"""

import copy
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from jaxsr import resample
from jaxsr.errors import reason

Loss = Callable[[Tensor, Tensor], Tensor]

# Options of `placed`: as PyTorch comes, and what makes it faster where it does.
FORMS: dict[str, dict[str, bool]] = {
    "eager": {"channels_last": False, "compiled": False},
    "eager-channels-last": {"channels_last": True, "compiled": False},
    "compile": {"channels_last": False, "compiled": True},
    "compile-channels-last": {"channels_last": True, "compiled": True},
}

# Each is the mean over all values; constants as in `jaxsr.losses`.
LOSSES: dict[str, Loss] = {
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "charbonnier": lambda p, t: torch.sqrt((p - t) ** 2 + 1e-3**2).mean(),
}


class Branches(nn.Module):
    """Its parts, side by side on one input, joined along the channels."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        for index, part in enumerate(parts):
            self.add_module(str(index), part)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, the parts' channels together, H, W)."""
        return torch.cat([part(x) for part in self.children()], dim=1)


def _from_one(*parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict((str(i), part) for i, part in enumerate(parts, start=1)))


def _conv(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    pad = nn.ReflectionPad2d(size // 2) if size > 1 else nn.Identity()
    return nn.Sequential(pad, nn.Conv2d(inputs, outputs, size, stride))


def _normed(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.LeakyReLU(0.2, inplace=True)


def skip_unet(
    inputs: int = 32,
    *,
    down: Sequence[int] = (128,) * 5,
    up: Sequence[int] = (128,) * 5,
    skip: Sequence[int] = (4,) * 5,
    channels: int = 3,
) -> nn.Sequential:
    """The skip network in training mode: (1, inputs, H, W) to (1, channels, H, W) in (0, 1).

    H and W must be multiples of 2 ** len(down), from 2 ** (len(down) + 1). `down`, `up` and `skip`
    hold the channels of each scale, finest first.
    """

    def scale(level: int, incoming: int) -> list[nn.Module]:
        deeper: list[nn.Module] = [
            _conv(incoming, down[level], 3, stride=2),
            *_normed(down[level]),
            _conv(down[level], down[level], 3),
            *_normed(down[level]),
        ]
        below = down[level]
        if level + 1 < len(down):
            deeper.append(_from_one(*scale(level + 1, down[level])))
            below = up[level + 1]
        deeper.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
        across = _from_one(_conv(incoming, skip[level], 1), *_normed(skip[level]))
        joined = skip[level] + below
        return [
            Branches(across, _from_one(*deeper)),
            nn.BatchNorm2d(joined),
            _conv(joined, up[level], 3),
            *_normed(up[level]),
            _conv(up[level], up[level], 1),
            *_normed(up[level]),
        ]

    return _from_one(*scale(0, inputs), _conv(up[0], channels, 1), nn.Sigmoid()).train()


def parameters_as_numpy(network: nn.Module) -> dict[str, np.ndarray]:
    """What `jaxsr.weights.skip_unet_from_torch` takes: trained values by name."""
    return {name: value.detach().cpu().numpy() for name, value in network.named_parameters()}


def downsample(factor: int, *, support: int = 2, channels: int = 3) -> nn.Sequential:
    """The released strided Lanczos convolution, in float64: replicated borders, phase 1/2.

    Maps (N, channels, H, W) to (N, channels, H / factor, W / factor) for even factors.
    """
    taps = torch.from_numpy(resample.lanczos_kernel(factor, support))
    convolution = nn.Conv2d(channels, channels, taps.shape[0], factor, groups=channels, bias=False)
    convolution.weight = nn.Parameter(taps.expand(channels, 1, -1, -1).clone(), requires_grad=False)
    return nn.Sequential(nn.ReplicationPad2d((taps.shape[0] - factor) // 2), convolution)


def configure(*, threads: int) -> None:
    """Sets PyTorch's CPU threads and exact float32, and has it try which GPU kernels are fastest.

    What `torch.compile` knows is forgotten: sizes it has seen make it give up on the next ones.
    """
    torch.compiler.reset()
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    allow_tf32(False)


def allow_tf32(allowed: bool) -> None:
    """Whether PyTorch's GPU kernels may round what they multiply to TF32."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def placement(*, channels_last: bool) -> dict[str, Any]:
    """What `to` takes: the kind of device that JAX computes on, and how images lie in memory."""
    return {
        "device": "cpu" if jax.default_backend() == "cpu" else "cuda",
        "memory_format": torch.channels_last if channels_last else torch.contiguous_format,
    }


def placed(network: nn.Module, *, channels_last: bool, compiled: bool) -> nn.Module:
    """A copy of `network` there; `compiled` has `torch.compile` make its programs when called."""
    network = copy.deepcopy(network).to(**placement(channels_last=channels_last))
    if compiled:
        network.compile(dynamic=False)
    return network


def first(call: Callable[[], Any], *, compiled: bool) -> Any:
    """What a first call gives; None, which is told, where a compiled form cannot run.

    It may lack the C++ compiler that it needs, or memory.
    """
    try:
        return call()
    except RuntimeError as error:
        if not compiled:
            raise
        print(f"torch.compile is left out: {reason(error)}", file=sys.stderr)
        return None


class Fit:
    """One image being fitted: each `step` is noise, network, operator, loss, gradient, Adam."""

    def __init__(
        self,
        network: nn.Module,
        operator: nn.Module,
        latent: Tensor,
        target: Tensor,
        *,
        loss: Loss,
        noise_std: float = 0.03,
        learning_rate: float = 0.01,
        precision: str = "float32",
    ) -> None:
        self.network, self.operator, self.loss = network, operator, loss
        self.latent, self.target, self.noise_std = latent, target, noise_std
        self.mixed = precision == "bfloat16"
        self.optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)

    def loss_at(self, latent: Tensor) -> Tensor:
        """The scalar loss of the network's output at a latent (1, C, H, W)."""
        with torch.autocast(latent.device.type, dtype=torch.bfloat16, enabled=self.mixed):
            image = self.network(latent)
        return self.loss(self.operator(image.to(self.target.dtype)), self.target)

    def step(self) -> Tensor:
        """One iteration; the loss before it, still on the device."""
        self.optimizer.zero_grad()
        latent = self.latent
        if self.noise_std:
            latent = latent + self.noise_std * torch.randn_like(latent)
        loss = self.loss_at(latent)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def run(self, iterations: int) -> float:
        """Several steps; the last loss, read once, so that the device has finished."""
        for _ in range(iterations):
            loss = self.step()
        return loss.item()


def fit_of(
    network: nn.Module,
    latent: np.ndarray,
    target: np.ndarray,
    *,
    loss: str,
    factor: int = 4,
    channels_last: bool = False,
    compiled: bool = False,
    precision: str = "float32",
    **options: Any,
) -> Fit:
    """A fit of a copy of `network`, where `placement` says; both arrays are (N, H, W, C).

    Raises:
      RuntimeError: at its first step, where `compiled` and there is no compiler.
    """
    place = placement(channels_last=channels_last)
    z, y = (torch.tensor(x.transpose(0, 3, 1, 2)).to(**place) for x in (latent, target))
    network = placed(network, channels_last=channels_last, compiled=compiled)
    operator = downsample(factor, channels=y.shape[1]).to(y.device, y.dtype)
    return Fit(network, operator, z, y, loss=LOSSES[loss], precision=precision, **options)
