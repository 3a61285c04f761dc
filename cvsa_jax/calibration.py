"""How far off a denoiser is at each noise level: measured, or that of a white Gaussian."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def white_error(noise: jax.Array) -> jax.Array:
    """s^2 / (1 + 4 s^2): the error of a white Gaussian of deviation 1/2; float32 need not hold s^2."""
    return 1 / (4 + (1 / jnp.asarray(noise)) ** 2)


class Calibration(NamedTuple):
    """The prior's own mean squared denoising error (per pixel) at each noise level."""

    noise: jax.Array | np.ndarray
    error: jax.Array | np.ndarray

    def ratio(self, noise: jax.Array) -> jax.Array:
        """The error at a noise level over `white_error`, interpolated in the logarithms."""
        knots = jnp.asarray(self.noise)
        ratio = jnp.asarray(self.error) * (4 + (1 / knots) ** 2)
        return jnp.exp(jnp.interp(jnp.log(noise), jnp.log(knots), jnp.log(ratio)))

    def check(self) -> None:
        """Raises ValueError unless all are positive and the noise increases; what is not known yet passes."""
        if any(isinstance(a, Tracer) for a in self):
            return
        noise, error = (np.asarray(a, np.float64) for a in self)
        sound = noise.ndim > 0 and noise.shape == error.shape and (np.diff(noise) > 0).all()
        if not (sound and all(((a > 0) & np.isfinite(a)).all() for a in (noise, error))):
            raise ValueError("a calibration has increasing noise levels and an error above zero at each")


def checked(calibration: Calibration | None) -> Calibration | None:
    """The same; raises as its `check`."""
    if calibration is not None:
        calibration.check()
    return calibration
