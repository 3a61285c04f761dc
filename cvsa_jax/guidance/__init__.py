"""The observation velocity score grad_v log p(y | u_t) in its forms.

Each form returns the correction p of the posterior mean, E[x_0|u_t, y] = x_0hat + p; the
score itself is d_t p. Writing C = s_eff^2 J with J the denoiser's Jacobian, one pullback
of the network, scaled by 1/d_t, is w -> C' w.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cvsa_jax.guidance.base import Problem, Solution
from cvsa_jax.guidance.covariance import (
    ITERATIONS,
    covariance,
    diagonal_covariance,
    second_moment,
    spectral_covariance,
)
from cvsa_jax.guidance.plug_in import normalized_plug_in, plug_in, printed_plug_in
from cvsa_jax.guidance.projection import projection
from cvsa_jax.noise import NoiseModel, as_noise
from cvsa_jax.operators.base import restrict
from cvsa_jax.priors import Prior, coefficients
from cvsa_jax.samplers.base import to_device
from cvsa_jax.types import ConditionalMean, Estimate, Info, Operator

# The errors of x_0hat go together over areas, where they are larger than r_t says of the mean pixel: at 1, 2
# and 3 the first six samples came to 23.8, 27.1 and 24.7 dB (experiments.restore --task=hdr --limit=6).
SPREAD = 2.0
GUIDANCES: dict[str, Callable[[Problem], Solution]] = {
    "plug_in": plug_in,
    "printed_plug_in": printed_plug_in,
    "normalized_plug_in": normalized_plug_in,
    "covariance": covariance,
    "diagonal_covariance": diagonal_covariance,
    "spectral_covariance": spectral_covariance,
    "second_moment": second_moment,
    "projection": projection,
}


def first_dual(measurement: jax.Array, guidance: str) -> jax.Array | None:
    """Where the first inner solve starts: zero, or None for a form that solves without iterating."""
    return jnp.zeros_like(measurement) if guidance in ITERATIONS else None


def conditional_mean(
    measurement: jax.Array,
    operator: Operator,
    prior: Prior,
    noise: float | NoiseModel,
    guidance: str,
    times,
    steps=1.0,
    data_weight: float = 1.0,
) -> ConditionalMean:
    """(x, v, index, dual) -> Estimate at the float64 times given.

    `steps` are the lengths of the steps taken from there, by which `plug_in` is kept stable.
    One `jax.vjp` of the network in v: its primal is x_0hat, its pullback the guidance. A
    nonlinear H is replaced by its derivative at x_0hat (Gauss-Newton), after averaging over what is not
    known of x_0 where the operator can do that. The residual is the
    root mean square of one image's y - H(x_0hat). log_fit is -(<r, w> + log det)/2, that of
    y ~ N(H x_0hat, sigma^2 I + H C H'). sigma^2 is the noise's variance where H(x) = H(x_0hat), a
    number or one for each entry of y, over data_weight: the posterior is that of p(y | x)^data_weight.

    Raises:
      ValueError: on an unknown name.
    """
    if guidance not in GUIDANCES:
        raise ValueError(f"guidance must be one of {', '.join(GUIDANCES)}, got {guidance!r}")
    form, noise = GUIDANCES[guidance], as_noise(noise)
    table = coefficients(prior.cld, times)
    stiffness = to_device(2 * prior.cld.damping * prior.cld.beta * steps * table.data**2)
    table = jax.tree.map(to_device, table)
    measurement = restrict(operator, measurement)
    model = getattr(operator, "expected", lambda image, _: operator(image))

    def mean(x, v, index, dual=None):
        c = jax.tree.map(lambda a: a[index], table)
        estimate, pullback = jax.vjp(lambda velocity: prior.mean(x, velocity, c), v)
        spread = SPREAD * jnp.sqrt(prior.error_variance(c.noise))
        predicted, forward = jax.linearize(lambda image: model(image, spread), estimate)
        backward = jax.linear_transpose(forward, estimate)
        r = measurement - predicted
        found = form(
            Problem(
                operator,
                forward,
                lambda w: backward(w)[0],
                r,
                lambda w: pullback(w)[0] / c.data,
                noise.variance(predicted) / data_weight,
                prior.error_variance(c.noise),
                prior.error_covariance(c.noise, x.shape),
                x.shape,
                dual,
                c.data,
                stiffness[index],
                prior.cld.mass,
                estimate,
                measurement,
                prior.error_gain(c.noise, x.shape),
            )
        )
        fit = None
        if found.log_determinant is not None:
            fit = -(jnp.vdot(r, found.dual) + found.log_determinant) / 2
        return Estimate(
            estimate + found.correction,
            Info(residual=jnp.sqrt(jnp.mean(r**2))),
            found.correction,
            fit,
            None if dual is None else found.dual,
        )

    return mean
