"""Blur by any kernel, through the Fourier transform."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.operators.base import conjugate_gradients

PCG_ITERATIONS = 5
BOUNDARIES = ("reflect", "circular")


@flax.struct.dataclass
class Convolution:
    """H(x) = k * x, the same kernel for each channel, at the image's own size.

    Args:
      kernel: (h, w), both odd. A point at the image's middle is blurred into the kernel.
      boundary: 'reflect' mirrors the image about its outermost pixels; 'circular' wraps it
        around, and has an exact inner solve.
    """

    kernel: jax.Array
    boundary: str = flax.struct.field(pytree_node=False, default="reflect")

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.boundary == "circular":
            return _filter(x, self.spectrum(x.shape[:2]))
        rows, columns = (n // 2 for n in self.kernel.shape)
        height, width = x.shape[:2]
        padded = jnp.pad(x, ((rows, rows), (columns, columns), (0, 0)), mode="reflect")
        blurred = _filter(padded, self.spectrum(padded.shape[:2]))
        return blurred[rows : rows + height, columns : columns + width]

    def spectrum(self, shape: tuple[int, int]) -> jax.Array:
        """The kernel's Fourier transform on a grid of that shape; larger kernels wrap."""
        h, w = self.kernel.shape
        rows = np.mod(np.arange(h) - h // 2, shape[0])
        columns = np.mod(np.arange(w) - w // 2, shape[1])
        canvas = jnp.zeros(shape, self.kernel.dtype).at[rows[:, None], columns].add(self.kernel)
        return jnp.fft.rfft2(canvas)

    def solve_gram(self, r, noise_variance, prior_variance):
        """Exact for 'circular'; else that solution as preconditioner of conjugate gradients.

        The two operators differ near the border alone, so PCG_ITERATIONS are plenty.
        """
        gram = jnp.abs(self.spectrum(r.shape[:2])) ** 2
        inverse = 1 / (noise_variance + prior_variance * gram)
        if self.boundary == "circular":
            return _filter(r, inverse)
        transpose = jax.linear_transpose(self.__call__, r)

        def apply(w):
            return noise_variance * w + prior_variance * self(transpose(w)[0])

        return conjugate_gradients(apply, r, lambda w: _filter(w, inverse), PCG_ITERATIONS)


def _filter(x: jax.Array, spectrum: jax.Array) -> jax.Array:
    """Circular convolution of each channel."""
    transformed = jnp.fft.rfft2(x, axes=(0, 1)) * spectrum[..., None]
    return jnp.fft.irfft2(transformed, s=x.shape[:2], axes=(0, 1)).astype(x.dtype)


def convolution(kernel: np.ndarray, boundary: str = "reflect") -> Convolution:
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
