"""A form that goes to the nearest image with the right measurement, without the network's Jacobian."""

import jax.numpy as jnp

from cvsa_jax.guidance.base import Problem, Solution
from cvsa_jax.operators.base import solve_gram

PROJECTION_NOISE = 1.5


def projection(problem: Problem) -> Solution:
    """p = S (S + n I)^-1 (project(x_0hat, y) - x_0hat), n = PROJECTION_NOISE sigma^2.

    `project` is the operator's own search for an image near x_0hat that measures y, which may go
    where no derivative at x_0hat points; S = `Prior.error_covariance`, or r_t^2 I, weighs it against
    the prior. An operator without one has p = r_t^2 H' (sigma^2 I + r_t^2 H H')^-1 r.
    """
    noise, r = jnp.mean(jnp.asarray(problem.noise_variance)), problem.residual
    near = problem.operator.project(problem.estimate, problem.measurement)
    if near is None:
        w = solve_gram(problem.operator, problem.forward, problem.backward, r, noise, problem.error_variance)
        return Solution(problem.error_variance * problem.backward(w), w)
    move, n = near - problem.estimate, PROJECTION_NOISE * noise
    if problem.error_gain is None:
        return Solution(problem.error_variance / (problem.error_variance + n) * move, r)
    return Solution(problem.error_gain(n)(move), r)
