"""What a form of guidance is given, and what it answers."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cvsa_jax.numerics import positive_part
from cvsa_jax.operators.algebra import solve_gram
from cvsa_jax.operators.base import Operator

# Measurements of at most so many numbers are solved by their matrix.
DENSE_SIZE = 16


class Problem(NamedTuple):
    """What a form of guidance is given at one step.

    forward, backward: p -> J p and w -> J' w of the operator's derivative J at x_0hat.
    pull: w -> C' w. noise_variance: sigma^2, a number or of y's shape. error_variance: r_t^2, the mean variance of
    x_0 given u_t. error_covariance: that covariance as a function, None if it is white.
    near_gram: the operator's own, at this S and sigma^2; None where there is none.
    image_shape: of x_0. dual: the last step's w, None at a form that does not iterate.
    data: d_t. mass: M. stiffness: 2 G b h d_t^2, so that an explicit step by p of size C moves
    x_0hat by stiffness C p. estimate: x_0hat. measurement: y. error_gain: n -> the function
    S (S + n I)^-1 of an image, S the error_covariance; None if it is white. precision: 1 / sigma^2 of each entry,
    where it differs and does not depend on H(x); else None. fixed_noise: whether sigma^2 is the same for every x.
    linear: whether J is.
    """

    operator: Operator
    forward: Callable
    backward: Callable
    residual: jax.Array
    pull: Callable
    noise_variance: jax.Array | float
    error_variance: jax.Array
    error_covariance: Callable | None
    image_shape: tuple[int, ...]
    dual: jax.Array | None
    data: jax.Array
    stiffness: jax.Array
    mass: float
    estimate: jax.Array
    measurement: jax.Array
    error_gain: Callable | None
    precision: jax.Array | float | None = None
    fixed_noise: bool = True
    linear: Callable[[], bool] = lambda: False
    near_gram: Callable | None = None


class Solution(NamedTuple):
    """p = a C' H' w, and the w that it comes from, (sigma^2 I + H C H')^-1 r for some C.

    log_determinant: of that matrix, up to a number that all u_t of one time share; None
    where it is not known, or w is no such solution: then log p(y | u_t) is not known.
    """

    correction: jax.Array
    dual: jax.Array
    log_determinant: jax.Array | float | None = None


class Form(NamedTuple):
    """A form of guidance.

    solve: Problem -> Solution. iterates: whether it solves by iteration, and so may begin at the last dual.
    """

    solve: Callable[[Problem], Solution]
    iterates: bool = False

    def __call__(self, problem: Problem) -> Solution:
        """The form's solution."""
        return self.solve(problem)


def white_solution(problem: Problem, r: jax.Array) -> jax.Array:
    """(sigma^2 I + r_t^2 H H')^-1 r, or near it where sigma^2 differs from entry to entry.

    There it is D (n I + r_t^2 H H')^-1 D r with D^2 = n / sigma^2 and n = `harmonic_mean(sigma^2)`, unless the
    operator's own form takes one sigma^2 for each entry.
    """
    noise, prior = problem.noise_variance, problem.error_variance
    solve = lambda r, n: solve_gram(problem.operator, problem.forward, problem.backward, r, n, prior)  # noqa: E731
    if jnp.ndim(noise) == 0 or problem.operator.by_entry:
        return solve(r, noise)
    level = harmonic_mean(noise)
    scale = jnp.sqrt(level / noise)
    return scale * solve(scale * r, level)


def harmonic_mean(variance: jax.Array | float) -> jax.Array:
    """One number for a variance that may differ from entry to entry: that of the mean precision."""
    return 1 / jnp.mean(1 / jnp.asarray(variance))


def gram_matrix(problem: Problem, spread: Callable, cut: bool = False) -> jax.Array:
    """sigma^2 I + H spread H' as a symmetric matrix, for a measurement of few numbers.

    cut: make the negative eigenvalues of H spread H' zero.
    """
    r = problem.residual
    basis = jnp.eye(r.size, dtype=r.dtype).reshape(r.size, *r.shape)
    moved = jax.vmap(lambda w: problem.forward(spread(problem.backward(w))).ravel())(basis)
    moved = (moved + moved.T) / 2
    noise = jnp.broadcast_to(problem.noise_variance, r.shape).ravel()
    return (positive_part(moved) if cut else moved) + jnp.diag(noise)


def log_determinant(problem: Problem, spread: Callable, varies: bool = False) -> jax.Array | float | None:
    """log det(sigma^2 I + H spread H'), up to a number that all u_t of one time share; None where it is not known.

    It is such a number itself where neither H's derivative nor the noise nor spread (`varies`) depends on u_t.
    """
    if problem.residual.size <= DENSE_SIZE:
        return jnp.linalg.slogdet(gram_matrix(problem, spread))[1]
    return 0.0 if problem.fixed_noise and not varies and problem.linear() else None
