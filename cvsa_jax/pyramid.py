"""A denoiser of larger images than it was trained on: the same denoiser at several resolutions.

The lowest (H/2) x (W/2) coefficients of the orthonormal cosine transform of x_0 + sigma e, divided by 2, are those of
an image of half the side with the noise sigma/2. There the denoiser sees twice as far. What it finds of the low
frequencies is blended with what it finds of them at the full size, by weights that were measured.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from cvsa_jax import spectral
from cvsa_jax.calibration import Calibration
from cvsa_jax.spectral import Spectrum
from cvsa_jax.types import Denoiser, as_partial

# Radial frequencies over the highest of the halved image; the weights lie between them on lines. Those of the
# halved image's last TAPER fall to zero, as what it has there is aliased and sharp edges in frequency ring.
FREQUENCIES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 0.7, 0.85, 1.0)
TAPER = 0.15


class Level(NamedTuple):
    """What was measured of a denoiser on images of twice the side of the level below.

    weights: (noises, FREQUENCIES), of the halved image's estimate, in [0, 1]. calibration: the error of the blend,
    whose noise levels are those of the weights too. spectrum: of images of that size.
    """

    weights: np.ndarray
    calibration: Calibration
    spectrum: Spectrum

    def checked(self) -> "Level":
        """The same.

        Raises:
          ValueError: unless there is a weight in [0, 1] for each noise and each of FREQUENCIES.
        """
        self.calibration.check()
        wanted = (len(self.calibration.noise), len(FREQUENCIES))
        if self.weights.shape != wanted or not ((self.weights >= 0) & (self.weights <= 1)).all():
            raise ValueError(f"the weights of a pyramid are {wanted} numbers from 0 to 1")
        return self


def levels_of(image_shape: tuple[int, ...], size: int | None) -> int:
    """How often an image (H, W, C) can be halved until its shorter side is less than twice the training images'."""
    shorter = min(image_shape[:2])
    return 0 if size is None or shorter < 2 * size else int(math.log2(shorter / size))


def halves(image_shape: tuple[int, ...]) -> tuple[int, int, float]:
    """(height, width) of the halved image, and s, by which coefficients and noise are divided."""
    height, width = image_shape[0] // 2, image_shape[1] // 2
    return height, width, math.sqrt(image_shape[0] * image_shape[1] / (height * width))


def halved(x: jax.Array) -> jax.Array:
    """(H, W, C) at half the side: its low frequencies, every value as it was."""
    height, width, s = halves(x.shape)
    return spectral.backward(spectral.forward(x)[:height, :width] / s)


def blended(fine: jax.Array, coarse: jax.Array, weights: jax.Array) -> jax.Array:
    """The fine image with its low coefficients moved by weights (h, w, 1) to those of the halved one."""
    height, width, s = halves(fine.shape)
    z = spectral.forward(fine)
    low = z[:height, :width]
    return spectral.backward(z.at[:height, :width].set(low + weights * (s * spectral.forward(coarse) - low)))


def basis(height: int, width: int) -> np.ndarray:
    """(h, w, FREQUENCIES): the tents between the frequencies, tapered; their sum with weights is a weight by place."""
    rows, columns = np.arange(height) / height, np.arange(width) / width
    frequency = np.hypot(rows[:, None], columns[None])
    tents = np.stack([np.interp(frequency, FREQUENCIES, row) for row in np.eye(len(FREQUENCIES))], -1)
    return tents * np.clip((1 - frequency) / TAPER, 0, 1)[..., None]


def by_place(weights: jax.Array, height: int, width: int) -> jax.Array:
    """(h, w, 1): weights (FREQUENCIES,) at each coefficient, `basis` @ weights without the memory of `basis`."""
    frequency = jnp.hypot(jnp.arange(height)[:, None] / height, jnp.arange(width)[None] / width)
    place = jnp.interp(frequency, jnp.asarray(FREQUENCIES), weights) * jnp.clip((1 - frequency) / TAPER, 0, 1)
    return place[..., None]


def pyramid(denoise: Denoiser, levels: tuple[Level, ...], size: int, stride: int = 1) -> Partial:
    """A denoiser of any size from one of images of side `size`.

    D(x; s) is `denoise` itself where the shorter side is below 2 size. Above, D halves the image, asks itself for it,
    and blends. Beyond the measured levels the last one's weights serve.

    Args:
      denoise: (x, sigma) -> posterior mean of one image (H, W, C).
      levels: what was measured at 2 size, 4 size and so on; none leaves `denoise` as it is.
      size: side of the images that it was trained on, in pixels.
      stride: sides must be multiples of this for `denoise`; a halved image is extended to that, and cut again.

    Cost: 1/4 + 1/16 + ... of an evaluation more, one for each level.
    """
    tables = [(jnp.asarray(np.log(level.calibration.noise)), jnp.asarray(level.weights)) for level in levels]
    return Partial(Pyramid(size, stride), as_partial(denoise), tables) if levels else as_partial(denoise)


