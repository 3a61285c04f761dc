"""One operator after another."""

import flax.struct
import jax

from cvsa_jax.operators.base import restrict
from cvsa_jax.types import Operator


@flax.struct.dataclass
class Chain:
    """H(x) = last(first(x))."""

    first: Operator
    last: Operator

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.last(self.first(x))

    def measure(self, x: jax.Array) -> jax.Array:
        """By each operator's own `measure` where it has one."""
        for operator in (self.first, self.last):
            x = getattr(operator, "measure", operator)(x)
        return x

    def restrict(self, y: jax.Array) -> jax.Array:
        return restrict(self.last, y)
