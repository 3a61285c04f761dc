"""Tomography: sums along parallel rays from a few directions."""

import dataclasses
import math

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.task import Task, scaled
from cvsa_jax.settings import Settings, setting

MOST_NOISE = 4.0  # in a reading


@flax.struct.dataclass
class Radon(Operator):
    """H(x)[s, a] = n^-1/2 sum over r of x at s (cos a, -sin a) + r (sin a, cos a) (right, down), n the longer side.

    (D, A, C) of an image (H, W, C): D = ceil(sqrt(2) n) detectors, A angles, steps s and r of one pixel about the
    pixel (H // 2, W // 2); between pixels x is bilinear, outside zero. n^1/2 H(x) is `skimage.transform.radon`
    of each channel with circle=False. The factor makes a view nearly an isometry, as F is of `SubsampledFourier`:
    noise of .05 in a reading counts as much as in a pixel; the mean along a ray is n^-1/2 of the reading.

    Images are in [-1, 1] and air is -1, but H is linear: of a scanner's ray sums z of densities in [0, 1] the
    measurement is y = 2 n^-1/2 z - H(1).

    Args:
      directions: (A, 2), cos a and sin a.
    """

    directions: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        height, width, channels = x.shape
        count = detectors(height, width)
        first, last = -(count // 2), count - 1 - count // 2
        down, right = jnp.meshgrid(jnp.arange(height) - height // 2, jnp.arange(width) - width // 2, indexing="ij")
        pixels = x.reshape(-1, channels)

        def view(direction):
            """A pixel reaches at most three rays, on each of which it is between at most three steps."""
            cos, sin = direction.astype(x.dtype)
            s, r = (cos * right - sin * down).ravel(), (sin * right + cos * down).ravel()
            ray, step = (jnp.ceil(n - jnp.abs(cos) - jnp.abs(sin)) for n in (s, r))
            total = jnp.zeros((count + 2, channels), x.dtype)
            for i in range(3):
                weight = jnp.zeros_like(s)
                for j in range(3):
                    away, along = ray + i - s, step + j - r
                    product = tent(cos * away + sin * along) * tent(cos * along - sin * away)
                    weight += jnp.where((step + j >= first) & (step + j <= last), product, 0.0)
                place = jnp.clip(ray + i - first + 1, 0, count + 1).astype(jnp.int32)  # what is beyond is cut off
                total = total.at[place].add(weight[:, None] * pixels)
            return total[1:-1]

        views = jax.lax.map(view, self.directions)
        return jnp.moveaxis(views, 0, 1) / max(height, width) ** 0.5


def tent(distance: jax.Array) -> jax.Array:
    """The weight of a pixel at that distance under linear interpolation."""
    return jnp.maximum(1 - jnp.abs(distance), 0.0)


def detectors(height: int, width: int) -> int:
    """Readings of a view: the diagonal of the square about the image."""
    return math.ceil(2**0.5 * max(height, width))


def radon(angles: np.ndarray) -> Radon:
    """The operator of angles (A,) in degrees, as scikit-image counts them.

    Raises:
      ValueError: if there are none.
    """
    turn = np.radians(np.asarray(angles, np.float64))
    if turn.ndim != 1 or not len(turn):
        raise ValueError(f"angles must be a list of at least one number, got the shape {turn.shape}")
    return Radon(jnp.asarray(np.stack([np.cos(turn), np.sin(turn)], -1), jnp.result_type(float)))


@dataclasses.dataclass(frozen=True)
class RadonSettings(Settings):
    """Tomography."""

    num_angles: int | None = setting(
        None, "Views, evenly spaced.", low=1, otherwise="15 of a side of 64 pixels, 60 of 256"
    )
    angle_range: float = setting(180.0, "The views lie from 0 to this.", "degrees", above=0, high=180)


def _views(generator, height, width, settings: RadonSettings) -> Radon:
    count = settings.num_angles or max(1, round(scaled(60, max(height, width))))
    return radon(np.arange(count) * settings.angle_range / count)


def _square(measured: tuple[int, int], settings: RadonSettings) -> tuple[int, int]:
    """The square image whose views have so many readings."""
    side = max(1, math.floor(measured[0] / 2**0.5))
    return side, side


def _sinogram(array: np.ndarray, settings: RadonSettings) -> np.ndarray:
    """A measurement as it is; raises ValueError if a ray sums to more than one of an image in [-1, 1] and much noise.

    No ray is longer than the diagonal, sqrt(2) n of n pixels, and the sums are divided by sqrt(n).
    """
    side, _ = _square(array.shape[:2], settings)
    longest, found = (2 * side) ** 0.5, float(np.nan_to_num(np.abs(array), posinf=0.0).max())
    if found > longest + MOST_NOISE:
        raise ValueError(
            f"it has sums up to {found:.3g}, but those of an image in [-1, 1], divided by the root of its side, are at "
            f"most {longest:.3g}"
        )
    return array


TASKS = (
    Task(
        "ct", "sums along rays from a few directions", _views, (Radon,), RadonSettings,
        image_shape=_square, picture=False, reads=_sinogram,
    ),
)  # fmt: skip
