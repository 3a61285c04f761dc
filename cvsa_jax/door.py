"""What is checked of a measurement before anything compiles."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from cvsa_jax.operators.base import Operator, measured_shapes

UNKNOWN = "replace what is not known, and mask it"


def as_measurement(measurement: Any, operator: Operator) -> Any:
    """A measurement, an array or a tree of arrays, in the working precision; zero where it carries no data.

    Raises:
      ValueError: if it holds whole numbers, something that is no number, or, where it carries data, NaN or infinity.
    """
    if not jax.tree.leaves(measurement):
        raise ValueError("the measurement holds no numbers")
    numbers = jax.tree.map(_as_numbers, measurement)
    try:
        restricted = operator.restrict(numbers)
    except (TypeError, ValueError):
        return numbers  # of another shape, which `check_fit` tells in full
    if jax.tree.map(jnp.shape, restricted) != jax.tree.map(jnp.shape, numbers):
        return numbers
    numbers = restricted
    for leaf in jax.tree.leaves(numbers):
        if not isinstance(leaf, Tracer) and not np.isfinite(np.asarray(leaf)).all():
            raise ValueError(f"the measurement holds NaN or infinite numbers: {UNKNOWN}")
    return numbers


def _as_numbers(leaf: Any) -> jax.Array:
    try:
        dtype = jnp.result_type(leaf)
    except TypeError as error:
        raise ValueError(f"the measurement holds a {type(leaf).__name__}, which is no number") from error
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(f"the measurement is {dtype}, but numbers in [-1, 1] are needed: y / 127.5 - 1 of 8 bits")
    real = jnp.result_type(float)
    working = jnp.result_type(real, jnp.complex64) if jnp.issubdtype(dtype, jnp.complexfloating) else real
    return jnp.asarray(leaf, working)


def check_fit(measurement: Any, operator: Operator | Callable, image_shape: tuple[int, ...]) -> None:
    """Raises ValueError unless the operator takes such an image and measures what was measured, precisely enough."""
    shape, working = tuple(image_shape), jnp.result_type(float)
    expected = measured_shapes(operator, shape)
    for leaf in jax.tree.leaves(expected):
        if leaf.dtype not in (working, jnp.result_type(working, jnp.complex64)):
            raise ValueError(f"the operator measures {leaf.dtype} of an image of {working}: cast what it returns")
    found, wanted = (jax.tree.map(_describe, tree) for tree in (measurement, expected))
    if found != wanted:
        raise ValueError(f"the measurement is {found}, but the operator measures {wanted} of an image {shape}")


def _describe(leaf: Any) -> str:
    kind = "complex " if jnp.issubdtype(leaf.dtype, jnp.complexfloating) else ""
    return f"{kind}{tuple(leaf.shape)}"
