"""A first guess of an image from its measurement, without a network."""

import jax
import jax.numpy as jnp

from cvsa_jax import spectral
from cvsa_jax.noise import NoiseModel
from cvsa_jax.operators.algebra import conjugate_gradients, is_linear, linearised
from cvsa_jax.operators.base import Operator
from cvsa_jax.spectral import Spectrum

ITERATIONS, LINEARISATIONS = 50, 4
WHITE = 0.25  # the variance of an image whose spectrum is not known


def linear_solution(
    measurement: jax.Array, operator: Operator, noise: NoiseModel, spectrum: Spectrum | None,
    image_shape: tuple[int, int, int],
) -> jax.Array:  # fmt: skip
    """The regularised pseudo-inverse x = S H' (H S H' + V)^-1 y, of shape `image_shape`.

    S has the images' spectrum on the diagonal of `spectral.forward`, and V the noise's variance: this is the mean of x
    given y if images were a Gaussian field. With x = S^1/2 z it minimises |z|^2 + |V^-1/2 (y - H S^1/2 z)|^2 by
    ITERATIONS of conjugate gradients, each of which has a smaller one: they find the strong, low frequencies first. A
    nonlinear H is linearised LINEARISATIONS times, at the last solution; of a linear one the first is the solution.

    Args:
      measurement: y, one real array. operator: H. noise: of y. spectrum: None is white, of variance WHITE.
      image_shape: (H, W, C).
    """
    working = jnp.result_type(float)
    known = spectrum is not None and len(spectrum.variance) == image_shape[-1]
    variance = jnp.asarray(WHITE, working)
    if spectrum is not None and known:
        variance = spectrum.variances(*image_shape[:2], working)

    def colour(z):
        return spectral.backward(jnp.sqrt(variance) * spectral.forward(z))

    def improve(x, _):
        value, forward, backward = linearised(operator, x)
        weight = 1 / jnp.broadcast_to(jnp.asarray(noise.variance(value), working), value.shape)
        right = colour(backward(weight * (measurement - value + forward(x))))

        def apply(z):
            return z + colour(backward(weight * forward(colour(z))))

        return colour(conjugate_gradients(apply, right, lambda r: r, ITERATIONS)), None

    x = jnp.zeros(image_shape, working)
    return jax.lax.scan(improve, x, length=1 if is_linear(operator, image_shape) else LINEARISATIONS)[0]