class Pyramid(NamedTuple):
    """`pyramid` without its arrays."""

    size: int
    stride: int

    def __call__(self, denoise, tables, x, sigma):
        count = levels_of(x.shape, self.size)
        fine = denoise(x, sigma)
        if not count:
            return fine
        sigma = jnp.asarray(sigma, x.dtype)
        height, width, s = halves(x.shape)
        margins = ((0, -height % self.stride), (0, -width % self.stride), (0, 0))
        low = jnp.pad(halved(x), margins, mode="symmetric")
        coarse = self(denoise, tables, low, sigma / s)[:height, :width]
        noises, weights = tables[min(count, len(tables)) - 1]
        row = jax.vmap(lambda column: jnp.interp(jnp.log(sigma), noises, column), 1)(weights)
        return blended(fine, coarse, by_place(row, height, width).astype(x.dtype))


def best_weights(fine: np.ndarray, coarse: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The weights (FREQUENCIES,) that minimise |blended(fine, coarse, weights) - truth|^2, cut to [0, 1].

    Args:
      fine, truth: (N, H, W, C). coarse: (N, H/2, W/2, C).
    """
    height, width, s = halves(fine.shape[1:])
    tents = basis(height, width)
    gram, right = np.zeros((len(FREQUENCIES),) * 2), np.zeros(len(FREQUENCIES))
    for f, c, x in zip(fine, coarse, truth, strict=True):
        low = np.asarray(spectral.forward(jnp.asarray(f - x)), np.float64)[:height, :width]
        move = np.asarray(spectral.forward(jnp.asarray(f)), np.float64)[:height, :width]
        move = move - s * np.asarray(spectral.forward(jnp.asarray(c)), np.float64)
        gram += np.einsum("ij,ijk,ijl->kl", (move**2).sum(-1), tents, tents, optimize=True)
        right += np.einsum("ij,ijk->k", (move * low).sum(-1), tents)
    scale = max(np.trace(gram) / len(gram), np.finfo(float).tiny)
    return np.clip(np.linalg.solve(gram + 1e-9 * scale * np.eye(len(gram)), right), 0, 1)


def measure_levels(
    denoise: Denoiser, images: np.ndarray, size: int, noises: tuple[float, ...], key: jax.Array,
    progress: Callable[[], object] = lambda: None,
) -> tuple[Level, ...]:  # fmt: skip
    """The levels of `pyramid`, from images (N, S, S, C), S = 2^L size: L of them, from the smallest on.

    At each size the same noise is drawn at every level of noise, and the weights are `best_weights`.

    Args:
      denoise: of images of side `size`. images: in [-1, 1]. noises: at which the weights are measured.
      key: PRNG key. progress: called after each noise.

    Raises:
      ValueError: if the images are no larger.
    """
    count = levels_of(images.shape[1:], size)
    if images.ndim != 4 or not count:
        raise ValueError(f"a pyramid needs images of at least {2 * size} pixels a side, got {images.shape}")
    sizes = [np.asarray(images)]
    for _ in range(count):
        sizes.insert(0, np.asarray(jax.vmap(halved)(jnp.asarray(sizes[0]))))
    levels: tuple[Level, ...] = ()
    for number in range(1, count + 1):
        truth, level_key = sizes[number], jax.random.fold_in(key, number)
        noise = np.asarray(jax.random.normal(level_key, truth.shape))
        below = pyramid(denoise, levels, size)
        s = halves(truth.shape[1:])[2]
        fine_of, coarse_of = _each(denoise, lambda x: x), _each(below, halved)
        rows, errors = [], []
        for sigma in noises:
            noisy = truth + np.float32(sigma) * noise
            fine, coarse = fine_of(noisy, sigma), coarse_of(noisy, sigma / s)
            weights = best_weights(fine, coarse, truth)
            place = by_place(jnp.asarray(weights, jnp.float32), *coarse.shape[1:3])
            found = np.stack(
                [blended(jnp.asarray(f), jnp.asarray(c), place) for f, c in zip(fine, coarse, strict=True)]
            )
            rows.append(weights)
            errors.append(np.mean((found - truth) ** 2))
            progress()
        curve = Calibration(np.asarray(noises), np.asarray(errors))
        levels += (Level(np.stack(rows), curve, spectral.estimate_spectrum(truth)),)
    return levels


def _each(denoise, before: Callable) -> Callable:
    """(images, sigma) -> the denoised images, one at a time, by one program."""
    one = jax.jit(lambda x, sigma: denoise(before(x), sigma))
    return lambda images, sigma: np.stack([np.asarray(one(x, jnp.float32(sigma))) for x in images])
