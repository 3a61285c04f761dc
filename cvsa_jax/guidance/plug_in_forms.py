"""Forms that take x_0hat for x_0: the paper's, and DPS's."""

import jax.numpy as jnp

from cvsa_jax.guidance.base import Problem, Solution
from cvsa_jax.numerics import norm, ratio

NORMALIZED_STEP = 1.0


def printed_plug_in(problem: Problem) -> Solution:
    """p = C' H' r / sigma^2: the gradient of -|y - H(x_0hat)|^2 / (2 sigma^2), the paper's (13).

    Over-confident, since it takes x_0hat for x_0; explicit samplers need about 1000 steps, and
    on photographs diverge even then.
    """
    dual = problem.residual / problem.noise_variance
    noise = jnp.broadcast_to(problem.noise_variance, dual.shape)
    log_determinant = 0.0 if problem.fixed_noise else jnp.sum(jnp.log(noise))
    return Solution(problem.pull(problem.backward(dual)), dual, log_determinant)


def plug_in(problem: Problem) -> Solution:
    """a times `printed_plug_in`, a = min(1, 1 / load), load = stiffness |p|^2 |H p / sigma|^2 / <r / sigma^2, H p>^2.

    Deviation: the paper has a = 1. An explicit step turns r into (I - K) r,
    K = stiffness H C C' H' / sigma^2, and is stable while K stays below 2; load is K's size at an
    eigenvector r, and never below <r, K r> / <r, r>. For white images of variance 1/4 it stays
    below .72 at 1000 uniform steps and sigma = .05, and a = 1; the low frequencies of
    photographs have a variance of hundreds.
    """
    p, dual, log_determinant = printed_plug_in(problem)
    moved = problem.forward(p)
    slope = jnp.vdot(dual, moved)
    # Divided twice, since the slope's square overflows.
    load = ratio(jnp.vdot(p, p), slope) * ratio(jnp.vdot(moved, moved / problem.noise_variance), slope)
    a = jnp.where(slope > 0, 1 / jnp.maximum(problem.stiffness * load, 1.0), 0.0)
    return Solution(a * p, dual, log_determinant)


def normalized_plug_in(problem: Problem) -> Solution:
    """p = NORMALIZED_STEP M / (2 G b h) C' H' r / |r|: the step of DPS, taken in velocity.

    An explicit step then adds -NORMALIZED_STEP grad |y - H(x_0hat)| to v / sqrt(M), which has
    unit variance as DPS's x has, whatever sigma and h are. |r| is one image's own. For
    comparison; made for explicit samplers. It has no p(y | u_t).

    References: Chung et al. (2022), DPS, arXiv:2209.14687, algorithm 1, there for x.
    """
    scale = NORMALIZED_STEP * problem.mass * problem.data**2 / problem.stiffness
    dual = scale * ratio(problem.residual, norm(problem.residual))
    return Solution(problem.pull(problem.backward(dual)), dual)
