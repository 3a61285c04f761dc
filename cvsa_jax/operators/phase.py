"""Phase retrieval: only the magnitude of the Fourier transform is measured."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.magnitude_files import PhaseSettings, padding, to_magnitudes, unpadded
from cvsa_jax.operators.task import Task
from cvsa_jax.transforms import whole

SMOOTHING = 1e-3
FEEDBACK, SLACK = 0.9, 0.05
ERROR_STEPS = 10
NUM_ITERATIONS = 600
PROJECTION_STEPS = 31


@flax.struct.dataclass
class FourierMagnitude(Operator):
    """H(x) = |F P x|, P zero padding, F the centred orthonormal transform of each channel.

    The image, the image turned by 180 degrees and their negatives have the same measurement,
    channel by channel; `trivial_ambiguities` lists them. |z| is sqrt(|z|^2 + SMOOTHING^2), so
    that the gradient exists everywhere.

    Args:
      rows, columns: zeros added on either side. An image's height over four is the oversampling
        of the DPS paper, 64 of 256.
    """

    rows: int = flax.struct.field(pytree_node=False)
    columns: int = flax.struct.field(pytree_node=False)

    def pad(self, x: jax.Array) -> jax.Array:
        """P x, (H + 2 rows, W + 2 columns, C)."""
        return jnp.pad(x, ((self.rows, self.rows), (self.columns, self.columns), (0, 0)))

    def crop(self, padded: jax.Array) -> jax.Array:
        """P' of a padded image."""
        height, width = padded.shape[:2]
        return padded[self.rows : height - self.rows, self.columns : width - self.columns]

    def __call__(self, x: jax.Array) -> jax.Array:
        z = jnp.fft.fftshift(_transform(self.pad(x)), (0, 1))
        return jnp.sqrt(z.real**2 + z.imag**2 + SMOOTHING**2)

    def project(self, x: jax.Array, measurement: jax.Array) -> jax.Array:
        """Near x, an image whose magnitudes are near y: PROJECTION_STEPS of x <- clip(P' F^-1(y z/|z|)), z = F P x.

        The last one is not clipped. Each is the nearest image to all of the magnitudes at once with the
        phases of the last, so that |y - |F P x|| never grows.

        References: Gerchberg and Saxton (1972); Fienup (1982), error reduction.
        """
        magnitude = _magnitude(measurement)
        nearest = lambda x: self.crop(_with_magnitude(self.pad(x), magnitude))  # noqa: E731
        x = jax.lax.fori_loop(0, PROJECTION_STEPS - 1, lambda _, x: jnp.clip(nearest(x), -1.0, 1.0), x)
        return nearest(x)

    def first_guess(self, measurement: jax.Array, key: jax.Array) -> jax.Array:
        """An image (H, W, C) whose magnitudes are near y, by `hybrid_input_output` from a random beginning.

        Every channel is turned, or negated, so that it goes best with the first one, as channels of
        photographs do.
        """
        shape = jax.eval_shape(self.crop, measurement).shape
        start = self.pad(0.3 * jax.random.normal(key, shape))
        image = self.crop(hybrid_input_output(self, measurement, start, NUM_ITERATIONS))
        centred = image - image.mean((0, 1))
        straight, turned = (jnp.sum(centred[..., :1] * c, (0, 1)) for c in (centred, centred[::-1, ::-1]))
        turn = jnp.abs(turned) > jnp.abs(straight)
        image = jnp.where(turn, image[::-1, ::-1], image)
        return jnp.where(jnp.where(turn, turned, straight) < 0, -image, image)


def _transform(padded: jax.Array) -> jax.Array:
    """The orthonormal transform of each channel, frequency zero first."""
    return whole(lambda x: jnp.fft.fft2(x, axes=(0, 1), norm="ortho"), padded)


def _magnitude(measurement: jax.Array) -> jax.Array:
    """y as magnitudes in the order of `_transform`; noise may have made it negative."""
    return jnp.fft.ifftshift(jnp.maximum(measurement, 0.0), (0, 1))


