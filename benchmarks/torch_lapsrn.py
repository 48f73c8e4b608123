"""LapSRN in PyTorch, to be measured against: the network and one training step.

Written from the method's description (Lai et al., CVPR 2017; training as in section 3.2 of "Robust
Loss with Deep Image Prior"). Modules carry the names of `jaxsr.models.LapSRN`, whose variables they
take. Layout NCHW. PyTorch is optional (the extra `torch`): only the benchmark and its tests import
this file.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.torch_peer import (
    FORMS,
    LOSSES,
    allow_tf32,
    configure,
    first,
    placed,
    placement,
)
from jaxsr import models, reports, training

Programs = dict[str, Callable[[], Any]]

_leaky_relu = functools.partial(functional.leaky_relu, negative_slope=0.2, inplace=True)


class LapSRN(nn.Module):
    """Luma (N, 1, H, W) to every level's image: (N, 1, 2H, 2W), (N, 1, 4H, 4W), ..."""

    def __init__(self, *, levels: int, depth: int, spread: int, features: int = 64) -> None:
        super().__init__()
        self.levels, self.depth = levels, depth
        conv = functools.partial(nn.Conv2d, kernel_size=3, padding=1)
        parts: dict[str, nn.Module] = {"input": conv(1, features)}
        for level in range(levels):
            name = f"level_{level}"
            parts |= {f"{name}_conv_{i}": conv(features, features) for i in range(depth)}
            parts[f"{name}_up"] = nn.ConvTranspose2d(
                features, features, spread, stride=2, padding=(spread - 2) // 2
            )
            parts[f"{name}_detail"] = conv(features, 1)
            parts[f"{name}_image"] = nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1, bias=False)
        self.parts = nn.ModuleDict(parts)

    def forward(self, image: Tensor) -> list[Tensor]:
        parts, images = self.parts, []
        x = _leaky_relu(parts["input"](image))
        for level in range(self.levels):
            name = f"level_{level}"
            for i in range(self.depth):
                x = _leaky_relu(parts[f"{name}_conv_{i}"](x))
            height, width = x.shape[2:]
            # A 3x3 filter's sum is a row and a column longer than twice the sides.
            x = _leaky_relu(parts[f"{name}_up"](x)[..., : 2 * height, : 2 * width])
            image = parts[f"{name}_image"](image) + parts[f"{name}_detail"](x)
            images.append(image)
        return images


def lapsrn(model: models.LapSRN, variables: dict[str, Any]) -> LapSRN:
    """The same network with the same weights, in their dtype."""
    size = {"depth": model.depth, "spread": model.spread, "features": model.features}
    network = LapSRN(levels=model.levels, **size)
    for name, part in network.parts.items():
        values = variables["params"][name]
        # Filters lie as (K, C, h, w), transposed ones as (C, K, h, w).
        axes = (2, 3, 0, 1) if isinstance(part, nn.ConvTranspose2d) else (3, 2, 0, 1)
        part.weight = nn.Parameter(torch.tensor(np.asarray(values["kernel"]).transpose(axes)))
        if "bias" in values:
            part.bias = nn.Parameter(torch.tensor(np.asarray(values["bias"])))
    return network


def _tensor(image: ArrayLike) -> Tensor:
    return torch.tensor(np.asarray(image).transpose(0, 3, 1, 2))


class Inference:
    """One image (N, H, W, 1) to be enlarged by a copy of `network`, on the GPU if there is one."""

    def __init__(
        self,
        network: LapSRN,
        image: ArrayLike,
        *,
        channels_last: bool = False,
        compiled: bool = False,
    ) -> None:
        self.network = placed(network, channels_last=channels_last, compiled=compiled)
        self.image = _tensor(image).to(**placement(channels_last=channels_last))

    @torch.inference_mode()
    def run(self, calls: int) -> list[Tensor]:
        """Every level's image, several times over, each finished before the next begins."""
        for _ in range(calls):
            images = self.network(self.image)
            if self.image.is_cuda:
                torch.cuda.synchronize()
        return images

    def image_at(self, level: int) -> np.ndarray:
        """A level's image as NumPy, (N, H, W, 1)."""
        return self.run(1)[level].cpu().numpy().transpose(0, 2, 3, 1)


