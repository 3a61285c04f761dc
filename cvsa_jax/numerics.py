"""Divisions and norms whose derivatives stay finite where they are guarded.

Autodiff differentiates both branches of `where` and squares a divisor, so that a guarded division has the gradient
0 x infinity where the guard holds, and at divisors below 1e-19 in float32. These have their derivative written out.
"""

from typing import Any

import jax
import jax.numpy as jnp


@jax.custom_jvp
def ratio(a: jax.Array, b: jax.Array) -> jax.Array:
    """a / b where b is positive and no denormal number; 0, with derivative 0, elsewhere. Real arrays of one shape."""
    return _divided(a, b, b)


@ratio.defjvp
def _(primals, tangents):
    (a, b), (da, db) = primals, tangents
    q = _divided(a, b, b)
    return q, _divided(da - q * db, b, b)


def _divided(a, b, positive):
    fine = positive > jnp.finfo(jnp.result_type(b)).tiny
    return jnp.where(fine, a / jnp.where(fine, b, 1.0), 0.0)


@jax.custom_jvp
def root(a: jax.Array) -> jax.Array:
    """The square root of a >= 0, with derivative 0 at 0."""
    return jnp.sqrt(a)


@root.defjvp
def _(primals, tangents):
    (a,), (da,) = primals, tangents
    r = jnp.sqrt(a)
    return r, _divided(da, 2 * r, r)


def norm(r: jax.Array) -> jax.Array:
    """The Euclidean norm of all entries, with derivative 0 at 0."""
    return root(jnp.vdot(r, r))


def sum_of_squares(tree: Any) -> jax.Array:
    """Of all numbers of a tree; a complex one counts with its squared magnitude."""
    square = lambda a: jnp.sum(a.real**2 + a.imag**2 if jnp.iscomplexobj(a) else a**2)  # noqa: E731
    return sum((square(a) for a in jax.tree.leaves(tree)), jnp.zeros(()))


@jax.custom_jvp
def positive_part(matrix: jax.Array) -> jax.Array:
    """V max(L, 0) V' of a symmetric matrix V L V'.

    Its derivative is V (G o V' dA V) V' with G_ij = (f(l_i) - f(l_j)) / (l_i - l_j), f = max(., 0) (Daleckii and
    Krein, 1965), which is bounded also where eigenvalues are alike and those of V are not.
    """
    values, vectors = jnp.linalg.eigh(matrix)
    return (vectors * jnp.maximum(values, 0.0)) @ vectors.T


@positive_part.defjvp
def _(primals, tangents):
    values, vectors = jnp.linalg.eigh(primals[0])
    cut = jnp.maximum(values, 0.0)
    gaps = values[:, None] - values[None]
    alike = jnp.abs(gaps) <= jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))
    slopes = jnp.where(alike, values[:, None] > 0, (cut[:, None] - cut[None]) / jnp.where(alike, 1.0, gaps))
    turned = vectors.T @ tangents[0] @ vectors
    return (vectors * cut) @ vectors.T, vectors @ (slopes * turned) @ vectors.T


def at_least_single(a: jax.Array) -> jax.Array:
    """An array in float32, or in its own kind if that is no shorter: Fourier transforms and decompositions need it."""
    return jnp.asarray(a, jnp.promote_types(jnp.result_type(a), jnp.float32))
