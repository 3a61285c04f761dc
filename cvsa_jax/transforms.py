"""Fourier and cosine transforms where the compiler splits images over devices: each is computed whole."""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_SHARDING: contextvars.ContextVar[jax.sharding.Sharding | None] = contextvars.ContextVar("sharding", default=None)


@contextlib.contextmanager
def whole_transforms(sharding: jax.sharding.Sharding) -> Iterator[None]:
    """While a program is traced inside, what passes `whole` lies on every device as `sharding` says."""
    token = _SHARDING.set(sharding)
    try:
        yield
    finally:
        _SHARDING.reset(token)


def whole(x: jax.Array) -> jax.Array:
    """The same array, not split over devices: what goes into a Fourier transform, and what comes out of it.

    The compiler cannot split such a transform on a CPU, and elsewhere would exchange all of it anyway. Outside of
    `whole_transforms`, which is where no image is split, this is x itself.
    """
    sharding = _SHARDING.get()
    return x if sharding is None else jax.lax.with_sharding_constraint(x, sharding)
