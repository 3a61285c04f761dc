"""The linear algebra that autodiff gives every operator: derivatives, adjoints, inner solves, residuals."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr

from cvsa_jax.numerics import ratio, root, sum_of_squares
from cvsa_jax.operators.base import Operator


def adjoint(operator: Callable, image_shape: tuple[int, ...]) -> Callable:
    """H' of a linear operator, by transposing its program: <H x, y> = <x, H' y>."""
    example = jax.ShapeDtypeStruct(image_shape, jnp.result_type(float))
    transpose = jax.linear_transpose(operator, example)
    return lambda y: transpose(y)[0]


def is_linear(operator: Callable, image_shape: tuple[int, ...]) -> bool:
    """Whether H is linear as a program: whether autodiff can transpose it. x -> A x + b counts as not linear."""
    example = jax.ShapeDtypeStruct(image_shape, jnp.result_type(float))
    try:
        jax.eval_shape(jax.linear_transpose(operator, example), jax.eval_shape(operator, example))
    except Exception:  # what cannot be transposed fails in as many ways as there are operations
        return False
    return True


def linearised(function: Callable, x: jax.Array) -> tuple[Any, Callable, Callable]:
    """(f(x), p -> J p, w -> J' w) with J the derivative of f at x.

    A function with a gradient of its own (`jax.custom_vjp`) has no forward mode; there J p is the transpose
    of w -> J' w.
    """
    if _states_its_gradient(jax.make_jaxpr(function)(x)):
        value, pullback = jax.vjp(function, x)
        again = jax.linear_transpose(lambda w: pullback(w)[0], value)
        return value, lambda p: again(p)[0], lambda w: pullback(w)[0]
    value, forward = jax.linearize(function, x)
    transpose = jax.linear_transpose(forward, x)
    return value, forward, lambda w: transpose(w)[0]


def _states_its_gradient(program: Any) -> bool:
    """Whether there is a `jax.custom_vjp` in a program, or in a program within it."""
    if isinstance(program, list | tuple):
        return any(map(_states_its_gradient, program))
    program = getattr(program, "jaxpr", program)  # of a closed one
    if not isinstance(program, Jaxpr):
        return False
    return any(
        e.primitive.name.startswith("custom_vjp") or _states_its_gradient(list(e.params.values())) for e in program.eqns
    )


def root_mean_square(operator: Operator, r: Any) -> jax.Array:
    """Of a difference r of measurements, a tree of arrays, over the entries that carry data.

    The real and the imaginary part of a complex entry count as two.
    """
    count: Any = sum(leaf.size * (2 if jnp.iscomplexobj(leaf) else 1) for leaf in jax.tree.leaves(r))
    if operator.offers("restrict"):
        ones = operator.restrict(jax.tree.map(lambda a: jnp.full_like(a, 1 + 1j if jnp.iscomplexobj(a) else 1), r))
        count = jnp.maximum(sum(_parts_seen(a) for a in jax.tree.leaves(ones)), 1)
    return root(sum_of_squares(operator.restrict(r)) / count)


def _parts_seen(ones: jax.Array) -> jax.Array:
    parts = (ones.real, ones.imag) if jnp.iscomplexobj(ones) else (ones,)
    return sum((jnp.sum(part != 0) for part in parts), jnp.zeros((), int))


def solve_gram(
    operator: Operator, forward: Callable, backward: Callable, r: jax.Array, noise_variance, prior_variance
) -> jax.Array:
    """w = (noise_variance I + prior_variance J J')^-1 r, J the operator's derivative.

    Uses the operator's own closed form if it has one, else its `gram_iterations` of conjugate
    gradients from w = 0; the iterations of one image never depend on its neighbours.

    Args:
      operator: the operator.
      forward: p -> J p.
      backward: w -> J' w.
      r: of the measurement's shape.
      noise_variance: scalar > 0. prior_variance: the same; without a closed form also of x's shape.
    """
    if operator.offers("solve_gram"):
        return cast(jax.Array, operator.solve_gram(r, noise_variance, prior_variance))

    def apply(w):
        return noise_variance * w + forward(prior_variance * backward(w))

    return conjugate_gradients(apply, r, lambda a: a, operator.gram_iterations)


def conjugate_gradients(
    apply: Callable, r: jax.Array, precondition: Callable, iterations: int, guess: jax.Array | None = None
) -> jax.Array:
    """An approximation to apply^-1 r by preconditioned conjugate gradients, unrolled.

    The first direction is `guess`, if there is one (a solution of a similar system), and its
    length is chosen like every other's, so that a bad guess does no harm. A direction along
    which `apply` is not positive (a network's Jacobian need not be) is not followed.

    Args:
      apply: symmetric positive, w -> A w.
      r: the right-hand side.
      precondition: symmetric positive, near A^-1.
      iterations: the fixed number of applications of A.
      guess: of r's shape.
    """

    def follow(w, r, direction, slope):
        image = apply(direction)
        length = ratio(slope, jnp.vdot(direction, image))
        return w + length * direction, r - length * image

    w = jnp.zeros_like(r)
    if guess is not None and iterations:
        w, r = follow(w, r, guess, jnp.vdot(r, guess))
        iterations -= 1
    direction = precondition(r)
    energy = jnp.vdot(r, direction)
    # Below this the residual is rounding, and so would be the directions.
    floor = jnp.finfo(r.dtype).eps ** 2 * energy
    for _ in range(iterations):
        w, r = follow(w, r, direction, jnp.where(energy > floor, energy, 0.0))
        z = precondition(r)
        new_energy = jnp.vdot(r, z)
        direction = z + ratio(new_energy, energy) * direction
        energy = new_energy
    return w
