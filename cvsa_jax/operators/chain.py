"""One operator after another."""

import flax.struct
import jax
import numpy as np

from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.identity import Identity

# What a chain can only do where both of its operators can.
_BOTH = ("project", "first_guess")
# What a chain has no closed form of: H H' of two operators is no product of theirs.
_NEITHER = ("reduced", "solve_gram", "near_gram", "blur_kernel")


@flax.struct.dataclass
class Chain(Operator):
    """H(x) = last(first(x))."""

    first: Operator
    last: Operator

    def __call__(self, x: jax.Array):
        return self.last(self.first(x))

    def offers(self, method: str) -> bool:
        if method in _NEITHER:
            return False
        parts = [part.offers(method) for part in (self.first, self.last)]
        return all(parts) if method in _BOTH else any(parts)

    def restrict(self, y):
        return self.last.restrict(y)

    def measure(self, x: jax.Array):
        """By each operator's own `measure`."""
        return self.last.measure(self.first.measure(x))

    def expected(self, x: jax.Array, std: jax.Array):
        """The first operator's expectation seen by the last, at the same uncertainty.

        What x_0hat does not know goes together over areas, which a blur or a reduction hardly lessens.
        """
        return self.last.expected(self.first.expected(x, std), std)

    def project(self, x: jax.Array, y) -> jax.Array | None:
        """The last operator's projection of first(x), then the first's of x onto that."""
        between = self.last.project(self.first(x), y)
        return None if between is None else self.first.project(x, between)

    def first_guess(self, y, key: jax.Array) -> jax.Array | None:
        last_key, first_key = jax.random.split(key)
        between = self.last.first_guess(y, last_key)
        return None if between is None else self.first.first_guess(between, first_key)

    def padded(self, shape, larger):
        """Of operators that each leave the image's size as it is."""
        first, last = self.first.padded(shape, larger), self.last.padded(shape, larger)
        return None if first is None or last is None else Chain(first, last)

    def picture(self) -> np.ndarray | None:
        """Those of both side by side, on grey."""
        shown = [p for p in (self.first.picture(), self.last.picture()) if p is not None]
        if not shown:
            return None
        height = max(p.shape[0] for p in shown)
        filled = [np.pad(p, ((0, height - p.shape[0]), (0, 2), (0, 0)), constant_values=0.0) for p in shown]
        return np.concatenate(filled, 1)[:, :-2]


def chain(first: Operator, last: Operator) -> Operator:
    """One after the other; what does nothing is left out, so that the other keeps all that it offers."""
    if isinstance(first, Identity):
        return last
    return first if isinstance(last, Identity) else Chain(first, last)
