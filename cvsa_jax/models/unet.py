"""The score network: a convolutional U-Net that runs on any size divisible by `stride`."""

import functools
import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.models.convolution import same_convolution

EPSILON = 1e-5  # of the norms
SUMS = np.array([[1, 0, 0], [0, 1, 1]], np.float32)

# flax's convolution with that gradient, of stride 1.
Conv = functools.partial(nn.Conv, conv_general_dilated=lambda x, kernel, *_, **__: same_convolution(x, kernel))


def _groups(channels: int) -> int:
    return next(g for g in (8, 4, 2, 1) if channels % g == 0)


class NoiseEmbedding(nn.Module):
    """Sinusoidal features of a scalar label in about [-2, 2], then a two-layer perceptron."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, label):
        frequency = jnp.asarray(np.geomspace(0.5, 64.0, 32), jnp.float32)
        angle = label[..., None] * frequency
        embedding = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1).astype(self.dtype)
        embedding = nn.silu(nn.Dense(self.features, dtype=self.dtype)(embedding))
        return nn.silu(nn.Dense(self.features, dtype=self.dtype)(embedding))


class GroupNorm(nn.Module):
    """Normalises the channels in groups, then scales and shifts each: (B, H, W, C) -> (B, H, W, C).

    x a + b with a = g (1 + scale) / deviation and b = (bias - g mean / deviation) (1 + scale) + shift. Sums are taken
    by channel, and all else of a and b is computed on (B, C): x is read once for its sums and once for the result,
    also by the pullback. a and b are sums by a product with SUMS, since XLA's loops over pixels would else compute
    them again at each, and take three to six times as long.
    """

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, scale: jax.Array | float = 0.0, shift: jax.Array | float = 0.0):
        batch, channels = x.shape[0], x.shape[-1]
        groups = _groups(channels)
        gain = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))

        def grouped(sums):  # the group's mean, at each of its channels
            mean = sums.reshape(batch, groups, -1).mean(-1)
            return jnp.repeat(mean, channels // groups, -1)

        exact = x.astype(jnp.float32)
        mean, square = grouped(exact.mean((1, 2))), grouped((exact**2).mean((1, 2)))
        gain = gain * jax.lax.rsqrt(jnp.maximum(square - mean**2, 0.0) + EPSILON)
        gain, bias = gain * (1 + scale), bias * (1 + scale) + shift
        terms = jnp.stack(jnp.broadcast_arrays(gain, bias, -gain * mean))
        a, b = jnp.einsum("jk,kbc->jbc", SUMS, terms, precision=jax.lax.Precision.HIGHEST)
        return (exact * a[:, None, None] + b[:, None, None]).astype(self.dtype)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions behind one normalisation that the noise level scales and shifts.

    One normalisation, not the usual two: on a CPU they cost as much as a convolution.
    """

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, embedding):
        scale_shift = nn.Dense(2 * x.shape[-1], dtype=self.dtype)(embedding)
        h = nn.silu(GroupNorm(self.dtype)(x, *jnp.split(scale_shift, 2, -1)))
        h = nn.silu(Conv(self.features, (3, 3), dtype=self.dtype)(h))
        zeros = nn.initializers.zeros
        h = Conv(self.features, (3, 3), dtype=self.dtype, kernel_init=zeros)(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, (1, 1), dtype=self.dtype)(x)
        return x + h


class SelfAttention(nn.Module):
    """Attention over all positions; its memory grows with the square of the pixel count."""

    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        h = GroupNorm(self.dtype)(x)
        h = h.reshape(x.shape[0], -1, x.shape[-1])
        h = nn.MultiHeadAttention(
            num_heads=max(1, x.shape[-1] // 64), dtype=self.dtype, out_kernel_init=nn.initializers.zeros,
            attention_fn=lambda query, key, value, *_, **__: jax.nn.dot_product_attention(query, key, value),
        )(h)  # fmt: skip
        return x + h.reshape(x.shape)


def space_to_depth(x: jax.Array, factor: int) -> jax.Array:
    """(B, H, W, C) to (B, H/factor, W/factor, factor^2 C): no information is lost."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // factor, factor, w // factor, factor, c)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h // factor, w // factor, -1)


def depth_to_space(x: jax.Array, factor: int) -> jax.Array:
    """The inverse of space_to_depth."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, factor, factor, c // factor**2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * factor, w * factor, -1)


class UNet(nn.Module):
    """U-Net with a space-to-depth stem and a full-resolution output stage.

    The stem keeps the costly full resolution out of the wide blocks; the last
    convolution sees the input again at full resolution, so that the pixels of one
    2x2 cell are not left independent of their neighbours.

    Args:
      channels: features of each level; each level halves the resolution of the last.
      encoder_blocks, decoder_blocks: residual blocks of each level.
      patch: factor of the stem (1 or 2).
      out_channels: channels of the output.
      head_features: features of the full-resolution output stage.
      attention: whether the lowest level attends over all positions.
      dtype: of the arithmetic inside; parameters and output are float32.
      remat: whether the pullback computes the inside of each block again, in place of keeping it.

    Call: (B, H, W, C), label (B,) -> (B, H, W, out_channels); H and W divisible by stride.
    """

    channels: Sequence[int] = (48, 96, 192)
    encoder_blocks: Sequence[int] = (1, 1, 2)
    decoder_blocks: Sequence[int] = (1, 1, 2)
    patch: int = 2
    out_channels: int = 3
    head_features: int = 24
    attention: bool = False
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @property
    def stride(self) -> int:
        """Heights and widths must be multiples of this."""
        return self.patch * 2 ** (len(self.channels) - 1)

    @nn.compact
    def __call__(self, x, label):
        image = x.astype(self.dtype)
        embedding = NoiseEmbedding(2 * self.channels[0], self.dtype)(label)
        h = space_to_depth(image, self.patch)
        h = Conv(self.channels[0], (3, 3), dtype=self.dtype)(h)
        skips, numbers = [], itertools.count()
        kept = nn.remat if self.remat else lambda block: block

        def residual(features, h):  # by its name, which `remat` would change
            return kept(ResidualBlock)(features, self.dtype, name=f"ResidualBlock_{next(numbers)}")(h, embedding)

        for level, (features, blocks) in enumerate(zip(self.channels, self.encoder_blocks, strict=True)):
            if level:
                h = Conv(features, (1, 1), dtype=self.dtype)(space_to_depth(h, 2))
            for _ in range(blocks):
                h = residual(features, h)
            skips.append(h)
        if self.attention:
            h = kept(SelfAttention)(self.dtype, name="SelfAttention_0")(h)
        for level in reversed(range(len(self.channels))):
            features = self.channels[level]
            if level < len(self.channels) - 1:
                h = depth_to_space(Conv(4 * features, (1, 1), dtype=self.dtype)(h), 2)
                h = Conv(features, (1, 1), dtype=self.dtype)(jnp.concatenate([h, skips[level]], -1))
            for _ in range(self.decoder_blocks[level]):
                h = residual(features, h)
        h = nn.silu(GroupNorm(self.dtype)(h))
        h = Conv(self.head_features * self.patch**2, (1, 1), dtype=self.dtype)(h)
        h = jnp.concatenate([nn.silu(depth_to_space(h, self.patch)), image], -1)
        out = Conv(self.out_channels, (3, 3), dtype=self.dtype, kernel_init=nn.initializers.zeros)(h)
        return out.astype(jnp.float32)
