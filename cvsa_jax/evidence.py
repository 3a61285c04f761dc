"""How well a blur kernel explains a measurement, with the image integrated out.

The image is Gaussian given what is known of it and its frequencies are independent, so that
-log p(y | k) is a sum over frequencies of r/P + log P, r the power of what is left to explain and
P = sigma^2 + |K|^2 V the one to expect (Whittle's likelihood).
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax import spectral
from cvsa_jax.operators.kernel_blur import Convolution
from cvsa_jax.priors import Prior

# How much photographs differ in the level (log) and the slope (power of frequency) of their spectrum.
LEVELS, LEVEL_STD = (-1.5, -0.75, 0.0, 0.75, 1.5), 0.8
SLOPES, SLOPE_STD = (-0.8, -0.4, 0.0, 0.4, 0.8), 0.4
JUDGED_NOISES = (0.45, 0.3, 0.2)
NUM_JUDGED = 2


def fourier_spectrum(spectrum: spectral.Spectrum, height: int, width: int, channels: int) -> np.ndarray:
    """The spectrum's variances on the grid of `rfft2`, (H, W // 2 + 1, C), in `colour_matrix` channels.

    A grey image is the mean of three channels: its variance is a third of the light's.
    """
    variance = spectrum.at(_frequencies(height, width))
    return variance[..., :1] / 3 if channels == 1 and variance.shape[-1] == 3 else variance


def _frequencies(height: int, width: int) -> np.ndarray:
    """(H, W // 2 + 1): the radial frequency of each coefficient of `rfft2`."""
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])


class _Whittle(NamedTuple):
    """y's side of the likelihood. window: (H, W, 1), of mean square one. weights: how often a frequency counts."""

    window: np.ndarray
    weights: np.ndarray

    def power(self, r: jax.Array) -> jax.Array:
        """The windowed power spectrum of r in `colour_matrix` channels."""
        colours = jnp.asarray(spectral.colour_matrix(r.shape[-1]), r.dtype)
        z = jnp.fft.rfft2(jnp.einsum("dc,hwc->hwd", colours, r) * self.window, axes=(0, 1))
        return (z.real**2 + z.imag**2) / (r.shape[0] * r.shape[1])

    def cost(self, power: jax.Array, variance: jax.Array) -> jax.Array:
        """-log likelihood, up to a number."""
        return jnp.sum(self.weights * (power / variance + jnp.log(variance))) / 2


