"""Noise models: how a measurement scatters about H(x), and what guidance must know of it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class GaussianNoise(NamedTuple):
    """y = H(x) + std n, n ~ N(0, I)."""

    std: float

    def check(self) -> None:
        """Raises ValueError unless the deviation is positive; one that is not known yet passes."""
        require_positive("noise_std", self.std, "; the rounding to 8 bits alone is .0023")

    def sample(self, key: jax.Array, clean: jax.Array) -> jax.Array:
        """A measurement of H(x) = clean."""
        return clean + self.std * jax.random.normal(key, clean.shape, clean.dtype)

    def variance(self, predicted: jax.Array) -> jax.Array | float:
        """Of y where H(x) = predicted."""
        return self.std**2


class PoissonNoise(NamedTuple):
    """(y + 1)/2 = N / rate, N ~ Poisson(rate (H(x) + 1)/2): photons, `rate` of them at white.

    With m = rate (H(x_0hat) + 1)/2 the gradient of log p(y | x_0hat) is J' (y - H)/variance, and
    1/variance its Fisher information, so that guidance by this variance is Fisher scoring of the
    Poisson likelihood itself. m is taken to be at least half a photon.
    """

    rate: float

    def check(self) -> None:
        """Raises ValueError unless the rate is positive; one that is not known yet passes."""
        require_positive("the rate of Poisson noise", self.rate)

    def sample(self, key: jax.Array, clean: jax.Array) -> jax.Array:
        """A measurement of H(x) = clean."""
        mean = self.rate * jnp.maximum((clean + 1) / 2, 0.0)
        return (2 * jax.random.poisson(key, mean) / self.rate - 1).astype(clean.dtype)

    def variance(self, predicted: jax.Array) -> jax.Array:
        """Of y where H(x) = predicted, of its shape: 4 m / rate^2."""
        mean = jnp.maximum(self.rate * (predicted + 1) / 2, 0.5)
        return 4 * mean / self.rate**2


def require_positive(name: str, value, remark: str = "") -> None:
    """Raises ValueError unless a number is positive and finite; one that is not known yet, as under jit, passes."""
    if not isinstance(value, jax.core.Tracer) and not np.all((np.asarray(value) > 0) & np.isfinite(value)):
        raise ValueError(f"{name} must be positive and finite, got {value}{remark}")


NoiseModel = GaussianNoise | PoissonNoise


def as_noise(noise: float | NoiseModel) -> NoiseModel:
    """A number is the deviation of Gaussian noise."""
    return noise if isinstance(noise, GaussianNoise | PoissonNoise) else GaussianNoise(noise)
