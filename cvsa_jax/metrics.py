"""Image quality, for one pair of images; the library implementations of dm_pix.

Both are taken on the 8-bit values that are written to files, scaled to [0, 1], so the
figures can be checked from the files.
"""

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from cvsa_jax.images import to_bytes

_psnr, _ssim = jax.jit(dm_pix.psnr), jax.jit(dm_pix.ssim)


def _unit(image: np.ndarray) -> jax.Array:
    return jnp.asarray(to_bytes(np.asarray(image)), jnp.float32) / 255


def _unknown(*images: np.ndarray) -> bool:
    """Whether one holds NaN, which has no 8-bit value."""
    return any(np.isnan(np.asarray(image)).any() for image in images)


def psnr(truth: np.ndarray, estimate: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB over all channels, peak 255; infinite if equal, not a number of NaN.

    Args:
      truth, estimate: (H, W, C) in [-1, 1].
    """
    if _unknown(truth, estimate):
        return float("nan")
    return float(_psnr(_unit(truth), _unit(estimate)))


def ssim(truth: np.ndarray, estimate: np.ndarray) -> float:
    """Structural similarity: Gaussian window of 11 pixels, deviation 1.5, mean over channels.

    Args:
      truth, estimate: (H, W, C) in [-1, 1]; not a number for sides below 11 pixels, and of NaN.
    """
    if min(np.shape(truth)[:2]) < 11 or _unknown(truth, estimate):
        return float("nan")
    return float(_ssim(_unit(truth), _unit(estimate)))


def kernel_mse(truth: np.ndarray, estimate: np.ndarray) -> float:
    """Mean squared error of blur kernels, both scaled to a maximum of one, after removing their common shift.

    A blurred image fixes its kernel up to a shift that the image undoes. The shift is by whole pixels, up
    to a quarter of the larger side; the mean is over the larger of the two supports. A kernel of zeros,
    as a failed search may leave, stays zero and so counts as an error.

    Args:
      truth, estimate: (h, w) and (h', w'), odd sides, non-negative, the middle of each at its centre.
    """
    size = [max(a, b) for a, b in zip(truth.shape, estimate.shape, strict=True)]
    reach = [n // 4 for n in size]
    wide = [n + 2 * r for n, r in zip(size, reach, strict=True)]
    a, b = (_padded(k / (k.max() or 1), wide) for k in (estimate, truth))
    # No shift in reach wraps round, so the sums of squares stay and the least error is at the largest correlation.
    spectra = [np.fft.rfft2(k.astype(np.float64)) for k in (a, b)]
    correlation = np.fft.irfft2(spectra[0].conj() * spectra[1], wide)
    near = np.roll(correlation, reach, (0, 1))[: 2 * reach[0] + 1, : 2 * reach[1] + 1]
    move = np.array(np.unravel_index(np.argmax(near), near.shape)) - reach
    return float(np.sum((np.roll(a, move, (0, 1)) - b) ** 2) / np.prod(size))


def _padded(kernel: np.ndarray, shape: list[int]) -> np.ndarray:
    margins = [(n - k) // 2 for n, k in zip(shape, kernel.shape, strict=True)]
    return np.pad(kernel, [(m, m) for m in margins])


def mean_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """(mean, half of its interval) over images, by Student's t; half is not a number for less than two."""
    count = len(values)
    if count < 2:
        return float(np.mean(values)), float("nan")
    half = stats.t.ppf((1 + level) / 2, count - 1) * np.std(values, ddof=1) / count**0.5
    return float(np.mean(values)), float(half)
