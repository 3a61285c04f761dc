"""No degradation but the noise."""

import flax.struct
import jax
import jax.numpy as jnp

from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.masks import Mask
from cvsa_jax.operators.task import SHORT_CHAINS, Task


@flax.struct.dataclass
class Identity(Operator):
    """H(x) = x: plain denoising."""

    @property
    def by_entry(self) -> bool:
        return True

    def __call__(self, x: jax.Array) -> jax.Array:
        return x

    def solve_gram(self, r, noise_variance, prior_variance):
        return r / (noise_variance + prior_variance)

    def padded(self, shape, larger):
        return Mask(jnp.ones((*shape[:2], 1))).padded(shape, larger)


TASKS = (
    Task(
        "denoise",
        "noise alone",
        lambda generator, height, width, settings: Identity(),
        (Identity,),
        accuracy={"guidance": "covariance"} | SHORT_CHAINS,  # plain noise tells no guidance from another; the cheapest
    ),
)
