"""The networks, as Flax modules with pure `init` and `apply`."""

from jaxsr.models.drcn import DRCN
from jaxsr.models.fsrcnn import FSRCNN
from jaxsr.models.lapsrn import LapSRN
from jaxsr.models.skip_unet import INPAINTING, SkipUNet
from jaxsr.models.srcnn import SRCNN
from jaxsr.models.vdsr import VDSR

__all__ = ["DRCN", "FSRCNN", "INPAINTING", "SRCNN", "VDSR", "LapSRN", "SkipUNet"]
