"""Magnetic resonance: some lines of the Fourier transform are measured."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.task import Task
from cvsa_jax.settings import Settings, setting
from cvsa_jax.transforms import whole

RANDOM, EQUISPACED = "random", "equispaced"
PATTERNS = (RANDOM, EQUISPACED)
MOST_POWER = 4.0  # of an entry: 1 at most of the image, the rest of noise


@flax.struct.dataclass
class SubsampledFourier(Operator):
    """H(x) = M F x, complex, of the image's shape: F the centred orthonormal transform of each channel, M a mask.

    Frequency zero is at (H // 2, W // 2) and pixel zero in the image's middle, as in fastMRI's k-space. The image is
    real: its frequencies k and -k are conjugate, and where both are measured they say the same twice.

    Images are in [-1, 1] and air is -1, but H is linear: of a scanner's k-space z of an image in [0, 1] the
    measurement is y = 2 z - M F 1.

    Args:
      seen: 1 where the frequency is measured, 0 elsewhere; broadcasts to (H, W, 1): (1, W, 1) of whole columns.

    References: Zbontar et al. (2018), fastMRI, arXiv:1811.08839.
    """

    seen: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.seen * centred_transform(x)

    def restrict(self, y: jax.Array) -> jax.Array:
        return jnp.where(self.seen != 0, y, 0.0)

    def solve_gram(self, r: jax.Array, noise_variance, prior_variance) -> jax.Array:
        """H' y = Re(F* M y), so that H H' mixes y(k) with the conjugate of y(-k).

        Where k alone is measured it is 1/2. Where -k is too, it is 1 on the part of y that a real image can
        have, (y(k) + conj y(-k))/2, and 0 on the rest.
        """
        seen = jnp.broadcast_to(self.seen, (*r.shape[:2], 1))
        both = seen * opposite(seen)
        real_part = (r + opposite(r).conj()) / 2
        paired = real_part / (noise_variance + prior_variance) + (r - real_part) / noise_variance
        return both * paired + (1 - both) * r / (noise_variance + prior_variance * seen / 2)

    def zero_filled(self, y: jax.Array) -> jax.Array:
        """Re(F* y): the image (H, W, C) whose lost frequencies are zero."""
        shifted = jnp.fft.ifftshift(y, (0, 1))
        back = whole(lambda z: jnp.fft.ifft2(z, axes=(0, 1), norm="ortho"), shifted)
        return jnp.fft.fftshift(back, (0, 1)).real

    def picture(self) -> np.ndarray:
        """White is measured; a mask of lines as high as it is wide."""
        seen = np.asarray(self.seen)
        height, width = (max(seen.shape[:2]) if n == 1 else n for n in seen.shape[:2])
        return np.broadcast_to(2 * seen - 1, (height, width, 1))


def centred_transform(x: jax.Array) -> jax.Array:
    """F x of images (..., H, W, C), frequency zero and pixel zero in the middle."""
    sides = (-3, -2)
    transformed = whole(lambda x: jnp.fft.fft2(x, axes=sides, norm="ortho"), jnp.fft.ifftshift(x, sides))
    return jnp.fft.fftshift(transformed, sides)


def opposite(y: jax.Array) -> jax.Array:
    """y(-k) of y(k), (H, W, C), frequency zero in the middle."""
    turned = jnp.fft.ifftshift(y, (0, 1))[::-1, ::-1]
    return jnp.fft.fftshift(jnp.roll(turned, 1, (0, 1)), (0, 1))


def begins_at_zero(power: np.ndarray) -> bool:
    """Whether the frequency zero of an image's power (H, W, C) is the first entry rather than the middle one."""
    rows, columns = (slice(max(0, n // 2 - 1), n // 2 + 2) for n in power.shape[:2])
    middle, corner = (float(a[rows, columns].sum()) for a in (power, np.fft.fftshift(power, (0, 1))))
    return corner > 4 * middle


def cartesian_mask(
    generator: np.random.Generator, width: int, acceleration: float = 4.0, center_fraction: float = 0.08,
    pattern: str = RANDOM,
) -> np.ndarray:  # fmt: skip
    """(1, width, 1): which columns of the k-space are measured, round(width / acceleration) of them.

    The middle round(center_fraction width) are, and of the others as many as are left: at random, or evenly spaced
    with a random offset. Deviation: fastMRI's random masks have that number only on the average.

    Raises:
      ValueError: if the middle alone is more than that, or the pattern is unknown.

    References: Zbontar et al. (2018), fastMRI, arXiv:1811.08839, section 4.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"the pattern must be one of {', '.join(PATTERNS)}, got {pattern!r}")
    if acceleration < 1 or not 0 <= center_fraction <= 1:
        raise ValueError(f"acceleration must be at least 1 and the centre's share in [0, 1], got {acceleration} "
                         f"and {center_fraction}")  # fmt: skip
    total, middle = max(1, round(width / acceleration)), round(center_fraction * width)
    if middle > total:
        raise ValueError(f"a centre of {middle} of {width} lines is more than the {total} that acceleration "
                         f"{acceleration:g} leaves")  # fmt: skip
    seen = np.zeros(width, np.float32)
    first = width // 2 - middle // 2
    seen[first : first + middle] = 1
    others, count = np.flatnonzero(seen == 0), total - middle
    if pattern == RANDOM:
        seen[generator.permutation(others)[:count]] = 1
    elif count:
        spacing = len(others) / count
        seen[others[np.floor(spacing * (np.arange(count) + generator.random())).astype(int)]] = 1
    return seen[None, :, None]


@dataclasses.dataclass(frozen=True)
class FourierSettings(Settings):
    """Magnetic resonance."""

    acceleration: float = setting(4.0, "One of so many lines of the k-space is measured.", low=1)
    center_fraction: float = setting(0.08, "Share of the lines, in the middle, that are all measured.", low=0, high=1)
    pattern: str = setting(RANDOM, "How the other lines lie.", choices=PATTERNS)


def _lines(generator, height, width, settings: FourierSettings) -> SubsampledFourier:
    seen = cartesian_mask(generator, width, settings.acceleration, settings.center_fraction, settings.pattern)
    return SubsampledFourier(jnp.asarray(seen))


def _of_scanner(array: np.ndarray, settings: FourierSettings) -> np.ndarray:
    """A measurement as it is.

    Raises:
      ValueError: if it has more power than an image in [-1, 1] and much noise, or frequency zero is in the corner.
    """
    power = np.nan_to_num(np.abs(array) ** 2, posinf=0.0)
    if not power.mean((0, 1)).max() <= MOST_POWER:
        raise ValueError(
            f"the root mean square is {power.mean() ** 0.5:.3g}, but at most 1 of an image in [-1, 1]: divide, by "
            f"{(array.shape[0] * array.shape[1]) ** 0.5:.4g} if the transform was not orthonormal"
        )
    if begins_at_zero(power):
        raise ValueError("frequency zero is in the corner, but must be in the middle: take numpy.fft.fftshift")
    return array


TASKS = (
    Task(
        "mri", "some lines of the Fourier transform", _lines, (SubsampledFourier,), FourierSettings,
        drawn_by=("mask",), picture=False, reads=_of_scanner,
    ),
)  # fmt: skip
