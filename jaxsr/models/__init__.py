"""The networks, as Flax modules with pure `init` and `apply`."""

from jaxsr.models.skip_unet import SkipUNet

__all__ = ["SkipUNet"]
