"""The observation velocity score grad_v log p(y | u_t) in its forms.

Each form returns the correction p of the posterior mean, E[x_0|u_t, y] = x_0hat + p; the
score itself is d_t p. Writing C = s_eff^2 J with J the denoiser's Jacobian, one pullback
of the network, scaled by 1/d_t, is w -> C' w.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cvsa_jax.operators.base import restrict, solve_gram
from cvsa_jax.priors import Prior, coefficients
from cvsa_jax.samplers.base import to_device
from cvsa_jax.types import ConditionalMean, Info, Operator


def plug_in(operator: Operator, linear, r, pull: Callable, noise_variance, prior_variance) -> jax.Array:
    """p = C' H' r / sigma^2: the gradient of -|y - H(x_0hat)|^2 / (2 sigma^2), the paper's (13).

    Over-confident, since it takes x_0hat for x_0; explicit samplers need about 1000 steps.
    """
    _, backward = linear
    return pull(backward(r) / noise_variance)


def covariance(operator: Operator, linear, r, pull: Callable, noise_variance, prior_variance) -> jax.Array:
    """p = a C' H' (sigma^2 I + r_t^2 H H')^-1 r, with r_t^2 for Cov[x_0 | u_t].

    Exact for a white Gaussian prior. Where the true variance exceeds r_t^2 (low frequencies
    under a blur) the step overshoots, so a = clip(<r, H p> / <H p, H p>, 0, 1) minimises
    |r - a H p|^2: it only ever shortens it.
    """
    forward, backward = linear
    w = solve_gram(operator, forward, backward, r, noise_variance, prior_variance)
    p = pull(backward(w))
    moved = forward(p)
    length = jnp.vdot(r, moved) / jnp.maximum(jnp.vdot(moved, moved), jnp.finfo(r.dtype).tiny)
    return jnp.clip(length, 0.0, 1.0) * p


GUIDANCES: dict[str, Callable] = {"plug_in": plug_in, "covariance": covariance}


def conditional_mean(
    measurement: jax.Array, operator: Operator, prior: Prior, noise_std, guidance: str, times
) -> ConditionalMean:
    """(x, v, index) -> (E[x_0 | u_t, y], Info) at the float64 times given.

    One `jax.vjp` of the network in v: its primal is x_0hat, its pullback the guidance. A
    nonlinear H is replaced by its derivative at x_0hat (Gauss-Newton). The residual is the
    root mean square of one image's y - H(x_0hat).

    Raises:
      ValueError: on an unknown name.
    """
    if guidance not in GUIDANCES:
        raise ValueError(f"guidance must be one of {', '.join(GUIDANCES)}, got {guidance!r}")
    form = GUIDANCES[guidance]
    table = jax.tree.map(to_device, coefficients(prior.cld, times))
    measurement = restrict(operator, measurement)

    def mean(x, v, index):
        c = jax.tree.map(lambda a: a[index], table)
        estimate, pullback = jax.vjp(lambda velocity: prior.mean(x, velocity, c), v)
        predicted, forward = jax.linearize(operator, estimate)
        backward = jax.linear_transpose(forward, estimate)
        r = measurement - predicted
        correction = form(
            operator,
            (forward, lambda w: backward(w)[0]),
            r,
            lambda w: pullback(w)[0] / c.data,
            noise_std**2,
            prior.error_variance(c.noise),
        )
        return estimate + correction, Info(residual=jnp.sqrt(jnp.mean(r**2)))

    return mean