class Training:
    """A copy of `network` being trained: each `step` is both levels, loss, gradient, Adam.

    Adam's weight decay is an L2 term. Low resolution and targets are (N, H, W, 1), made beforehand;
    with `parts` above 1 the batch's gradient is summed in so many, which takes less memory.
    """

    def __init__(
        self,
        network: LapSRN,
        low: ArrayLike,
        targets: Sequence[ArrayLike],
        *,
        level_weights: Sequence[float] = (1.0, 1.0),
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        parts: int = 1,
        channels_last: bool = False,
        compiled: bool = False,
    ) -> None:
        self.network = placed(network, channels_last=channels_last, compiled=compiled)
        place = placement(channels_last=channels_last)
        pyramids = [_tensor(image).to(**place).chunk(parts) for image in (low, *targets)]
        self.parts = list(zip(*pyramids, strict=True))
        self.level_weights = level_weights
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=learning_rate,
            weight_decay=weight_decay,
            fused=True,
        )

    def loss_of(self, low: Tensor, *targets: Tensor) -> Tensor:
        """The weighted sum of the levels' mean Charbonnier losses."""
        levels = zip(self.level_weights, self.network(low), targets, strict=True)
        terms = [weight * LOSSES["charbonnier"](image, target) for weight, image, target in levels]
        return torch.stack(terms).sum()

    def step(self) -> Tensor:
        """One step; the loss before it, still on the device."""
        self.optimizer.zero_grad()
        losses = []
        for part in self.parts:
            loss = self.loss_of(*part) / len(self.parts)
            loss.backward()
            losses.append(loss.detach())
        self.optimizer.step()
        return torch.stack(losses).sum()

    def run(self, steps: int) -> float:
        """Several steps; the last loss, read once, so that the device has finished."""
        for _ in range(steps):
            loss = self.step()
        return loss.item()


def inferences(
    model: models.LapSRN, variables: Any, low: ArrayLike, *, calls: int, precision: str
) -> tuple[Programs, list[np.ndarray]]:
    """Programs of so many enlargements of one image, by form, and each one's image in float32."""
    configure(threads=reports.cores())
    network, programs, images = lapsrn(model, variables), Programs(), []
    for name, form in FORMS.items():
        peer = Inference(network, low, **form)
        image = first(functools.partial(peer.image_at, -1), compiled=form["compiled"])
        if image is not None:
            images.append(image)
            programs[name] = functools.partial(peer.run, calls)
    allow_tf32(precision == "tf32")
    return programs, images


def trainings(
    model: models.LapSRN,
    variables: Any,
    low: ArrayLike,
    targets: Sequence[ArrayLike],
    config: training.Config,
    *,
    calls: int,
    precision: str,
) -> tuple[Programs, list[float]]:
    """Programs of so many steps, by form and parts, and each one's loss at the start in float32."""
    configure(threads=reports.cores())
    network, programs, losses = lapsrn(model, variables), Programs(), []
    for parts in dict.fromkeys((1, config.parts)):
        for name, form in FORMS.items():
            peer = Training(
                network,
                low,
                targets,
                level_weights=config.level_weights,
                learning_rate=config.learning_rate,
                weight_decay=config.weight_decay,
                parts=parts,
                **form,
            )
            loss = first(functools.partial(peer.run, 1), compiled=form["compiled"])
            if loss is not None:
                losses.append(loss)
                programs[name if parts == 1 else f"{name}-{parts}-parts"] = functools.partial(
                    peer.run, calls
                )
    allow_tf32(precision == "tf32")
    return programs, losses
