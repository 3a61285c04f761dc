"""The networks that `cvsa train` trains: a preconditioned denoiser, and the velocity score in its mixed form."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from cvsa_jax import spectral
from cvsa_jax.diffusion import CLD
from cvsa_jax.parameterizations.base import Described, Network, Parameterization, Static
from cvsa_jax.priors import Prior, prior_from_denoiser, prior_from_velocity_network

SMALLEST_NOISE, LARGEST_NOISE = 2e-3, 300.0  # of the label; training draws these at most


def edm_denoise(spec: Described, network, params, x: jax.Array, sigma: jax.Array) -> jax.Array:
    """D(x; s) = c_skip x + c_out F(c_in x; c_noise) for a batch.

    c_skip = d^2/(s^2+d^2), c_out = s d/sqrt(s^2+d^2), c_in = 1/sqrt(s^2+d^2),
    c_noise = ln(s)/4, where d is the standard deviation of the data.

    With a spectrum, d^2 is the variance of each coefficient of `spectral.forward`, in which
    x and F are then scaled, and F is shown the image scaled as a whole beside the image scaled
    by coefficient. D then starts as the Wiener filter of the data instead of a constant
    shrinkage: on photographs the network is spared learning five orders of magnitude of
    amplitude, and the few images that a CPU can train on go into what is not linear.

    Args:
      spec: the network's description; network: `Network` of the module that it builds.
      x: (B, H, W, C).
      sigma: (B,).

    References: Karras, Aittala, Aila, Laine (2022), arXiv:2206.00364, table 1.

    Deviation: the spectrum; EDM's form is `spectrum=None`.
    """
    label = jnp.log(jnp.clip(sigma, SMALLEST_NOISE, LARGEST_NOISE)) / 4
    s = sigma[:, None, None, None]
    scaled = x / jnp.hypot(s, spec.data_std)  # whose square float32 may not hold
    if spec.spectrum is None:
        c_skip, c_out = _skip_and_out(spec.data_std**2, s)
        return c_skip * x + c_out * network(params, scaled, label)
    variance = spec.spectrum.variances(x.shape[1], x.shape[2], x.dtype)
    c_skip, c_out = _skip_and_out(variance, s)
    z = spectral.forward(x)
    white = spectral.backward(z / jnp.hypot(s, jnp.sqrt(variance)))
    output = network(params, jnp.concatenate([scaled, white], -1), label)
    return spectral.backward(c_skip * z + c_out * spectral.forward(output))


def _skip_and_out(variance, s):
    deviation = jnp.sqrt(variance)
    shrink = deviation / jnp.hypot(s, deviation)
    return shrink**2, s * shrink


def output_variance(spec, sigma: jax.Array) -> jax.Array:
    """The mean of c_out^2 over an image, (B,): the error per pixel of D before training."""
    s = sigma[:, None, None, None]
    variance = jnp.full((1, 1, 1), spec.data_std**2)
    if spec.spectrum is not None:
        variance = jnp.asarray(spec.spectrum.grid(spec.image_size, spec.image_size), sigma.dtype)
    return jnp.mean(_skip_and_out(variance, s)[1] ** 2, (1, 2, 3))


def velocity_alpha(network, mass: float, params, u: jax.Array, t: jax.Array) -> jax.Array:
    """alpha(u, t) for a batch; the velocity enters in units of its own deviation sqrt(M)."""
    position, velocity = jnp.split(u, 2, -1)
    u = jnp.concatenate([position, velocity / mass**0.5], -1)
    return network(params, u, jnp.log(t) / 4)


def _one_denoise(spec, network, params, x, sigma):
    sigma = jnp.broadcast_to(jnp.asarray(sigma, x.dtype), (1,))
    return edm_denoise(spec, network, params, x[None], sigma)[0]


def _one_alpha(network, mass, params, u, t):
    t = jnp.broadcast_to(jnp.asarray(t, u.dtype), (1,))
    return velocity_alpha(network, mass, params, u[None], t)[0]


def _denoiser(spec: Described, network: Network, params, cld: CLD) -> Prior:
    return prior_from_denoiser(Partial(Static(_one_denoise, (spec, network)), params), cld)


def _velocity(spec: Described, network: Network, params, cld: CLD) -> Prior:
    return prior_from_velocity_network(Partial(Static(_one_alpha, (network, cld.mass))), params, cld)


DENOISER = Parameterization(
    _denoiser, "a denoiser with EDM's preconditioning, by frequency where the spectrum is known",
    lambda spec: 1 if spec.spectrum is None else 2, trainable=True,
)  # fmt: skip
VELOCITY = Parameterization(
    _velocity, "the velocity score in its mixed form", lambda _: 2, fixed=True, trainable=True
)  # fmt: skip
