"""Why one result has several PSNRs: RGB, Pillow's Y and MATLAB's Y side by side.

Figures of super-resolution that differ by a decibel or more often differ in nothing but this.
"""

import math

import numpy as np

from experiments.scores import Rows, table
from jaxsr import images
from jaxsr.metrics import psnr
from jaxsr.protocols import jpeg_luma

COLUMNS = {"rgb": "RGB", "pillow_y": "Pillow Y", "matlab_y": "MATLAB Y"}


def compare(result: np.ndarray, hr: np.ndarray, shave: int) -> dict[str, float]:
    """PSNR in dB of a result, rounded to 8 bits, against the ground truth; both (H, W, C).

    `rgb` (left out for gray images), `pillow_y`, `matlab_y`; of the last also what it would be
    with Y rounded to 8 bits and without the shave: `matlab_y_rounded`, `matlab_y_unshaved`.

    Raises:
      InputError: the shave leaves nothing of the images.
    """
    rounded = images.from_uint8(images.to_uint8(result))
    stored = rounded.astype(np.float64), hr.astype(np.float64)
    pillow = [jpeg_luma(image).astype(np.float64) for image in stored]
    matlab = [images.rgb_to_y(image) for image in stored]
    of_8_bits = [np.rint(255 * luma) / 255 for luma in matlab]
    figures = {"rgb": psnr(*stored, shave=shave)} if hr.shape[-1] == 3 else {}
    figures |= {"pillow_y": psnr(*pillow, shave=shave), "matlab_y": psnr(*matlab, shave=shave)}
    figures |= {
        "matlab_y_rounded": psnr(*of_8_bits, shave=shave),
        "matlab_y_unshaved": psnr(*matlab),
    }
    return {name: float(value) for name, value in figures.items()}


def explanation(rows: Rows, shave: int) -> str:
    """A table of what `compare` gave for each image and method, and what sets its columns apart.

    The last row is the mean: the text quotes that of the first method, where it is finite.
    """
    mean = rows[-1][1]
    methods, first = list(mean), next(iter(mean.values()))
    lines = [["image", *(f"{method} {title}" for method in methods for title in COLUMNS.values())]]
    for name, row in rows:
        figures = [row[method].get(column) for method in methods for column in COLUMNS]
        lines.append([name, *("-" if psnr is None else f"{psnr:.3f}" for psnr in figures)])
    studio = 20 * math.log10(255 / 219)
    text = f"""PSNR in dB of the same 8-bit images, {shave} pixels shaved on each side, peak 255:
{table(lines)}
RGB counts the errors of all three channels; Y is a weighted mean, in which they partly cancel, and
  is blind to chroma.
Pillow Y is 0.299 R + 0.587 G + 0.114 B in JPEG's full range, 0 to 255, rounded to 8 bits.
MATLAB Y is the same mean in BT.601's studio range, 16 to 235, not rounded: what papers on
  super-resolution publish.
Range: studio range shrinks every difference by 219/255 while the peak stays 255, which alone adds
  20 log10(255/219) = {studio:.2f} dB."""
    if not math.isfinite(first["matlab_y"]):  # a result equals the truth
        return text
    rounding = first["matlab_y_rounded"] - first["matlab_y"]
    border = first["matlab_y_unshaved"] - first["matlab_y"]
    return f"""{text}
Rounding: MATLAB Y rounded to 8 bits would be {rounding:+.3f} dB off here ({methods[0]}, mean).
Shave: without it MATLAB Y would be {border:+.3f} dB off; what lies outside the image is unknown."""
