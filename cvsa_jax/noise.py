"""Noise models: how a measurement scatters about H(x), and what guidance must know of it."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cvsa_jax.settings import Settings, check_value, fields, setting


class GaussianNoise(NamedTuple):
    """y = H(x) + std n, n ~ N(0, I). std: a number, one for each entry of y, or a tree of them as y is one."""

    std: Any

    def check(self) -> None:
        """Raises ValueError unless the deviation is positive; one that is not known yet passes."""
        _check(GaussianSettings, self.std, "; the rounding to 8 bits alone is .0023")

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
        _check(PoissonSettings, self.rate)

    def sample(self, key: jax.Array, clean: jax.Array) -> jax.Array:
        """A measurement of H(x) = clean."""
        mean = self.rate * jnp.maximum((clean + 1) / 2, 0.0)
        return (2 * jax.random.poisson(key, mean) / self.rate - 1).astype(clean.dtype)

    def variance(self, predicted: jax.Array) -> jax.Array:
        """Of y where H(x) = predicted, of its shape: 4 m / rate^2."""
        mean = jnp.maximum(self.rate * (predicted + 1) / 2, 0.5)
        return 4 * mean / self.rate**2


NoiseModel = GaussianNoise | PoissonNoise


@dataclasses.dataclass(frozen=True)
class GaussianSettings(Settings):
    """Gaussian noise.

    Args:
      noise_std: its standard deviation, > 0.
    """

    noise_std: float = setting(0.05, "The standard deviation of the noise.", unit="for images in [-1, 1]", above=0)

    def model(self) -> GaussianNoise:
        """The noise."""
        return GaussianNoise(self.noise_std)


@dataclasses.dataclass(frozen=True)
class PoissonSettings(Settings):
    """Photons.

    Args:
      photons: counted at a white pixel, > 0.
    """

    photons: float = setting(200.0, "The photons that a white pixel counts.", above=0)

    def model(self) -> PoissonNoise:
        """The noise."""
        return PoissonNoise(self.photons)


NOISES: dict[str, type[GaussianSettings] | type[PoissonSettings]] = {
    "gaussian": GaussianSettings,
    "poisson": PoissonSettings,
}


def _check(owner: type, value, remark: str = "") -> None:
    try:
        for leaf in jax.tree.leaves(value):
            check_value(fields(owner)[0], leaf)
    except ValueError as error:
        raise ValueError(f"{error}{remark}") from None


def as_noise(noise: float | NoiseModel) -> NoiseModel:
    """A number is the deviation of Gaussian noise."""
    return noise if isinstance(noise, GaussianNoise | PoissonNoise) else GaussianNoise(noise)
