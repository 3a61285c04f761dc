"""A form that goes to the nearest image with the right measurement, without the network's Jacobian."""

from cvsa_jax.guidance.base import Problem, Solution, harmonic_mean, log_determinant, white_solution

PROJECTION_NOISE = 1.5


def projection(problem: Problem) -> Solution:
    """p = S (S + n I)^-1 (project(x_0hat, y) - x_0hat), n = PROJECTION_NOISE sigma^2.

    `project` is the operator's own search for an image near x_0hat that measures y, which may go
    where no derivative at x_0hat points; S = `Prior.error_covariance`, or r_t^2 I, weighs it against
    the prior. An operator without one has p = r_t^2 H' (sigma^2 I + r_t^2 H H')^-1 r. A search
    has no p(y | u_t). Where sigma^2 differs from entry to entry n has its `harmonic_mean`.
    """
    r = problem.residual
    near = problem.operator.project(problem.estimate, problem.measurement)
    if near is None:
        w = white_solution(problem, r)
        spread = lambda x: problem.error_variance * x  # noqa: E731
        return Solution(spread(problem.backward(w)), w, log_determinant(problem, spread))
    move, n = near - problem.estimate, PROJECTION_NOISE * harmonic_mean(problem.noise_variance)
    if problem.error_gain is None:
        return Solution(problem.error_variance / (problem.error_variance + n) * move, r)
    return Solution(problem.error_gain(n)(move), r)
