"""What the networks of EDM's code share: the block, the order of the blocks, the noise embedding.

References: Karras, Aittala, Aila, Laine (2022), arXiv:2206.00364, appendix F.2.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.models.blocks import Attention, group_norm
from cvsa_jax.models.fir import double, halve
from cvsa_jax.models.unet import Conv


class Entry(NamedTuple):
    """A place in the network: `name` is that of its parameters, `kind` one of first, down, in, up, block."""

    name: str
    kind: str
    level: int
    attends: bool = False


def encoder(levels: int, blocks: int, attention: tuple[int, ...]) -> list[Entry]:
    """The entries of the way down in their order, each of which leaves a skip.

    Args:
      levels: how many resolutions, level 0 the full one. blocks: of each level.
      attention: the levels whose blocks attend.
    """
    found = []
    for level in range(levels):
        found.append(Entry(f"enc{level}_down", "down", level) if level else Entry("enc0_first", "first", 0))
        found += [Entry(f"enc{level}_block{i}", "block", level, level in attention) for i in range(blocks)]
    return found


def decoder(levels: int, blocks: int, attention: tuple[int, ...], everywhere: bool) -> list[Entry]:
    """The entries of the way up in their order; the blocks take a skip each, the last one first.

    Args:
      everywhere: whether each block of an attending level attends, or its last alone.
    """
    last = levels - 1
    found = [Entry(f"dec{last}_in0", "in", last, True), Entry(f"dec{last}_in1", "in", last)]
    for level in reversed(range(levels)):
        found += [Entry(f"dec{level}_up", "up", level)] if level < last else []
        for i in range(blocks + 1):
            attends = level in attention and (everywhere or i == blocks)
            found.append(Entry(f"dec{level}_block{i}", "block", level, attends))
    return found


def groups_of(channels: int) -> int:
    """Of a norm: 32, or fewer so that each has four channels."""
    return min(32, channels // 4)


class Block(nn.Module):
    """A residual block that may resample and attend: (B, H, W, C), (B, E) -> (B, H', W', features).

    h = conv(silu(norm(x + e))) after conv(resample(silu(norm(x)))), e the embedding's share; then
    (h + skip(resample(x))) scale, and attention over that.

    Args:
      features: of the output.
      kind: 'down' halves the sides, 'up' doubles them; any other keeps them.
      heads: of the attention; 0 is none.
      taps: of the filter that resamples.
      scale_shift: whether the embedding scales and shifts after the second norm, or is added before it.
      scale: of the sums.
      epsilon: of the norms.
      projects: whether the skip of a block that resamples has a convolution although its width stays.
      dtype: of the convolutions; norms and embeddings are float32.
    """

    features: int
    kind: str = "block"
    heads: int = 0
    taps: tuple[float, ...] = (1, 1)
    scale_shift: bool = False
    scale: float = 1.0
    epsilon: float = 1e-5
    projects: bool = False
    dtype: jnp.dtype = jnp.float32

    def _resampled(self, x):
        if self.kind == "down":
            return halve(x, self.taps)
        return double(x, self.taps) if self.kind == "up" else x

    @nn.compact
    def __call__(self, x, embedding):
        resamples = self.kind in ("down", "up")
        norm = lambda x, name: group_norm(groups_of(x.shape[-1]), self.epsilon, name)(x)  # noqa: E731
        h = self._resampled(nn.silu(norm(x, "norm0")).astype(self.dtype))
        h = Conv(self.features, (3, 3), dtype=self.dtype, name="conv0")(h)
        share = nn.Dense(self.features * (2 if self.scale_shift else 1), name="affine")(embedding)[:, None, None]
        if self.scale_shift:
            scale, shift = jnp.split(share, 2, -1)
            h = norm(h, "norm1") * (scale + 1) + shift
        else:
            h = norm(h + share, "norm1")
        h = Conv(self.features, (3, 3), dtype=self.dtype, name="conv1")(nn.silu(h))
        skip = self._resampled(x.astype(self.dtype))
        if x.shape[-1] != self.features or (resamples and self.projects):
            skip = Conv(self.features, (1, 1), dtype=self.dtype, name="skip")(skip)
        h = (h + skip) * self.scale
        if self.heads:
            h = Attention(
                self.heads, None, groups_of(self.features), self.epsilon, 1 / self.scale, self.dtype, name="attention"
            )(h)
        return h


def positional(label: jax.Array, features: int, shift: int) -> jax.Array:
    """Cosines, then sines, of label 10000^(-i / (half - shift)): (B,) -> (B, features), features even."""
    half = features // 2
    # The exponent is rounded as it was where the weights were trained: at 999 its last digit moves an angle by 1e-4.
    exponent = np.arange(half, dtype=np.float32) / np.float32(max(half - shift, 1))
    frequency = np.float32(1e-4 ** exponent.astype(np.float64))
    return waves(label[:, None] * frequency)


def waves(angle: jax.Array) -> jax.Array:
    """(B, F) -> (B, 2 F): the cosines, then the sines."""
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)


def one_hot(classes: jax.Array | None, count: int, batch: int) -> jax.Array:
    """(batch, count): 1 at the class; zeros of no class."""
    return jnp.zeros((batch, count)) if classes is None else jax.nn.one_hot(classes, count)
