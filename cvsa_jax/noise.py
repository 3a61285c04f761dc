"""Noise models: how a measurement scatters about H(x), and what guidance must know of it."""

import dataclasses
from typing import Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp

from cvsa_jax.diffusion import SMALLEST_NOISE
from cvsa_jax.settings import Settings, check_value, fields, setting

AUTO = "auto"
LARGEST_STD = 2.0  # the whole range of an image in [-1, 1]
UNSEEN_STD = 1e9  # as good as masked; float32 holds its square, times what an image measures
MOST_PHOTONS = 1e9  # int32 counts them, and twice as many


class NoiseModel(Protocol):
    """What the package asks of noise; a model of your own is a pytree with these, and goes where `noise_std` does.

    Every method is of one image's measurement, an array or (`sample`, `variance`) one real part of it.
    """

    @property
    def fixed(self) -> bool:
        """Whether the variance is the same for every x."""
        ...

    def check(self) -> None:
        """Raises ValueError on a value out of range; one that is not known yet (traced) passes."""
        ...

    def sample(self, key: jax.Array, clean: jax.Array, /) -> jax.Array:
        """A measurement of H(x) = clean."""
        ...

    def variance(self, predicted: jax.Array, /) -> jax.Array | float:
        """Of y where H(x) = predicted: a number, or one for each entry of y; > 0."""
        ...

    def log_likelihood(self, measurement: jax.Array, predicted: jax.Array, /) -> jax.Array | None:
        """log p(y | H(x) = predicted), up to a number that all x share; None where it is not known."""
        ...


class GaussianNoise(NamedTuple):
    """y = H(x) + std n, n ~ N(0, I).

    std: > 0; a number, an array with one for each entry of y (or that broadcasts to it), or a tree of them as y is
    one. An entry counts by 1 / std^2: one of a huge deviation is as good as masked. Guidance and the baselines cut std
    to 1e-15 ... 1e9, SMALLEST_NOISE and UNSEEN_STD, whose squares float32 holds.
    """

    std: Any

    @property
    def bounded(self) -> jax.Array:
        """The deviation of one array, from SMALLEST_NOISE to UNSEEN_STD."""
        return jnp.clip(jnp.asarray(self.std, jnp.result_type(float)), SMALLEST_NOISE, UNSEEN_STD)

    @property
    def fixed(self) -> bool:
        """The same for every x."""
        return True

    def check(self) -> None:
        """Raises ValueError unless the deviation is positive; one that is not known yet passes."""
        _check(GaussianSettings, self.std, "; the rounding to 8 bits alone is .0023")

    def sample(self, key: jax.Array, clean: jax.Array) -> jax.Array:
        """A measurement of H(x) = clean."""
        return clean + self.std * jax.random.normal(key, clean.shape, clean.dtype)

    def variance(self, predicted: jax.Array) -> jax.Array:
        """Of y where H(x) = predicted."""
        return self.bounded**2

    def log_likelihood(self, measurement: jax.Array, predicted: jax.Array) -> jax.Array:
        """-|(y - H(x)) / std|^2 / 2."""
        return -jnp.sum(((measurement - predicted) / self.bounded) ** 2) / 2


class PoissonNoise(NamedTuple):
    """(y + 1)/2 = N / rate, N ~ Poisson(rate (H(x) + 1)/2): photons, `rate` of them at white.

    With m = rate (H(x_0hat) + 1)/2 the gradient of log p(y | x_0hat) is J' (y - H)/variance, and
    1/variance its Fisher information, so that guidance by this variance is Fisher scoring of the
    Poisson likelihood itself. m is taken to be at least half a photon, and rate at least 1e-9.
    It is at most MOST_PHOTONS; counts whose mean is more than twice that are drawn as NaN.
    """

    rate: float

    @property
    def fixed(self) -> bool:
        """It grows with the light."""
        return False

    def check(self) -> None:
        """Raises ValueError unless the rate is positive; one that is not known yet passes."""
        _check(PoissonSettings, self.rate)

    def sample(self, key: jax.Array, clean: jax.Array) -> jax.Array:
        """A measurement of H(x) = clean."""
        mean = self.rate * jnp.maximum((clean + 1) / 2, 0.0)
        counts = jax.random.poisson(key, mean).astype(clean.dtype)
        return jnp.where(mean <= 2 * MOST_PHOTONS, 2 * counts / self.rate - 1, jnp.nan).astype(clean.dtype)

    def variance(self, predicted: jax.Array) -> jax.Array:
        """Of y where H(x) = predicted, of its shape: 4 m / rate^2."""
        rate = jnp.maximum(self.rate, 1 / UNSEEN_STD)
        mean = jnp.maximum(rate * (predicted + 1) / 2, 0.5)
        return 4 * mean / rate**2

    def log_likelihood(self, measurement: jax.Array, predicted: jax.Array) -> jax.Array:
        """sum of N log m - m, m at least a millionth of a photon."""
        count, mean = (self.rate * (a + 1) / 2 for a in (measurement, predicted))
        mean = jnp.maximum(mean, 1e-6)
        return jnp.sum(count * jnp.log(mean) - mean)


