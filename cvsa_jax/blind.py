"""Blind deblurring: the image's chain and the kernel's side by side in one scan.

Both chains have the same constants and times, so that a sampler's step, which is linear with the
same coefficients everywhere, takes the pair as one long vector u = (x, k), and every sampler and
form of guidance serves. The measurement y = k * x + n is bilinear; guidance linearises it at
(x_0hat, k_0hat) in both at once.
"""

import dataclasses
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.noise import NoiseModel
from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.kernel_blur import REFLECT, Convolution
from cvsa_jax.operators.kernels import image_to_kernel
from cvsa_jax.plans import Plan
from cvsa_jax.priors import Coefficients, Prior
from cvsa_jax.restoration import make_loop
from cvsa_jax.samplers import Loop
from cvsa_jax.types import State


class Layout(NamedTuple):
    """How an image (H, W, C) and a kernel's image (K, K, 1) lie in one vector."""

    image_shape: tuple[int, int, int]
    kernel_side: int

    @property
    def size(self) -> int:
        """Length of the vector."""
        return int(np.prod(self.image_shape)) + self.kernel_side**2

    def pack(self, image: jax.Array, kernel: jax.Array) -> jax.Array:
        """One vector."""
        return jnp.concatenate([image.ravel(), kernel.ravel()])

    def unpack(self, vector: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(image, kernel's image)."""
        image, kernel = jnp.split(vector, [int(np.prod(self.image_shape))])
        return image.reshape(self.image_shape), kernel.reshape(self.kernel_side, self.kernel_side, 1)


@flax.struct.dataclass
class BlindConvolution(Operator):
    """H(x, k) = w(k) * x with w(k) = max(0, (k + 1)/2) / sum, the kernel that the image k stands for.

    Deviation: the paper convolves with the kernel chain's state itself, signed and of any sum.
    """

    boundary: str = flax.struct.field(pytree_node=False, default=REFLECT)

    def __call__(self, x: jax.Array, k: jax.Array) -> jax.Array:
        return Convolution(image_to_kernel(k), self.boundary)(x)


@flax.struct.dataclass
class PairPrior:
    """Independent priors of image and kernel, as one of the packed pair; the interface of `Prior`."""

    image: Prior
    kernel: Prior
    layout: Layout = flax.struct.field(pytree_node=False)

    @property
    def cld(self):
        """The diffusion of both."""
        return self.image.cld

    def mean(self, x: jax.Array, v: jax.Array, c: Coefficients) -> jax.Array:
        """E[x_0 | u_t] of the pair."""
        (x, k), (v, kernel_v) = self.layout.unpack(x), self.layout.unpack(v)
        return self.layout.pack(self.image.mean(x, v, c), self.kernel.mean(k, kernel_v, c))

    def at(self, _) -> "PairPrior":
        """The same with what was measured on images of the layout's size."""
        return dataclasses.replace(self, image=self.image.at(self.layout.image_shape))

    def error_variance(self, noise: jax.Array) -> jax.Array:
        """r_t^2 of each entry."""
        layout = self.layout
        image, kernel = jnp.ones(layout.image_shape), jnp.ones((layout.kernel_side, layout.kernel_side, 1))
        return layout.pack(self.image.error_variance(noise) * image, self.kernel.error_variance(noise) * kernel)

    def error_covariance(self, noise: jax.Array, _):
        """Cov of the pair, block by block; a block without a spectrum is white."""
        layout, blocks = self.layout, []
        for prior, shape in ((self.image, layout.image_shape), (self.kernel, (layout.kernel_side,) * 2 + (1,))):
            white = prior.error_variance(noise)
            blocks.append(prior.error_covariance(noise, shape) or (lambda a, white=white: white * a))

        def apply(vector):
            image, kernel = layout.unpack(vector)
            return layout.pack(blocks[0](image), blocks[1](kernel))

        return apply

    def error_gain(self, noise: jax.Array, _) -> None:
        """Not known of the pair as a whole."""


@flax.struct.dataclass
class _Packed(Operator):
    """An operator of (image, kernel) as one of the packed pair."""

    operator: Operator
    layout: Layout = flax.struct.field(pytree_node=False)

    def __call__(self, vector: jax.Array) -> jax.Array:
        return self.operator(*self.layout.unpack(vector))


def blind_loop(measurement: jax.Array, operator: Operator, prior: PairPrior, noise: NoiseModel, plan: Plan) -> Loop:
    """The loop of one blind restoration; the state has x, v, k and kernel_v.

    Args:
      measurement: y. operator: (x, k) -> H(x, k), such as `BlindConvolution`.
      prior: of both. noise: of the measurement. plan: of `make_plan`.

    References: algorithm 2 of the paper.
    """
    layout = prior.layout
    chain = make_loop(measurement, _Packed(operator, layout), prior, noise, plan)

    def unpacked(state: State) -> State:
        assert state.v is not None
        (x, k), (v, kernel_v) = layout.unpack(state.x), layout.unpack(state.v)
        return state._replace(x=x, v=v, k=k, kernel_v=kernel_v)

    def init(key: jax.Array, image_shape) -> State:
        if tuple(image_shape) != layout.image_shape:
            raise ValueError(f"the prior's layout is for {layout.image_shape}, not {tuple(image_shape)}")
        return unpacked(chain.init(key, (layout.size,)))

    def step(state: State, index):
        assert state.v is not None and state.k is not None and state.kernel_v is not None
        x, v = layout.pack(state.x, state.k), layout.pack(state.v, state.kernel_v)
        state, info = chain.step(state._replace(x=x, v=v, k=None, kernel_v=None), index)
        return unpacked(state), info

    return Loop(init, step)
