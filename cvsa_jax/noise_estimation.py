"""The deviation of a measurement's noise, estimated from the measurement itself.

Several estimators, each for what it knows most about; `experiments/noise_estimates.py` compares them:

- `spectral_std`: known blurs, beyond whose cut-off there is noise alone, and shrunk pictures.
- `denoised_std`: pictures of full detail. The deviation under which the prior finds the picture most likely.
- `wavelet_std`: other pictures. The finest detail is mostly noise.
- `floor_std`: Fourier transforms and their magnitudes. Their power falls until the noise is left.

Rays of a sinogram that miss the image hold noise alone.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage, signal

from cvsa_jax import spectral
from cvsa_jax.evidence import blur_evidence, spectrum_cost
from cvsa_jax.operators import Operator, Task
from cvsa_jax.operators.fourier import SubsampledFourier
from cvsa_jax.operators.identity import Identity
from cvsa_jax.operators.masks import Mask
from cvsa_jax.operators.phase import FourierMagnitude
from cvsa_jax.operators.registry import parts
from cvsa_jax.operators.tomography import Radon
from cvsa_jax.operators.tones import Clip, Quantised
from cvsa_jax.priors import Prior, denoiser_of

LEAST, MOST = 0.0023, 1.0  # the rounding to 8 bits alone is LEAST
CANDIDATES = np.geomspace(LEAST, MOST, 45)
ITERATIONS = 10
FULL_DETAIL = (Identity, Mask, Clip, Quantised)
HIGH = 1 / 3  # cycles per pixel
FEWEST = 50
TRANSFORMS = (SubsampledFourier, FourierMagnitude)
# Daubechies' high-pass filter with two vanishing moments, and the median of |n|, n ~ N(0, 1).
HIGH_PASS = np.array([-0.48296291314469025, 0.836516303737469, -0.22414386804185735, -0.12940952255092145])
MEDIAN = 0.6744897501960817


def estimable(task: Task) -> bool:
    """Whether there is an estimator for a task's measurements: for pictures, transforms and sinograms."""
    return task.picture or issubclass(task.makes[-1], (*TRANSFORMS, Radon))


def wavelet_std(y: np.ndarray, seen: np.ndarray) -> float:
    """The median of the finest diagonal wavelet coefficients over .6745, the mean over the channels.

    Args:
      y: (H, W, C). seen: (H, W), true where y is measured; a coefficient counts if all of its pixels are.

    Returns: not-a-number if no coefficient counts.

    References: Donoho, Johnstone (1994), Ideal spatial adaptation by wavelet shrinkage, Biometrika 81(3); as
      `skimage.restoration.estimate_sigma`, which takes every second coefficient.
    """
    taps = np.outer(HIGH_PASS, HIGH_PASS)
    if any(n < m for n, m in zip(seen.shape, taps.shape, strict=True)):
        return float("nan")
    covered = signal.convolve2d(seen, np.ones(taps.shape), "valid") > taps.size - 0.5
    if not covered.any():
        return float("nan")
    detail = (signal.convolve2d(np.where(seen, y[..., c], 0), taps, "valid") for c in range(y.shape[-1]))
    return float(np.mean([np.median(np.abs(d[covered])) / MEDIAN for d in detail]))


def lowest(costs: np.ndarray) -> float:
    """The deviation of least cost, costs being those of CANDIDATES: the vertex of a parabola in its logarithm."""
    best = int(np.argmin(costs))
    if not 0 < best < len(costs) - 1:
        return float(CANDIDATES[best])
    before, least, after = costs[best - 1 : best + 2]
    shift = (before - after) / (before - 2 * least + after) / 2
    return float(CANDIDATES[best] * (CANDIDATES[1] / CANDIDATES[0]) ** shift)


def spectral_std(y: np.ndarray, kernel: np.ndarray, prior: Prior) -> float:
    """The deviation under which y = k * x + n is most likely, of x only the spectrum being known.

    Args:
      y: (H, W, C). kernel: (h, w). prior: one that knows its data's spectrum.
    """
    variances = jnp.asarray(CANDIDATES**2, jnp.float32)
    return lowest(np.asarray(_blur_costs(jnp.asarray(y), jnp.asarray(kernel, jnp.float32), variances, prior.spectrum)))


@functools.partial(jax.jit, static_argnums=3)
def _blur_costs(y, kernel, variances, spectrum):
    return jax.lax.map(lambda variance: blur_evidence(y, kernel, spectrum, variance), variances)


def denoised_std(y: np.ndarray, seen: np.ndarray, prior: Prior, start: float) -> float:
    """The s at which p(y) = (p_0 * N(0, s^2))(y) has its maximum in s, p_0 the prior.

    By the heat equation d/d(s^2) log p = (|y - D|^2 / s^2 - (N - div D)) / (2 s^2) with D = E[x_0 | y, s], so that

        s^2 = |y - D|^2 / (N - div D)

    there, N the number of pixels. It is iterated, with div D by one random direction. Unseen pixels are those of
    the nearest one that is seen, and do not count.

    Args:
      y: (H, W, C). seen: (H, W), true where y is measured. prior: one made from a denoiser.
      start: where the iteration begins.
    """
    if not seen.all():
        nearest = np.asarray(ndimage.distance_transform_edt(~seen, return_distances=False, return_indices=True))
        y = y[nearest[0], nearest[1]]
    weight = jnp.asarray(seen[..., None], jnp.float32)
    return float(_iterated(jnp.asarray(y), weight, prior, jnp.float32(np.clip(start, LEAST, MOST))))