class PoissonGaussianNoise(NamedTuple):
    """Photons and a sensor's own noise: y = P + std n with P as of `PoissonNoise`, n ~ N(0, I), std of `GaussianNoise`.

    The variance is 4 m / rate^2 + std^2, a line in the light: what photographers call the noise curve of a sensor.
    p(y | x) itself is a sum over all counts of photons, which is not computed here.

    References: Foi, Trimeche, Katkovnik, Egiazarian (2008), Practical Poissonian-Gaussian noise modeling and
    fitting for single-image raw-data, IEEE Transactions on Image Processing 17(10).
    """

    rate: float
    std: float

    @property
    def fixed(self) -> bool:
        """It grows with the light."""
        return False

    def check(self) -> None:
        """Raises ValueError unless rate and deviation are positive; what is not known yet passes."""
        PoissonNoise(self.rate).check()
        GaussianNoise(self.std).check()

    def sample(self, key: jax.Array, clean: jax.Array) -> jax.Array:
        """A measurement of H(x) = clean."""
        photons_key, sensor_key = jax.random.split(key)
        return GaussianNoise(self.std).sample(sensor_key, PoissonNoise(self.rate).sample(photons_key, clean))

    def variance(self, predicted: jax.Array) -> jax.Array:
        """Of y where H(x) = predicted, of its shape; m is at least zero."""
        return 2 * jnp.maximum(predicted + 1, 0.0) / self.rate + GaussianNoise(self.std).variance(predicted)

    def log_likelihood(self, measurement: jax.Array, predicted: jax.Array) -> None:
        """Not known."""


@dataclasses.dataclass(frozen=True)
class GaussianSettings(Settings):
    """Gaussian noise.

    Args:
      noise_std: its standard deviation, in (0, 2]; or 'auto', to be estimated from each measurement.

    Raises:
      ValueError: if it is no such number. It says how noise on the scale of 0 to 255 is given.
    """

    noise_std: float | str = setting(
        0.05, "The standard deviation of the noise: 25 on the scale of 0 to 255 is 2*25/255 = .196. With --measured "
        "auto is the default, which estimates it from each measurement.", unit="for images in [-1, 1]", above=0,
        words=(AUTO,),
    )  # fmt: skip

    def __post_init__(self):
        super().__post_init__()
        std = self.noise_std
        if not isinstance(std, str) and std > LARGEST_STD:
            raise ValueError(
                f"noise_std={std:g} is more than the range of images in [-1, 1]: noise of {std:g} on the scale of 0 to "
                f"255 is 2 * {std:g} / 255 = {2 * std / 255:.3g}"
            )

    @property
    def estimated(self) -> bool:
        """Whether the deviation is to be estimated."""
        return self.noise_std == AUTO

    def model(self) -> GaussianNoise:
        """The noise; where it is to be estimated, one of the usual deviation, which each estimate replaces."""
        return GaussianNoise(GaussianSettings.noise_std if self.noise_std == AUTO else self.noise_std)


@dataclasses.dataclass(frozen=True)
class PoissonSettings(Settings):
    """Photons.

    Args:
      photons: counted at a white pixel, > 0 and at most MOST_PHOTONS.
    """

    photons: float = setting(200.0, "The photons that a white pixel counts.", above=0, high=MOST_PHOTONS)

    @property
    def estimated(self) -> bool:
        """Nothing is."""
        return False

    def model(self) -> PoissonNoise:
        """The noise."""
        return PoissonNoise(self.photons)


@dataclasses.dataclass(frozen=True)
class PoissonGaussianSettings(GaussianSettings, PoissonSettings):
    """Photons, and a sensor's own noise of the deviation noise_std.

    Raises:
      ValueError: as of `GaussianSettings`, and if noise_std is 'auto': a sum of two is not told apart.
    """

    def __post_init__(self):
        super().__post_init__()
        if self.estimated:
            raise ValueError("noise_std=auto knows Gaussian noise alone: with --noise=poisson_gaussian give a number")

    def model(self) -> PoissonGaussianNoise:
        """The noise."""
        return PoissonGaussianNoise(self.photons, cast(float, self.noise_std))


NOISES: dict[str, type[GaussianSettings] | type[PoissonSettings]] = {
    "gaussian": GaussianSettings,
    "poisson": PoissonSettings,
    "poisson_gaussian": PoissonGaussianSettings,
}


def _check(owner: type, value, remark: str = "") -> None:
    field = fields(owner)[0]
    try:
        for leaf in jax.tree.leaves(value):
            check_value(field._replace(setting=field.setting._replace(words=())), leaf)
    except ValueError as error:
        raise ValueError(f"{error}{remark}") from None


def as_noise(noise: Any) -> NoiseModel:
    """A noise model as it is; a number, an array or a tree of them is the deviation of Gaussian noise."""
    return noise if hasattr(noise, "log_likelihood") else GaussianNoise(noise)
