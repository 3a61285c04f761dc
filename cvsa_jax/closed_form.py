"""Denoisers in closed form: a Gaussian, and a mixture of Gaussians."""

import flax.struct
import jax
import jax.numpy as jnp


@flax.struct.dataclass
class Gaussian:
    """N(mean, covariance) as a denoiser, in closed form.

    denoise(x, s) = mean + C (C + s^2 I)^-1 (x - mean).

    Args:
      mean: of the image's shape.
      covariance: a variance per pixel (scalar or the image's shape), or a full (d, d)
        matrix over the flattened image.
    """

    mean: jax.Array
    covariance: jax.Array

    def __call__(self, x: jax.Array, sigma: jax.Array) -> jax.Array:
        mean, covariance = jnp.asarray(self.mean), jnp.asarray(self.covariance)
        if covariance.ndim == 2 and covariance.shape == (x.size, x.size):
            unit = jnp.maximum(sigma, 1.0)  # in which sigma^2 cannot overflow
            covariance = covariance / unit / unit
            noisy = covariance + (sigma / unit) ** 2 * jnp.eye(x.size, dtype=x.dtype)
            step = covariance @ jnp.linalg.solve(noisy, (x - mean).ravel())
            return mean + step.reshape(x.shape)
        return mean + covariance / (covariance + sigma**2) * (x - mean)


@flax.struct.dataclass
class GaussianMixture:
    """sum_k w_k N(mean_k, variance I) as a denoiser, in closed form.

    denoise(x, s) = sum_k r_k (variance x + s^2 mean_k) / (variance + s^2) with
    r_k proportional to w_k N(x; mean_k, (variance + s^2) I).

    Args:
      weights: (K,), positive, sum 1.
      means: (K, *image shape).
      variance: > 0, of every component.
    """

    weights: jax.Array
    means: jax.Array
    variance: jax.Array | float

    def __call__(self, x: jax.Array, sigma: jax.Array) -> jax.Array:
        total, means = self.variance + jnp.asarray(sigma) ** 2, jnp.asarray(self.means)
        flat = means.reshape(len(means), -1)
        # |x|^2 is the same for every component, so that one matrix product gives the distances.
        logits = (flat @ x.ravel() - jnp.sum(flat**2, 1) / 2) / total
        mean = jnp.tensordot(jax.nn.softmax(jnp.log(self.weights) + logits), means, 1)
        return mean + self.variance / total * (x - mean)

    def sample(self, key: jax.Array, count: int) -> jax.Array:
        """`count` independent samples, shape (count, *image shape)."""
        component_key, noise_key = jax.random.split(key)
        component = jax.random.choice(component_key, len(self.weights), (count,), p=self.weights)
        means = jnp.asarray(self.means)[component]
        return means + self.variance**0.5 * jax.random.normal(noise_key, means.shape, means.dtype)