@jax.jit
def _iterated(y: jax.Array, seen: jax.Array, prior: Prior, start: jax.Array) -> jax.Array:
    height, width, channels = y.shape
    canvas = prior.canvas(y.shape)
    copies = canvas[-1] // channels  # a grey picture is the mean of so many channels
    margins = ((0, canvas[0] - height), (0, canvas[1] - width), (0, 0))
    direction_key, colour_key = jax.random.split(jax.random.key(0))
    direction = seen * jax.random.rademacher(direction_key, y.shape, y.dtype)
    colours = jax.random.normal(colour_key, canvas, y.dtype)
    colours = (copies > 1) * copies**0.5 * (colours - colours.mean(-1, keepdims=True))
    count = seen.sum() * channels

    def better(_, s):
        def denoised(y):
            x = jnp.pad(y, margins, mode="edge")
            x = jnp.broadcast_to(x, canvas) + s * colours  # whose noise is then alike in every channel
            found = prior.denoise(x, s * copies**0.5)[:height, :width]
            return found if copies == 1 else found.mean(-1, keepdims=True)

        mean, turned = jax.jvp(denoised, (y,), (direction,))
        left = count - jnp.sum(direction * turned)
        found = jnp.sum(seen * (y - mean) ** 2) / jnp.maximum(left, 0.02 * count)
        return jnp.clip(jnp.sqrt(found), LEAST, MOST)

    return jax.lax.fori_loop(0, ITERATIONS, better, start)


def floor_std(y: np.ndarray, seen: np.ndarray, prior: Prior) -> float:
    """Of a Fourier transform, or its magnitudes, frequency zero in the middle: what its power falls to.

    The deviation of the real and of the imaginary part under which the power of every coefficient is most likely,
    where the image's spectrum is the prior's with a level and a slope of the image's own. Only frequencies that are
    high both down and across count, if there are enough: on the axes lies the power of the image's border.

    Args:
      y: (H, W, C), real or complex. seen: (H, W), true where y is measured. prior: one that knows its data's spectrum.
    """
    parts = 2 if np.iscomplexobj(y) else 1
    colours = spectral.colour_matrix(y.shape[-1])
    z = y @ colours.T if parts == 2 else y  # magnitudes of colours do not add
    power = np.abs(z) ** 2 / parts
    rows, columns = (np.abs(np.fft.fftshift(np.fft.fftfreq(n))) for n in y.shape[:2])
    corner = seen & (rows[:, None] > HIGH) & (columns > HIGH)
    seen = corner if corner.sum() >= FEWEST else seen
    return lowest(spectrum_cost(power, np.hypot(rows[:, None], columns), seen, parts, prior.spectrum, CANDIDATES**2))


def missed_std(y: np.ndarray, operator: Operator, image_shape: tuple[int, int, int]) -> float:
    """The root mean square of the readings whose rays miss the image (H, W, C); not-a-number if they are few."""
    missed = np.asarray(operator(jnp.ones(image_shape))) == 0
    return float(np.sqrt(np.mean(y[missed] ** 2))) if missed.sum() >= FEWEST else float("nan")


class NoiseEstimator:
    """Estimates the noise of one measurement after the other, each as if it were alone; compiled once for a shape.

    Args:
      task: the degradation. prior: of the images.

    Raises:
      ValueError: if there is no estimator for the task under such a prior.
    """

    def __init__(self, task: Task, prior: Prior):
        if not estimable(task):
            raise ValueError(f"--noise_std=auto does not know what {task.name} measures: give a number")
        if prior.spectrum is None and issubclass(task.makes[-1], TRANSFORMS):
            raise ValueError(
                f"--noise_std=auto of {task.name} needs a prior that knows its data's spectrum: give a number, or see "
                "cvsa calibrate"
            )
        self._task, self._prior = task, prior

    def method(self, operator: Operator, image_shape: tuple[int, int, int]) -> Callable[..., float]:
        """(y, seen) -> the deviation, by the estimator that suits an operator; of a blind task it is not known."""
        prior, task, last = self._prior, self._task, parts(operator)[-1]
        if isinstance(last, TRANSFORMS):
            return lambda y, seen: floor_std(y, seen, prior)
        if isinstance(last, Radon):
            return lambda y, seen: missed_std(y, operator, image_shape)
        if not task.blind and isinstance(operator, FULL_DETAIL) and denoiser_of(prior) is not None:
            gain = float(operator.gain) if isinstance(operator, Clip) else 1.0  # of a picture, where nothing is clipped
            return lambda y, seen: gain * denoised_std(y / gain, seen, prior, wavelet_std(y, seen) / gain)
        kernel = None if task.blind else operator.blur_kernel()
        kernel = np.ones((1, 1)) if kernel is None else kernel

        def blurred(y, seen):
            most = wavelet_std(y, seen)  # detail adds to it: what a wrong kernel cannot explain is no noise
            if not seen.all() or prior.spectrum is None:
                return most
            return float(np.fmin(spectral_std(y, kernel, prior), most))

        return blurred

    def __call__(self, y: np.ndarray, operator: Operator, image_shape: tuple[int, int, int]) -> float | None:
        """The deviation of one measurement, at least LEAST; None if too little is measured to tell.

        Args:
          y: (H, W, C). operator: what measured. image_shape: (H, W, C) of the image.
        """
        seen = np.asarray(operator.restrict(jnp.ones_like(jnp.asarray(y))))[..., 0] != 0
        if self._task.picture:
            block = np.ones((4, 4))
            saturated = (np.abs(y) == 1).all(-1)  # areas of black or white have lost their noise
            seen = seen & np.logical_not(ndimage.binary_opening(saturated, block))
            if not seen.all():  # what is alone has no neighbours to tell its noise by
                seen = ndimage.binary_opening(seen, block)
                if seen.sum() < FEWEST:
                    return None
        found = self.method(operator, image_shape)(y, seen)
        return float(np.clip(found, LEAST, MOST)) if np.isfinite(found) else None
