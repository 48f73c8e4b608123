"""The networks, as Flax modules with pure `init` and `apply`."""

from jaxsr.models.lapsrn import LapSRN
from jaxsr.models.skip_unet import INPAINTING, SkipUNet

__all__ = ["INPAINTING", "LapSRN", "SkipUNet"]
