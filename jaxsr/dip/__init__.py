"""Deep Image Prior: fit an untrained network to one observation, by functions around one state.

    theta* = argmin E(A f_theta(z); y) + R(f_theta(z)),   x* = f_theta*(z)

(Ulyanov, Vedaldi and Lempitsky, CVPR 2018), for any network f, operator A and loss E; the network
itself is the prior, so R is 0 unless a regulariser is given. The released method's details are
kept: Adam, a fixed latent z ~ U(0, 0.1) to which every iteration adds fresh Gaussian noise. The
result is the running average of the outputs, as in the authors' denoising, but by polynomial decay
at first (`Config.average`): it needs no warm-up.

Arrays are (N, H, W, C), images in [0, 1]; f's image may be larger than what A looks at.
"""

from jaxsr.dip.config import Config
from jaxsr.dip.fitting import DIPResult, History, Progress, fit
from jaxsr.dip.solver import Regulariser, Score, State, init, rgb_score, run, step
from jaxsr.dip.stopping import Detection

__all__ = [
    "Config",
    "DIPResult",
    "Detection",
    "History",
    "Progress",
    "Regulariser",
    "Score",
    "State",
    "fit",
    "init",
    "rgb_score",
    "run",
    "step",
]
