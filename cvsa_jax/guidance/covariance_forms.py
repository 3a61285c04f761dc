"""Forms that know how uncertain x_0 is: by a number, by pixel, by frequency, or by the network itself."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cvsa_jax.guidance.base import DENSE_SIZE, Problem, Solution, gram_matrix, log_determinant, white_solution
from cvsa_jax.numerics import ratio
from cvsa_jax.operators.algebra import conjugate_gradients

ITERATIONS = 4
NEAR_ITERATIONS = 3  # with an operator's `near_gram`, each of which brings more


def covariance(problem: Problem) -> Solution:
    """p = a C' H' (sigma^2 I + r_t^2 H H')^-1 r, with r_t^2 for Cov[x_0 | u_t].

    Exact for a white Gaussian prior; a is the line search's.
    """
    white = lambda x: problem.error_variance * x  # noqa: E731
    if jnp.ndim(problem.noise_variance) == 0:
        return _shortened(problem, white_solution(problem, problem.residual), log_determinant(problem, white))
    return _iterated(problem, white)


def diagonal_covariance(problem: Problem) -> Solution:
    """p = a C' H' (sigma^2 I + H diag(c) H')^-1 r, with c = r_t^2 C'1 / mean(C'1), kept in r_t^2 [1/20, 20].

    One more pullback, of an image of ones, sums the rows of C and tells where in the image the
    prior is sure. Deviation: the sums alone would be the diagonal only of a diagonal C, and are
    many times too large where neighbours vary together; so their level is the calibration's.

    References: Boys et al. (2023), tweedie moment projected diffusions, arXiv:2310.06721, section 3.
    """
    sums = problem.pull(jnp.ones(problem.image_shape, problem.residual.dtype))
    mean = jnp.mean(sums)
    c = problem.error_variance * jnp.clip(jnp.where(mean > 0, ratio(sums, mean), 1.0), 0.05, 20.0)
    return _iterated(problem, lambda x: c * x, varies=True)


def spectral_covariance(problem: Problem) -> Solution:
    """p = a C' H' (sigma^2 I + H S H')^-1 r, with S = `Prior.error_covariance` for Cov[x_0 | u_t].

    The error of a denoiser of photographs is not white: under a blur, what is left to
    learn lies in the low frequencies that the blur lets through. Exact for a Gaussian prior
    of the data's spectrum, up to the iterations of conjugate gradients, for which the
    operator's `near_gram` is the preconditioner, or else `covariance`. The same as
    `covariance` for a prior without a spectrum.
    """
    if problem.error_covariance is None:
        return covariance(problem)
    return _iterated(problem, problem.error_covariance, problem.near_gram)


def second_moment(problem: Problem) -> Solution:
    """p = a C' H' (sigma^2 I + H C' H')^-1 r: the same C on both sides, the network's own.

    C = s_eff^2 J is the covariance of x_0 given u_t exactly, if the denoiser is. Each of
    the iterations of conjugate gradients pulls back through the network once more, still
    from one evaluation. At high noise a network's Jacobian is not positive, and inpainting
    suffers from it. A measurement of at most DENSE_SIZE numbers is solved exactly, its
    matrix made symmetric and its negative eigenvalues cut.
    """
    return _iterated(problem, problem.pull, cheap=False, varies=True)


def _iterated(
    problem: Problem, spread: Callable, near: Callable | None = None, cheap: bool = True, varies: bool = False
) -> Solution:
    """The correction with (sigma^2 I + H spread H')^-1 r by conjugate gradients, `near` or `covariance` before them.

    Where `covariance` has no closed form and `spread` is cheap there are more of them instead. Of a measurement
    of at most DENSE_SIZE numbers by its matrix.
    """
    r = problem.residual
    if r.size <= DENSE_SIZE:
        matrix = gram_matrix(problem, spread, cut=not cheap)
        w = jnp.linalg.solve(matrix, r.ravel()).reshape(r.shape)
        return _shortened(problem, w, jnp.linalg.slogdet(matrix)[1])

    def apply(w):
        return problem.noise_variance * w + problem.forward(spread(problem.backward(w)))

    if near is not None:
        precondition, count = near, NEAR_ITERATIONS
    elif problem.operator.offers("solve_gram") or not cheap:
        precondition, count = lambda r: white_solution(problem, r), ITERATIONS
    else:
        precondition, count = lambda r: r, problem.operator.gram_iterations
    w = conjugate_gradients(apply, r, precondition, count, problem.dual)
    return _shortened(problem, w, log_determinant(problem, spread, varies))


def _shortened(problem: Problem, w: jax.Array, known: jax.Array | float | None) -> Solution:
    """a p for p = C' H' w, a = clip(<r, H p> / <H p, H p>, 0, 1).

    Where C exceeds what stands for it in the inverse, p overshoots; a minimises |r - a H p|^2
    and only ever shortens p. Where the noise is known to differ from entry to entry they count by their
    precision; without that a would be less than 1 even for the exact C.
    """
    p = problem.pull(problem.backward(w))
    moved = problem.forward(p)
    weighed = moved if problem.precision is None else problem.precision * moved
    length = ratio(jnp.vdot(problem.residual, weighed), jnp.vdot(moved, weighed))
    return Solution(jnp.clip(length, 0.0, 1.0) * p, w, known)
