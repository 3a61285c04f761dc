"""The observation velocity score grad_v log p(y | u_t) in its forms.

Each form returns the correction p of the posterior mean, E[x_0|u_t, y] = x_0hat + p; the
score itself is d_t p. Writing C = s_eff^2 J with J the denoiser's Jacobian, one pullback
of the network, scaled by 1/d_t, is w -> C' w.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cvsa_jax.operators.base import conjugate_gradients, restrict, solve_gram
from cvsa_jax.priors import Prior, coefficients
from cvsa_jax.samplers.base import to_device
from cvsa_jax.types import ConditionalMean, Info, Operator

SPECTRAL_ITERATIONS = 4
SECOND_MOMENT_ITERATIONS = 4


class Problem(NamedTuple):
    """What a form of guidance is given at one step.

    forward, backward: p -> J p and w -> J' w of the operator's derivative J at x_0hat.
    pull: w -> C' w. noise_variance: sigma^2. error_variance: r_t^2, the mean variance of
    x_0 given u_t. error_covariance: that covariance as a function, None if it is white.
    stiffness: 2 G b h d_t^2, so that an explicit step by p of size C moves x_0hat by
    stiffness C p.
    """

    operator: Operator
    forward: Callable
    backward: Callable
    residual: jax.Array
    pull: Callable
    noise_variance: jax.Array
    error_variance: jax.Array
    error_covariance: Callable | None
    stiffness: jax.Array


def plug_in(problem: Problem) -> jax.Array:
    """p = a C' H' r / sigma^2: the gradient of -|y - H(x_0hat)|^2 / (2 sigma^2), the paper's (13).

    Over-confident, since it takes x_0hat for x_0; explicit samplers need about 1000 steps.

    Deviation: a = min(1, 1 / (stiffness sigma^2 m^2)) with the curvature m = <H p, H p> / <r, H p>
    at a = 1. An explicit step is stable while stiffness sigma^2 m^2 < 2. For white images of
    variance 1/4 that number stays below .72 at 1000 uniform steps and sigma = .05, and a = 1;
    the low frequencies of photographs have a variance of hundreds, for which it reaches 750.
    """
    p = problem.pull(problem.backward(problem.residual) / problem.noise_variance)
    moved = problem.forward(p)
    tiny = jnp.finfo(moved.dtype).tiny
    curvature = jnp.vdot(moved, moved) / jnp.maximum(jnp.vdot(problem.residual, moved), tiny)
    load = problem.stiffness * problem.noise_variance * curvature**2
    return jnp.minimum(1.0, 1.0 / jnp.maximum(load, tiny)) * p


def covariance(problem: Problem) -> jax.Array:
    """p = a C' H' (sigma^2 I + r_t^2 H H')^-1 r, with r_t^2 for Cov[x_0 | u_t].

    Exact for a white Gaussian prior; a is the line search's.
    """
    return _shortened(problem, _solve_white(problem, problem.residual))


def spectral_covariance(problem: Problem) -> jax.Array:
    """p = a C' H' (sigma^2 I + H S H')^-1 r, with S = `Prior.error_covariance` for Cov[x_0 | u_t].

    The error of a denoiser of photographs is not white: under a blur, what is left to
    learn lies in the low frequencies that the blur lets through. Exact for a Gaussian prior
    of the data's spectrum, up to SPECTRAL_ITERATIONS of conjugate gradients, for which
    `covariance` is the preconditioner. The same as `covariance` for a prior without a spectrum.
    """
    if problem.error_covariance is None:
        return covariance(problem)
    return _iterated(problem, problem.error_covariance, SPECTRAL_ITERATIONS)


def second_moment(problem: Problem) -> jax.Array:
    """p = a C' H' (sigma^2 I + H C' H')^-1 r: the same C on both sides, the network's own.

    C = s_eff^2 J is the covariance of x_0 given u_t exactly, if the denoiser is. Each of
    the SECOND_MOMENT_ITERATIONS of conjugate gradients pulls back through the network once
    more, still from one evaluation. At high noise a network's Jacobian is not positive, and
    inpainting suffers from it.
    """
    return _iterated(problem, problem.pull, SECOND_MOMENT_ITERATIONS)


def _iterated(problem: Problem, spread: Callable, iterations: int) -> jax.Array:
    """The correction with (sigma^2 I + H spread H')^-1 r by conjugate gradients, `covariance` before them."""

    def gram(w):
        return problem.noise_variance * w + problem.forward(spread(problem.backward(w)))

    w = conjugate_gradients(gram, problem.residual, lambda r: _solve_white(problem, r), iterations)
    return _shortened(problem, w)


def _solve_white(problem: Problem, r: jax.Array) -> jax.Array:
    return solve_gram(
        problem.operator, problem.forward, problem.backward, r, problem.noise_variance, problem.error_variance
    )


def _shortened(problem: Problem, w: jax.Array) -> jax.Array:
    """a p for p = C' H' w, a = clip(<r, H p> / <H p, H p>, 0, 1).

    Where C exceeds what stands for it in the inverse, p overshoots; a minimises |r - a H p|^2
    and only ever shortens p.
    """
    p = problem.pull(problem.backward(w))
    moved = problem.forward(p)
    tiny = jnp.finfo(moved.dtype).tiny
    length = jnp.vdot(problem.residual, moved) / jnp.maximum(jnp.vdot(moved, moved), tiny)
    return jnp.clip(length, 0.0, 1.0) * p


GUIDANCES: dict[str, Callable[[Problem], jax.Array]] = {
    "plug_in": plug_in,
    "covariance": covariance,
    "spectral_covariance": spectral_covariance,
    "second_moment": second_moment,
}


def conditional_mean(
    measurement: jax.Array, operator: Operator, prior: Prior, noise_std, guidance: str, times, steps=0.0
) -> ConditionalMean:
    """(x, v, index) -> (E[x_0 | u_t, y], Info) at the float64 times given.

    `steps` are the lengths of the steps taken from there, by which `plug_in` is kept stable.
    One `jax.vjp` of the network in v: its primal is x_0hat, its pullback the guidance. A
    nonlinear H is replaced by its derivative at x_0hat (Gauss-Newton). The residual is the
    root mean square of one image's y - H(x_0hat).

    Raises:
      ValueError: on an unknown name.
    """
    if guidance not in GUIDANCES:
        raise ValueError(f"guidance must be one of {', '.join(GUIDANCES)}, got {guidance!r}")
    form = GUIDANCES[guidance]
    table = coefficients(prior.cld, times)
    stiffness = to_device(2 * prior.cld.damping * prior.cld.beta * steps * table.data**2)
    table = jax.tree.map(to_device, table)
    measurement = restrict(operator, measurement)

    def mean(x, v, index):
        c = jax.tree.map(lambda a: a[index], table)
        estimate, pullback = jax.vjp(lambda velocity: prior.mean(x, velocity, c), v)
        predicted, forward = jax.linearize(operator, estimate)
        backward = jax.linear_transpose(forward, estimate)
        r = measurement - predicted
        correction = form(
            Problem(
                operator,
                forward,
                lambda w: backward(w)[0],
                r,
                lambda w: pullback(w)[0] / c.data,
                noise_std**2,
                prior.error_variance(c.noise),
                prior.error_covariance(c.noise, x.shape),
                stiffness[index],
            )
        )
        return estimate + correction, Info(residual=jnp.sqrt(jnp.mean(r**2)))

    return mean