def _whittle(height: int, width: int) -> _Whittle:
    rows, columns = (np.sin(np.pi * (np.arange(n) + 0.5) / n) for n in (height, width))
    weights = np.full((height, width // 2 + 1, 1), 2.0)
    weights[:, 0] = 1
    weights[:, -1] = 2 if width % 2 else 1
    weights[0, 0] = 0  # the mean tells nothing of the kernel
    return _Whittle((2 * rows[:, None] * columns)[..., None].astype(np.float32), weights.astype(np.float32))


def _gain(kernel: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """|K|^2 on the grid of `rfft2`, (H, W // 2 + 1, 1)."""
    z = Convolution(kernel).spectrum(shape)
    return (z.real**2 + z.imag**2)[..., None]


def _plausible(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(factors of a spectrum for every level and slope, (n, H, W // 2 + 1, 1); minus the log of how likely each is)."""
    return _plausible_at(_frequencies(height, width))


def _plausible_at(frequency: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    relative = np.maximum(frequency, 1 / 64)[..., None] / 0.12
    pairs = [(level, slope) for level in LEVELS for slope in SLOPES]
    shapes = np.stack([np.exp(a) * relative**b for a, b in pairs])
    return shapes, np.array([(a / LEVEL_STD) ** 2 / 2 + (b / SLOPE_STD) ** 2 / 2 for a, b in pairs])


def _summed(whittle: _Whittle, power: jax.Array, noise_variance: float, expected: jax.Array) -> jax.Array:
    """-log of the likelihood summed over the levels and slopes that the expected spectrum may have."""
    shapes, unlikely = (jnp.asarray(a, power.dtype) for a in _plausible(*whittle.window.shape[:2]))
    each = jax.lax.map(lambda shape: whittle.cost(power, noise_variance + expected * shape), shapes)
    return -jax.nn.logsumexp(-(each + unlikely))


def first_evidence(measurement: jax.Array, kernels: jax.Array, spectrum, noise_variance) -> jax.Array:
    """-log p(y | k) of each kernel for an image of which only the spectrum is known, (count,).

    The spectrum's level and slope are the image's own: their plausible values are summed over.
    It knows |K| alone, and cannot tell a kernel from the same turned by 180 degrees.
    """
    height, width, channels = measurement.shape
    whittle = _whittle(height, width)
    power = whittle.power(measurement)
    variance = jnp.asarray(fourier_spectrum(spectrum, height, width, channels), power.dtype)

    def cost(kernel):
        return _summed(whittle, power, noise_variance, _gain(kernel, (height, width)) * variance)

    return jax.lax.map(cost, kernels, batch_size=64)


def blur_evidence(measurement: jax.Array, kernel: jax.Array, spectrum, noise_variance: jax.Array) -> jax.Array:
    """`first_evidence` of one kernel, that y's own mean is not counted in: y is blurred, and noisy."""
    return first_evidence(measurement - measurement.mean((0, 1)), kernel[None], spectrum, noise_variance)[0]


def spectrum_cost(
    power: np.ndarray, frequency: np.ndarray, seen: np.ndarray, parts: int, spectrum, noise_variances: np.ndarray
) -> np.ndarray:
    """-log of the likelihood of a Fourier transform's power under each noise variance, (count,), up to a number.

    It is summed over the levels and slopes that the image's spectrum may have.

    Args:
      power: (H, W, C), the mean square of a coefficient's `parts`, one or two. frequency: (H, W), radial.
      seen: (H, W), true where it is measured. spectrum: the prior's.
    """
    counts = seen & (frequency > 0)
    radius, power = frequency[counts], power[counts]
    expected = spectrum.at(radius)[:, : power.shape[-1]] / parts
    shapes, unlikely = _plausible_at(radius)
    costs = []
    for noise in noise_variances:
        variance = noise + shapes * expected
        each = parts * (power / variance + np.log(variance)).sum((1, 2)) / 2 + unlikely
        costs.append(each.min() - np.log(np.exp(each.min() - each).sum()))
    return np.array(costs)


def evidence(key, measurement, image, kernel, prior: Prior, crop: Callable, noise_variance: float) -> jax.Array:
    """-log p(y, x_s | k) up to a number, x_s the image noised to s, the mean over JUDGED_NOISES.

    With m_s = E[x_0 | x + s e], the fit is that of y to k * m_s, its spectrum widened by what m_s leaves open,
    so that fine detail, which a wrong kernel has put there, does not speak for it. Level and slope of
    that spectrum are the image's own. The image's own probability follows from the denoiser,

        -log p(x_s) = 1/2 int_0^(1/s^2) |x - m_r|^2 d(1/r^2) + a number,

    (by the trapezoidal rule on JUDGED_NOISES, the part before the first left out): a wrong kernel can explain
    any measurement by an image that no one has seen.

    References: Guo, Shamai, Verdu (2005), and Kong, Brekelmans, Ver Steeg (2023), arXiv:2302.03792, equation 8.
    """
    prior = prior.at(image.shape)
    assert prior.spectrum is not None
    height, width, channels = measurement.shape
    whittle, total, energy, before = _whittle(height, width), 0.0, 0.0, None
    variance = fourier_spectrum(prior.spectrum, height, width, channels)
    gain, seen = _gain(kernel, (height, width)), crop(image)
    for number, s in enumerate(JUDGED_NOISES):
        left, error = prior.error_spectrum(jnp.asarray(s), variance), 0.0
        for turn in range(NUM_JUDGED):
            noise = jax.random.normal(jax.random.fold_in(key, NUM_JUDGED * number + turn), image.shape)
            mean = crop(prior.denoise(image + s * noise, jnp.asarray(s, image.dtype)))
            power = whittle.power(measurement - Convolution(kernel)(mean))
            total = total + _summed(whittle, power, noise_variance, gain * left) / NUM_JUDGED
            error = error + jnp.sum((seen - mean) ** 2) / NUM_JUDGED
        if before is not None:
            energy = energy + (before[1] + error) / 4 * (s**-2 - before[0] ** -2)
        total, before = total + energy, (s, error)
    return cast(jax.Array, total) / len(JUDGED_NOISES)
