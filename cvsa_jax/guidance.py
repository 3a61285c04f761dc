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
from cvsa_jax.types import ConditionalMean, Estimate, Info, Operator

ITERATIONS = {"diagonal_covariance": 4, "spectral_covariance": 4, "second_moment": 4}
DENSE_SIZE = 16
NORMALIZED_STEP = 1.0


class Problem(NamedTuple):
    """What a form of guidance is given at one step.

    forward, backward: p -> J p and w -> J' w of the operator's derivative J at x_0hat.
    pull: w -> C' w. noise_variance: sigma^2. error_variance: r_t^2, the mean variance of
    x_0 given u_t. error_covariance: that covariance as a function, None if it is white.
    image_shape: of x_0. dual: the last step's w, None at a form that does not iterate.
    data: d_t. mass: M. stiffness: 2 G b h d_t^2, so that an explicit step by p of size C moves
    x_0hat by stiffness C p.
    """

    operator: Operator
    forward: Callable
    backward: Callable
    residual: jax.Array
    pull: Callable
    noise_variance: jax.Array
    error_variance: jax.Array
    error_covariance: Callable | None
    image_shape: tuple[int, ...]
    dual: jax.Array | None
    data: jax.Array
    stiffness: jax.Array
    mass: float


class Solution(NamedTuple):
    """p = a C' H' w, and the w that it comes from, (sigma^2 I + H C H')^-1 r for some C.

    log_determinant: of that matrix, up to a number that all u_t of one time share; None
    where it is not known.
    """

    correction: jax.Array
    dual: jax.Array
    log_determinant: jax.Array | float | None = 0.0


def plug_in(problem: Problem) -> Solution:
    """p = a C' H' r / sigma^2: the gradient of -|y - H(x_0hat)|^2 / (2 sigma^2), the paper's (13).

    Over-confident, since it takes x_0hat for x_0; explicit samplers need about 1000 steps.

    Deviation: a = min(1, 1 / load), load = stiffness sigma^2 |p|^2 |H p|^2 / <r, H p>^2 at a = 1.
    An explicit step turns r into (I - K) r, K = stiffness H C C' H' / sigma^2, and is stable
    while K stays below 2; load is K's size at an eigenvector r, and never below
    <r, K r> / <r, r>. For white images of variance 1/4 it stays below .72 at 1000 uniform steps
    and sigma = .05, and a = 1; the low frequencies of photographs have a variance of hundreds.
    """
    dual = problem.residual / problem.noise_variance
    p = problem.pull(problem.backward(dual))
    moved = problem.forward(p)
    tiny = jnp.finfo(moved.dtype).tiny
    slope = jnp.maximum(jnp.vdot(problem.residual, moved), tiny)
    load = problem.stiffness * problem.noise_variance * (jnp.vdot(p, p) / slope) * (jnp.vdot(moved, moved) / slope)
    return Solution(jnp.minimum(1.0, 1.0 / jnp.maximum(load, tiny)) * p, dual)


def normalized_plug_in(problem: Problem) -> Solution:
    """p = NORMALIZED_STEP M / (2 G b h) C' H' r / |r|: the step of DPS, taken in velocity.

    An explicit step then adds -NORMALIZED_STEP grad |y - H(x_0hat)| to v / sqrt(M), which has
    unit variance as DPS's x has, whatever sigma and h are. |r| is one image's own. For
    comparison; made for explicit samplers.

    References: Chung et al. (2022), DPS, arXiv:2209.14687, algorithm 1, there for x.
    """
    size = jnp.maximum(jnp.sqrt(jnp.vdot(problem.residual, problem.residual)), jnp.finfo(problem.residual.dtype).tiny)
    scale = NORMALIZED_STEP * problem.mass * problem.data**2 / (problem.stiffness * size)
    dual = scale * problem.residual
    return Solution(problem.pull(problem.backward(dual)), dual)


def covariance(problem: Problem) -> Solution:
    """p = a C' H' (sigma^2 I + r_t^2 H H')^-1 r, with r_t^2 for Cov[x_0 | u_t].

    Exact for a white Gaussian prior; a is the line search's.
    """
    return _shortened(problem, _solve_white(problem, problem.residual))


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
    return _iterated(problem, lambda x: c * x, "diagonal_covariance")


