"""Pieces that the published networks share: their norm, time embedding, attention and resampling.

The statistics of norms, embeddings and softmax are float32 whatever the arithmetic of the rest.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def group_norm(groups: int, epsilon: float, name: str) -> nn.GroupNorm:
    """A group normalisation over each image, (B, ..., C) -> (B, ..., C) in float32.

    The variance is the mean square about the mean: the faster E[x^2] - E[x]^2 loses digits that published
    weights were trained with.
    """
    return nn.GroupNorm(groups, epsilon=epsilon, dtype=jnp.float32, use_fast_variance=False, name=name)


def sinusoids(label: jax.Array, features: int, *, cosine_first: bool, shift: float = 0.0) -> jax.Array:
    """Cosines and sines of label 10000^(-i / (half - shift)), i = 0, ..., half - 1: (B,) -> (B, features) float32.

    Args:
      label: what the network is told of the noise, as the step t; fractions are allowed.
      features: half of them, rounded down, are cosines and as many sines; an odd one at the end is zero.
      cosine_first: whether cosines come before sines.
      shift: 0 ends below the longest period, 1 at it.

    References: Vaswani et al. (2017), arXiv:1706.03762, section 3.5; Ho, Jain, Abbeel (2020), arXiv:2006.11239,
      appendix B.
    """
    half = features // 2
    # The exponent is float32 as in the official codes: at t = 1000 a frequency's last digit is 1e-4 of an angle.
    exponent = -np.log(np.float32(1e4)) * np.arange(half, dtype=np.float32) / np.float32(half - shift)
    frequency = np.exp(exponent.astype(np.float64)).astype(np.float32)
    angle = label.astype(jnp.float32)[:, None] * frequency
    parts = [jnp.cos(angle), jnp.sin(angle)]
    odd = [jnp.zeros((label.shape[0], features % 2), jnp.float32)]
    return jnp.concatenate((parts if cosine_first else parts[::-1]) + odd, -1)


class Attention(nn.Module):
    """Self-attention over all positions, (B, H, W, C) -> (B, H, W, C): (x + out(attention(norm(x)))) / scale.

    Softmax of q.k / sqrt(head_features) over the positions of the keys; positions are H W, row by row. The
    features of `qkv` are ordered [q, k, v][head][feature], those that `out` takes [head][feature].

    Args:
      heads: how many.
      head_features: of each head; None is C / heads.
      groups: of the norm; 0 is no norm.
      epsilon: of the norm.
      scale: what the sum is divided by.
      dtype: of the matrix products; the softmax is float32.
    """

    heads: int = 1
    head_features: int | None = None
    groups: int = 32
    epsilon: float = 1e-5
    scale: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        batch, *_, channels = x.shape
        width = self.head_features or channels // self.heads
        h = x.reshape(batch, -1, channels)
        h = group_norm(self.groups, self.epsilon, "norm")(h) if self.groups else h
        h = nn.Dense(3 * self.heads * width, dtype=self.dtype, name="qkv")(h)
        h = h.reshape(batch, -1, 3, self.heads, width)
        h = jax.nn.dot_product_attention(h[:, :, 0], h[:, :, 1], h[:, :, 2])
        h = nn.Dense(channels, dtype=self.dtype, name="out")(h.reshape(batch, -1, self.heads * width))
        return _divided(x + h.reshape(x.shape), self.scale)


def _divided(x: jax.Array, scale: float) -> jax.Array:
    return x if scale == 1 else x / scale


def strided_convolution(features: int, padding: tuple[int, int], name: str, dtype: jnp.dtype = jnp.float32) -> nn.Conv:
    """A 3x3 convolution of stride 2 with zeros before and after each side: (B, H, W, C) -> (B, H/2, W/2, features).

    Args:
      padding: (1, 1) is symmetric; (0, 1) adds to the right and the bottom alone.
    """
    return nn.Conv(features, (3, 3), strides=2, padding=(padding, padding), dtype=dtype, name=name)


def nearest_up(x: jax.Array) -> jax.Array:
    """Each pixel as 2x2 pixels: (B, H, W, C) -> (B, 2H, 2W, C)."""
    return x.repeat(2, 1).repeat(2, 2)


def average_down(x: jax.Array) -> jax.Array:
    """The mean of each 2x2 pixels: (B, H, W, C) -> (B, H/2, W/2, C); H and W even."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
