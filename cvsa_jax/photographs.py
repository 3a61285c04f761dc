"""What is known of photographs in general, for a prior of which nothing was measured.

`photographs.json` has, for some sides of square photographs in pixels, their power spectrum and the denoising error of
the prior `products64` on them, as `cvsa calibrate` measured them on photographs of goods and clothes: 96 of those that
it was trained on, and at 256 pixels 32 others.
"""

import functools
import json
import math
import pathlib

import numpy as np

from cvsa_jax.calibration import Calibration
from cvsa_jax.spectral import Spectrum


@functools.cache
def _table() -> dict[int, dict]:
    return {int(size): row for size, row in json.loads(pathlib.Path(__file__).with_suffix(".json").read_text()).items()}


def statistics(size: int, channels: int) -> tuple[Calibration, Spectrum]:
    """The denoising error and the spectrum of photographs of the nearest side that the table has.

    Args:
      size: side in pixels. channels: 3 of colour, 1 of grey. Grey is light, whose coefficients are sqrt(3) those
        of grey itself.

    Raises:
      ValueError: on other channels.
    """
    if channels not in (1, 3):
        raise ValueError(f"photographs have 3 channels or 1, not {channels}")
    row = _table()[min(_table(), key=lambda known: abs(math.log(known / size)))]
    variance, power = tuple(map(tuple, row["variance"])), tuple(row["mean_power"])
    if channels == 1:
        variance, power = (tuple(v / 3 for v in variance[0]),), (power[0] / 3,)
    curve = Calibration(np.array(row["noise"], np.float32), np.array(row["error"], np.float32))
    return curve, Spectrum(variance, power)