def spectral_covariance(problem: Problem) -> Solution:
    """p = a C' H' (sigma^2 I + H S H')^-1 r, with S = `Prior.error_covariance` for Cov[x_0 | u_t].

    The error of a denoiser of photographs is not white: under a blur, what is left to
    learn lies in the low frequencies that the blur lets through. Exact for a Gaussian prior
    of the data's spectrum, up to the iterations of conjugate gradients, for which
    `covariance` is the preconditioner. The same as `covariance` for a prior without a spectrum.
    """
    if problem.error_covariance is None:
        return covariance(problem)
    return _iterated(problem, problem.error_covariance, "spectral_covariance")


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
        return _iterated(problem, problem.pull, "second_moment")._replace(log_determinant=None)
    basis = jnp.eye(r.size, dtype=r.dtype).reshape(r.size, *r.shape)
    gram = jax.vmap(lambda w: problem.forward(problem.pull(problem.backward(w))).ravel())(basis)
    values, vectors = jnp.linalg.eigh((gram + gram.T) / 2)
    values = problem.noise_variance + jnp.maximum(values, 0.0)
    w = vectors @ ((vectors.T @ r.ravel()) / values)
    return _shortened(problem, w.reshape(r.shape))._replace(log_determinant=jnp.sum(jnp.log(values)))


def _iterated(problem: Problem, spread: Callable, name: str) -> Solution:
    """The correction with (sigma^2 I + H spread H')^-1 r by conjugate gradients, `covariance` before them."""

    def gram(w):
        return problem.noise_variance * w + problem.forward(spread(problem.backward(w)))

    w = conjugate_gradients(gram, problem.residual, lambda r: _solve_white(problem, r), ITERATIONS[name], problem.dual)
    return _shortened(problem, w)


def _solve_white(problem: Problem, r: jax.Array) -> jax.Array:
    return solve_gram(
        problem.operator, problem.forward, problem.backward, r, problem.noise_variance, problem.error_variance
    )


def _shortened(problem: Problem, w: jax.Array) -> Solution:
    """a p for p = C' H' w, a = clip(<r, H p> / <H p, H p>, 0, 1).

    Where C exceeds what stands for it in the inverse, p overshoots; a minimises |r - a H p|^2
    and only ever shortens p.
    """
    p = problem.pull(problem.backward(w))
    moved = problem.forward(p)
    tiny = jnp.finfo(moved.dtype).tiny
    length = jnp.vdot(problem.residual, moved) / jnp.maximum(jnp.vdot(moved, moved), tiny)
    return Solution(jnp.clip(length, 0.0, 1.0) * p, w)


GUIDANCES: dict[str, Callable[[Problem], Solution]] = {
    "plug_in": plug_in,
    "normalized_plug_in": normalized_plug_in,
    "covariance": covariance,
    "diagonal_covariance": diagonal_covariance,
    "spectral_covariance": spectral_covariance,
    "second_moment": second_moment,
}


def first_dual(measurement: jax.Array, guidance: str) -> jax.Array | None:
    """Where the first inner solve starts: zero, or None for a form that solves without iterating."""
    return jnp.zeros_like(measurement) if guidance in ITERATIONS else None


def conditional_mean(
    measurement: jax.Array, operator: Operator, prior: Prior, noise_std, guidance: str, times, steps=1.0
) -> ConditionalMean:
    """(x, v, index, dual) -> Estimate at the float64 times given.

    `steps` are the lengths of the steps taken from there, by which `plug_in` is kept stable.
    One `jax.vjp` of the network in v: its primal is x_0hat, its pullback the guidance. A
    nonlinear H is replaced by its derivative at x_0hat (Gauss-Newton). The residual is the
    root mean square of one image's y - H(x_0hat). log_fit is -(<r, w> + log det)/2, that of
    y ~ N(H x_0hat, sigma^2 I + H C H').

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

    def mean(x, v, index, dual=None):
        c = jax.tree.map(lambda a: a[index], table)
        estimate, pullback = jax.vjp(lambda velocity: prior.mean(x, velocity, c), v)
        predicted, forward = jax.linearize(operator, estimate)
        backward = jax.linear_transpose(forward, estimate)
        r = measurement - predicted
        found = form(
            Problem(
                operator,
                forward,
                lambda w: backward(w)[0],
                r,
                lambda w: pullback(w)[0] / c.data,
                noise_std**2,
                prior.error_variance(c.noise),
                prior.error_covariance(c.noise, x.shape),
                x.shape,
                dual,
                c.data,
                stiffness[index],
                prior.cld.mass,
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
