"""Forms that know how uncertain x_0 is: by a number, by pixel, by frequency, or by the network itself."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cvsa_jax.guidance.base import Problem, Solution
from cvsa_jax.operators.base import CG_ITERATIONS, conjugate_gradients, solve_gram

ITERATIONS = 4
DENSE_SIZE = 16


def covariance(problem: Problem) -> Solution:
    """p = a C' H' (sigma^2 I + r_t^2 H H')^-1 r, with r_t^2 for Cov[x_0 | u_t].

    Exact for a white Gaussian prior; a is the line search's.
    """
    if jnp.ndim(problem.noise_variance) == 0:
        return _shortened(problem, _solve_white(problem, problem.residual))
    return _iterated(problem, lambda x: problem.error_variance * x)


def diagonal_covariance(problem: Problem) -> Solution:
    """p = a C' H' (sigma^2 I + H diag(c) H')^-1 r, with c = r_t^2 C'1 / mean(C'1), kept in r_t^2 [1/20, 20].

    One more pullback, of an image of ones, sums the rows of C and tells where in the image the
    prior is sure. Deviation: the sums alone would be the diagonal only of a diagonal C, and are
    many times too large where neighbours vary together; so their level is the calibration's.

    References: Boys et al. (2023), tweedie moment projected diffusions, arXiv:2310.06721, section 3.
    """
    sums = problem.pull(jnp.ones(problem.image_shape, problem.residual.dtype))
    mean = jnp.maximum(jnp.mean(sums), jnp.finfo(sums.dtype).tiny)
    c = problem.error_variance * jnp.clip(sums / mean, 0.05, 20.0)
    return _iterated(problem, lambda x: c * x)


def spectral_covariance(problem: Problem) -> Solution:
    """p = a C' H' (sigma^2 I + H S H')^-1 r, with S = `Prior.error_covariance` for Cov[x_0 | u_t].

    The error of a denoiser of photographs is not white: under a blur, what is left to
    learn lies in the low frequencies that the blur lets through. Exact for a Gaussian prior
    of the data's spectrum, up to the iterations of conjugate gradients, for which
    `covariance` is the preconditioner. The same as `covariance` for a prior without a spectrum.
    """
    if problem.error_covariance is None:
        return covariance(problem)
    return _iterated(problem, problem.error_covariance)


def second_moment(problem: Problem) -> Solution:
    """p = a C' H' (sigma^2 I + H C' H')^-1 r: the same C on both sides, the network's own.

    C = s_eff^2 J is the covariance of x_0 given u_t exactly, if the denoiser is. Each of
    the iterations of conjugate gradients pulls back through the network once more, still
    from one evaluation. At high noise a network's Jacobian is not positive, and inpainting
    suffers from it. A measurement of at most DENSE_SIZE numbers is solved exactly, its
    matrix made symmetric and its negative eigenvalues cut.
    """
    r = problem.residual
    if r.size > DENSE_SIZE:
        return _iterated(problem, problem.pull, cheap=False)._replace(log_determinant=None)
    basis = jnp.eye(r.size, dtype=r.dtype).reshape(r.size, *r.shape)
    gram = jax.vmap(lambda w: problem.forward(problem.pull(problem.backward(w))).ravel())(basis)
    values, vectors = jnp.linalg.eigh((gram + gram.T) / 2)
    noise = jnp.broadcast_to(problem.noise_variance, r.shape).ravel()
    matrix = (vectors * jnp.maximum(values, 0.0)) @ vectors.T + jnp.diag(noise)
    w = jnp.linalg.solve(matrix, r.ravel()).reshape(r.shape)
    return _shortened(problem, w)._replace(log_determinant=jnp.linalg.slogdet(matrix)[1])


def _iterated(problem: Problem, spread: Callable, cheap: bool = True) -> Solution:
    """The correction with (sigma^2 I + H spread H')^-1 r by conjugate gradients, `covariance` before them.

    Where `covariance` has no closed form and `spread` is cheap there are more of them instead.
    """

    def gram(w):
        return problem.noise_variance * w + problem.forward(spread(problem.backward(w)))

    exact = problem.operator.offers("solve_gram") or not cheap
    precondition = (lambda r: _solve_white(problem, r)) if exact else lambda r: r
    count = ITERATIONS if exact else CG_ITERATIONS
    return _shortened(problem, conjugate_gradients(gram, problem.residual, precondition, count, problem.dual))


def _solve_white(problem: Problem, r: jax.Array) -> jax.Array:
    """(sigma^2 I + r_t^2 H H')^-1 r, with the mean of sigma^2 where it differs from entry to entry."""
    noise = jnp.mean(jnp.asarray(problem.noise_variance))
    return solve_gram(problem.operator, problem.forward, problem.backward, r, noise, problem.error_variance)


def _shortened(problem: Problem, w: jax.Array) -> Solution:
    """a p for p = C' H' w, a = clip(<r, H p> / <H p, H p>, 0, 1).

    Where C exceeds what stands for it in the inverse, p overshoots; a minimises |r - a H p|^2
    and only ever shortens p. Where the noise is known to differ from entry to entry they count by their
    precision; without that a would be less than 1 even for the exact C.
    """
    p = problem.pull(problem.backward(w))
    moved = problem.forward(p)
    tiny = jnp.finfo(moved.dtype).tiny
    weighed = moved if problem.precision is None else problem.precision * moved
    length = jnp.vdot(problem.residual, weighed) / jnp.maximum(jnp.vdot(moved, weighed), tiny)
    return Solution(jnp.clip(length, 0.0, 1.0) * p, w)
