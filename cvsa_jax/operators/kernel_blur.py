"""Blur by any kernel, through the Fourier transform."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax import spectral
from cvsa_jax.numerics import at_least_single
from cvsa_jax.operators.algebra import conjugate_gradients
from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.kernel_files import KernelFile, read_kernel
from cvsa_jax.operators.kernels import default_kernel_size, motion_kernel
from cvsa_jax.operators.paired_files import PairedFiles
from cvsa_jax.operators.separable import Separable, gaussian_blur, gaussian_weights
from cvsa_jax.operators.task import SHORT_CHAINS, BlindSettings, Task, scaled
from cvsa_jax.settings import Settings, join, setting
from cvsa_jax.transforms import whole

PCG_ITERATIONS = 5
# Up to this side a Gaussian blur is two products with matrices, whose work grows faster than the number of pixels.
MATRIX_SIDE = 1024
BOUNDARIES = REFLECT, CIRCULAR = "reflect", "circular"


@flax.struct.dataclass
class Convolution(Operator):
    """H(x) = k * x, the same kernel for each channel, at the image's own size.

    Args:
      kernel: (h, w), both odd. A point at the image's middle is blurred into the kernel.
      boundary: 'reflect' mirrors the image about its outermost pixels; 'circular' wraps it
        around, and has an exact inner solve.
    """

    kernel: jax.Array
    boundary: str = flax.struct.field(pytree_node=False, default=REFLECT)

    def __call__(self, x: jax.Array) -> jax.Array:
        height, width = x.shape[:2]
        if self.boundary == CIRCULAR:
            return _filter(x, self.spectrum((height, width)))
        rows, columns = (n // 2 for n in self.kernel.shape)
        padded = jnp.pad(x, ((rows, rows), (columns, columns), (0, 0)), mode="reflect")
        blurred = _filter(padded, self.spectrum((height + 2 * rows, width + 2 * columns)))
        return blurred[rows : rows + height, columns : columns + width]

    def spectrum(self, shape: tuple[int, int]) -> jax.Array:
        """The kernel's Fourier transform on a grid of that shape; larger kernels wrap."""
        h, w, kernel = *self.kernel.shape, at_least_single(self.kernel)
        rows = np.mod(np.arange(h) - h // 2, shape[0])
        columns = np.mod(np.arange(w) - w // 2, shape[1])
        canvas = jnp.zeros(shape, kernel.dtype).at[rows[:, None], columns].add(kernel)
        return whole(jnp.fft.rfft2, canvas)

    def solve_gram(self, r, noise_variance, prior_variance):
        """Exact for 'circular'; else that solution as preconditioner of conjugate gradients.

        The two operators differ near the border alone, so PCG_ITERATIONS are plenty.
        """
        height, width = r.shape[:2]
        gram = jnp.abs(self.spectrum((height, width))) ** 2
        inverse = 1 / (noise_variance + prior_variance * gram)
        if self.boundary == CIRCULAR:
            return _filter(r, inverse)
        transpose = jax.linear_transpose(self.__call__, r)

        def apply(w):
            return noise_variance * w + prior_variance * self(transpose(w)[0])

        return conjugate_gradients(apply, r, lambda w: _filter(w, inverse), PCG_ITERATIONS)

    def offers(self, method: str) -> bool:
        return super().offers(method) and not (method == "near_gram" and self.boundary == CIRCULAR)

    def near_gram(self, r, noise_variance, variances):
        """As if H H' were diagonal in the cosine transform, which mirrors an image as H does; no circular H does.

        Its gain at frequencies f, g is there the mean of |K(f, g)|^2 and |K(f, -g)|^2.
        """
        if self.boundary == CIRCULAR:
            return None
        height, width = r.shape[:2]
        gram = jnp.abs(self.spectrum((2 * height, 2 * width))[:, :width]) ** 2
        gram = (gram[:height] + jnp.roll(gram[::-1], 1, 0)[:height]) / 2
        return spectral.backward(spectral.forward(r) / (noise_variance + gram[..., None] * variances))

    def blur_kernel(self) -> np.ndarray:
        return np.asarray(self.kernel)


def _filter(x: jax.Array, spectrum: jax.Array) -> jax.Array:
    """Circular convolution of each channel."""
    transformed = whole(lambda x: jnp.fft.rfft2(x, axes=(0, 1)), x) * spectrum[..., None]
    return whole(lambda z: jnp.fft.irfft2(z, s=x.shape[:2], axes=(0, 1)), transformed).astype(x.dtype)


def convolution(kernel: np.ndarray, boundary: str = REFLECT) -> Convolution:
    """A blur from a kernel, which is scaled to sum 1.

    Raises:
      ValueError: if the kernel is not a finite, odd-sized matrix of positive sum.
    """
    kernel = np.asarray(kernel, np.float64)
    if boundary not in BOUNDARIES:
        raise ValueError(f"boundary must be one of {', '.join(BOUNDARIES)}, got {boundary!r}")
    if kernel.ndim != 2 or kernel.shape[0] % 2 == 0 or kernel.shape[1] % 2 == 0:
        raise ValueError(f"a kernel has two odd sides, got shape {kernel.shape}")
    if not (np.isfinite(kernel).all() and kernel.sum() > 0):
        raise ValueError("a kernel must be finite with a positive sum")
    return Convolution(jnp.asarray(kernel / kernel.sum(), jnp.result_type(float)), boundary)


def given_blur(kernel: np.ndarray | KernelFile, height: int, width: int, boundary: str) -> Convolution:
    """A blur by a kernel that is given.

    Raises:
      ValueError: as `convolution`, or if the kernel is larger than the image.
    """
    rows, columns = np.shape(kernel) if np.ndim(kernel) == 2 else (0, 0)
    if rows > height or columns > width:
        raise ValueError(f"the kernel of {rows}x{columns} is larger than the image of {height}x{width}")
    return convolution(np.asarray(kernel), boundary)


@dataclasses.dataclass(frozen=True)
class KernelSettings(Settings):
    """A blur by a kernel."""

    kernel: str | np.ndarray | KernelFile | PairedFiles | None = setting(
        None, "Kernel file, or a folder with one for each image, in place of a drawn one.", reads=read_kernel,
        replaces=("kernel_std", "kernel_size", "motion_intensity"),
    )  # fmt: skip
    boundary: str = setting(REFLECT, "What lies beyond the border, for a blur by a kernel.", choices=BOUNDARIES)


@dataclasses.dataclass(frozen=True)
class GaussianBlurSettings(KernelSettings):
    """A Gaussian blur."""

    kernel_std: float | None = setting(
        None, "Standard deviation of the blur.", "pixels", above=0, otherwise="3/256 of the image's side"
    )


@dataclasses.dataclass(frozen=True)
class KernelSizeSettings(Settings):
    """The side of a kernel."""

    kernel_size: int | None = setting(
        None, "Side of the kernel.", "pixels", low=3, odd=True, otherwise="61/256 of the image's side"
    )


@dataclasses.dataclass(frozen=True)
class ShakeSettings(Settings):
    """How a camera moves."""

    motion_intensity: float = setting(0.5, "How shaken the camera is: 0 straight to 1 shaky.", low=0, high=1)


MotionBlurSettings = join("MotionBlurSettings", (KernelSettings, KernelSizeSettings, ShakeSettings))
_BlindMotion = join("BlindMotionSettings", (MotionBlurSettings, BlindSettings))
_BlindGaussian = join("BlindGaussianSettings", (GaussianBlurSettings, KernelSizeSettings, BlindSettings))


def _gaussian_std(height, width, settings) -> float:
    return scaled(3, min(height, width)) if settings.kernel_std is None else settings.kernel_std


def _gaussian(generator, height, width, settings) -> Convolution | Separable:
    """Separable, whose inner solve is exact; by a kernel if one is given, the image wraps around or is large."""
    if settings.kernel is None and settings.boundary == REFLECT and max(height, width) <= MATRIX_SIDE:
        return gaussian_blur(height, width, _gaussian_std(height, width, settings))
    return _gaussian_by_kernel(generator, height, width, settings)


def _gaussian_by_kernel(generator, height, width, settings) -> Convolution:
    """As blind restoration knows it; of any width."""
    if settings.kernel is not None:
        return given_blur(settings.kernel, height, width, settings.boundary)
    weights = gaussian_weights(_gaussian_std(height, width, settings))
    return convolution(np.outer(weights, weights), settings.boundary)


def motion_blur(generator: np.random.Generator, height: int, width: int, settings) -> Convolution:
    """A blur by the given kernel, or by one drawn with `motion_kernel`; settings: MotionBlurSettings."""
    if settings.kernel is not None:
        return given_blur(settings.kernel, height, width, settings.boundary)
    size = settings.kernel_size or default_kernel_size(min(height, width))
    return convolution(motion_kernel(generator, size, settings.motion_intensity), settings.boundary)


# The chains of a blind task go on from what a search has found, so that there are no posterior samples.
_BLIND = {"linear": False, "blind": True, "accuracy": {"start": "guess", "data_weight": 1.0}, "posterior": None}
TASKS = (
    Task(
        "gaussian_deblur", "Gaussian blur of a known width", _gaussian, (Convolution, Separable), GaussianBlurSettings,
        accuracy=SHORT_CHAINS,
    ),
    Task(
        "motion_deblur", "motion blur by a known kernel", motion_blur, (Convolution,), MotionBlurSettings,
        drawn_by=("kernel",),
    ),
    Task(
        "blind_gaussian_deblur", "Gaussian blur of unknown width", _gaussian_by_kernel, (Convolution,), _BlindGaussian,
        family="gaussian", **_BLIND,
    ),
    Task(
        "blind_motion_deblur", "motion blur by an unknown kernel", motion_blur, (Convolution,), _BlindMotion,
        family="motion", **_BLIND,
    ),
)  # fmt: skip
