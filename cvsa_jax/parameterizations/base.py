"""What turns a network into a prior is told: the network's description, the network, its parameters."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvsa_jax.diffusion import CLD
from cvsa_jax.priors import Prior
from cvsa_jax.spectral import Spectrum


class Described(Protocol):
    """The part of `NetworkSpec` that says how a network becomes a prior."""

    @property
    def data_std(self) -> float: ...

    @property
    def spectrum(self) -> Spectrum | None: ...

    @property
    def constants(self) -> Mapping[str, Any]: ...

    @property
    def image_channels(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class Static:
    """A function with static leading arguments that hashes by value, so jit caches it."""

    function: Any
    arguments: tuple

    def __call__(self, *args):
        return self.function(*self.arguments, *args)


@dataclasses.dataclass(frozen=True)
class Network:
    """A Flax module, with the class that it is asked for: (params, x (B, H, W, C), label (B,)) -> (B, H, W, out)."""

    module: nn.Module
    class_label: int | None = None

    def __call__(self, params, x: jax.Array, label: jax.Array) -> jax.Array:
        if self.class_label is None:
            return cast(jax.Array, self.module.apply(params, x, label))
        classes = jnp.full(x.shape[:1], self.class_label, jnp.int32)
        return cast(jax.Array, self.module.apply(params, x, label, classes))


class Parameterization(NamedTuple):
    """How a network becomes a prior.

    prior: (description, network, parameters, diffusion) -> Prior, without what was measured of it.
    summary: what the network predicts, for people.
    inputs: images that the network sees side by side on the channels, given its description.
    fixed: whether the prior serves only the diffusion of its description.
    trainable: whether `cvsa train` trains such networks.
    exact: whether bfloat16 costs its output what it is good for, so that float32 is the default everywhere.
    """

    prior: Callable[[Any, Network, Any, CLD], Prior]
    summary: str
    inputs: Callable[[Any], int] = lambda _: 1
    fixed: bool = False
    trainable: bool = False
    exact: bool = False
