"""Fourier and cosine transforms where the compiler splits images over devices: each is computed whole."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax

_SHARDING: contextvars.ContextVar[jax.sharding.Sharding | None] = contextvars.ContextVar("sharding", default=None)


@contextlib.contextmanager
def whole_transforms(sharding: jax.sharding.Sharding) -> Iterator[None]:
    """While a program is traced inside, what passes `whole` lies on the devices as `sharding` says."""
    token = _SHARDING.set(sharding)
    try:
        yield
    finally:
        _SHARDING.reset(token)


def whole(transform: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """transform(x), which no compiler splits over devices.

    On a CPU a Fourier transform that is split fails (jax 0.10.2); elsewhere all of it would be exchanged anyway.
    Outside of `whole_transforms`, which is where no image is split, nothing is added.
    """
    if (sharding := _SHARDING.get()) is None:
        return transform(x)
    return jax.lax.with_sharding_constraint(transform(jax.lax.with_sharding_constraint(x, sharding)), sharding)
