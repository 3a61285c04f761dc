"""What cameras and files do to each pixel or block: clipping, and quantisation as in JPEG."""

import dataclasses
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.task import Task
from cvsa_jax.settings import Settings, setting
from cvsa_jax.spectral import cosine_matrix

BLOCK = 8
STAIRCASE = 0.9
GRAM_ITERATIONS = 8  # more change no figure, at noise .05 and .01


@flax.struct.dataclass
class Clip(Operator):
    """H(x) = clip(gain x, -1, 1): the sensor's range is smaller than the scene's.

    Args:
      gain: > 1 loses what is bright or dark.
    """

    gain: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        return jnp.clip(self.gain * x, -1.0, 1.0)

    def expected(self, x: jax.Array, std: jax.Array) -> jax.Array:
        """E[H(x + std e)], e ~ N(0, I), in closed form.

        With z = gain x, s = gain std, a = (-1 - z)/s and b = (1 - z)/s it is
        1 - Phi(b) - Phi(a) + z (Phi(b) - Phi(a)) + s (phi(a) - phi(b)).
        """
        z, s = self.gain * x, jnp.maximum(self.gain * std, 1e-4)
        a, b = (-1 - z) / s, (1 - z) / s
        below, upto = jax.scipy.stats.norm.cdf(a), jax.scipy.stats.norm.cdf(b)
        edges = jax.scipy.stats.norm.pdf(a) - jax.scipy.stats.norm.pdf(b)
        return 1 - upto - below + z * (upto - below) + s * edges


# The example tables of the JPEG standard (ITU-T T.81, annex K), which files of quality 50 use.
_LIGHT = np.array([
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51,
    87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101,
    72, 92, 95, 98, 112, 100, 103, 99,
]).reshape(8, 8)  # fmt: skip
_COLOUR = np.full((8, 8), 99)
_COLOUR[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# Rec. 601: light, blue and red differences.
_TO_YCC = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


@flax.struct.dataclass
class Quantised(Operator):
    """H(x) = T' q s(T x / q): the cosine coefficients of 8x8 blocks, rounded to steps q, as in JPEG.

    T also changes RGB to light and colour differences. `measure` rounds; H itself, which guidance
    differentiates, has the smooth staircase s(u) = u - STAIRCASE sin(2 pi u) / (2 pi). Chroma is
    not reduced in size.

    Args:
      light, colour: steps of the coefficients, (8, 8), for pixels of 0 to 255.
    """

    light: jax.Array
    colour: jax.Array

    @property
    def gram_iterations(self) -> int:
        return GRAM_ITERATIONS

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.expected(x, jnp.zeros(()))

    def expected(self, x: jax.Array, std: jax.Array) -> jax.Array:
        """E[H(x + std e)], e ~ N(0, I): s(u) = u - STAIRCASE exp(-2 pi^2 v^2) sin(2 pi u) / (2 pi).

        v is the deviation of u. Where it is more than a step, H is linear in effect.
        """

        def smooth(u, relative):
            height = STAIRCASE / (2 * np.pi) * jnp.exp(-2 * np.pi**2 * (relative * std) ** 2)
            return u - height * jnp.sin(2 * np.pi * u)

        return self._through(x, smooth)

    def measure(self, x: jax.Array) -> jax.Array:
        """What a file would hold: the coefficients rounded."""
        return self._through(x, lambda u, _: jnp.round(u))

    def _through(self, x: jax.Array, rounding: Callable) -> jax.Array:
        """T' q rounding(T x / q, deviation of T x / q for white x of deviation one)."""
        height, width, channels = x.shape
        highest = jax.lax.Precision.HIGHEST
        change = jnp.asarray(_TO_YCC if channels == 3 else np.eye(channels), x.dtype)
        back = jnp.asarray(np.linalg.inv(_TO_YCC) if channels == 3 else np.eye(channels), x.dtype)
        steps = jnp.stack([self.light] + [self.colour] * (channels - 1), -1).astype(x.dtype) / 127.5
        basis = jnp.asarray(cosine_matrix(BLOCK), x.dtype)
        x = jnp.pad(x, ((0, -height % BLOCK), (0, -width % BLOCK), (0, 0)), mode="edge")
        blocks = x.reshape(x.shape[0] // BLOCK, BLOCK, x.shape[1] // BLOCK, BLOCK, channels)
        z = jnp.einsum("iu,dc,aubvc,jv->aibjd", basis, change, blocks, basis, precision=highest)
        steps = steps[:, None]
        z = rounding(z / steps, jnp.sqrt(jnp.sum(change**2, -1)) / steps) * steps
        out = jnp.einsum("iu,dc,aibjc,jv->aubvd", basis, back, z, basis, precision=highest)
        return out.reshape(x.shape)[:height, :width]


def quantised(quality: int) -> Quantised:
    """The steps of a JPEG file of that quality, 1 (coarse) to 100.

    Raises:
      ValueError: if it is out of range.
    """
    if not 1 <= quality <= 100:
        raise ValueError(f"the JPEG quality must be in 1 to 100, got {quality}")
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = [np.clip((table * scale + 50) // 100, 1, 255) for table in (_LIGHT, _COLOUR)]
    return Quantised(*(jnp.asarray(t, jnp.result_type(float)) for t in tables))


@dataclasses.dataclass(frozen=True)
class ClipSettings(Settings):
    """A clipped range."""

    hdr_gain: float = setting(2.0, "By which the image's range exceeds the sensor's.", low=1)


@dataclasses.dataclass(frozen=True)
class QualitySettings(Settings):
    """A compressed file."""

    jpeg_quality: int = setting(10, "Quality of the file, 1 coarse to 100.", low=1, high=100)


def _clip(generator, height, width, settings: ClipSettings) -> Clip:
    return Clip(jnp.asarray(settings.hdr_gain, jnp.result_type(float)))


def _quantise(generator, height, width, settings: QualitySettings) -> Quantised:
    return quantised(settings.jpeg_quality)


# Where a range is cut off, drawing afresh loses what the chain has found out about it.
_CLIPPED = {"sampler": "ancestral", "num_steps": 25, "num_samples": 4, "data_weight": 1.0}
TASKS = (
    Task("hdr", "a clipped range", _clip, (Clip,), ClipSettings, linear=False, accuracy=_CLIPPED),
    Task(
        "jpeg", "quantisation as in a JPEG file", _quantise, (Quantised,), QualitySettings, linear=False,
        accuracy=_CLIPPED,
    ),
)  # fmt: skip