def _with_magnitude(padded: jax.Array, magnitude: jax.Array) -> jax.Array:
    """The real part of F^-1(magnitude z/|z|), z = F padded."""
    z = _transform(padded)
    square = z.real**2 + z.imag**2
    length = jnp.sqrt(jnp.where(square > 0, square, 1.0))  # of z = 0 any, so that the gradient is finite
    return whole(lambda z: jnp.fft.ifft2(z, axes=(0, 1), norm="ortho"), magnitude * z / length).real


def hybrid_input_output(
    operator: FourierMagnitude, measurement: jax.Array, start: jax.Array, num_iterations: int
) -> jax.Array:
    """Fienup's iteration for an image in [-1, 1] of known support; (H, W, C), padded (H', W', C).

    p = F^-1(y z/|z|), z = F x; where p is inside the support and the range x <- p, elsewhere
    x <- x - FEEDBACK (p - clip(p)). The last ERROR_STEPS, x <- clip(p), settle it.

    Args:
      operator: H. measurement: y. start: padded, where the iteration begins.

    Returns: the padded image.

    References: Fienup (1982), Phase retrieval algorithms: a comparison, Applied Optics 21(15).
    """
    inside = operator.pad(jnp.ones_like(operator.crop(start), bool))
    magnitude = _magnitude(measurement)

    def step(i, x):
        p = _with_magnitude(x, magnitude)
        allowed = jnp.where(inside, jnp.clip(p, -1.0, 1.0), 0.0)
        feedback = jnp.where(inside & (jnp.abs(p) < 1 + SLACK), p, x - FEEDBACK * (p - allowed))
        return jnp.where(i >= num_iterations - ERROR_STEPS, allowed, feedback)

    return jax.lax.fori_loop(0, num_iterations, step, start)


def trivial_ambiguities(image: np.ndarray) -> list[np.ndarray]:
    """The image, turned by 180 degrees, and the negatives of both; (H, W, C) in [-1, 1]."""
    return [sign * seen for sign in (1, -1) for seen in (image, image[::-1, ::-1])]


def aligned(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The image with, for each channel, the trivial ambiguity and whole-pixel shift nearest the truth.

    Shifts of up to an eighth of a side, the border repeated; (H, W, C) in [-1, 1].
    """
    out = np.empty_like(image)
    for c in range(image.shape[-1]):
        channel, target = image[..., c : c + 1], truth[..., c : c + 1]
        found = [shifted(candidate, target) for candidate in trivial_ambiguities(channel)]
        out[..., c : c + 1] = min(found, key=lambda a: float(np.mean((a - target) ** 2)))
    return out


def shifted(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The image (H, W, C) moved by the whole-pixel shift that brings it nearest the truth, channels together.

    Shifts of up to an eighth of a side, the border repeated.
    """
    limits = [max(1, n // 8) for n in image.shape[:2]]
    rows, columns = (np.arange(-m, m + 1) for m in limits)
    candidates = (_moved(image, int(down), int(right)) for down in rows for right in columns)
    return min(candidates, key=lambda a: float(np.mean((a - truth) ** 2)))


def _moved(image: np.ndarray, down: int, right: int) -> np.ndarray:
    height, width = image.shape[:2]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    return image[rows][:, np.clip(np.arange(width) - right, 0, width - 1)]


def _magnitudes(generator, height, width, settings: PhaseSettings) -> FourierMagnitude:
    return FourierMagnitude(padding(height, settings.oversampling), padding(width, settings.oversampling))


# Guidance along a derivative cannot find lost phases. Projections can, round means that are drawn afresh
# at each noise from 2 to .05; of sixteen starts a few get there, and the residual tells which.
_PROJECTED = {
    "guidance": "projection", "num_steps": 60, "num_samples": 16, "combine": "residual", "start": "guess",
    "t_start": 0.2749, "t_end": 0.0234, "data_weight": 1.0,
}  # fmt: skip
TASKS = (
    Task(
        "phase_retrieval", "magnitudes of the Fourier transform", _magnitudes, (FourierMagnitude,), PhaseSettings,
        image_shape=lambda shape, settings: (
            unpadded(shape[0], settings.oversampling), unpadded(shape[1], settings.oversampling)
        ),
        linear=False, picture=False, ambiguous=True, accuracy=_PROJECTED, posterior=None, reads=to_magnitudes,
    ),
)  # fmt: skip
