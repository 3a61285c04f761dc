"""Seeds of 64 bits: each is a key of its own."""

import jax
import numpy as np

LARGEST = 2**64 - 1


def key_of_seed(seed: int) -> jax.Array:
    """The key of a seed from 0 to `LARGEST`; one below 2^32 is `jax.random.key(seed)`.

    `jax.random.key` itself takes 32 bits alone while arrays are float32: 0 and 2^32 would be one seed.
    """
    low, high = seed % 2**32, seed >> 32
    key = jax.random.key(np.uint32(low))
    if not high:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key).at[0].set(np.uint32(high)), impl=jax.random.key_impl(key))
