"""The ADM network as EDM's code has it.

References: Dhariwal, Nichol (2021), arXiv:2105.05233, appendix; Karras, Aittala, Aila, Laine (2022),
  arXiv:2206.00364, appendix F.2.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from cvsa_jax.models.blocks import group_norm
from cvsa_jax.models.edm_blocks import Block, decoder, encoder, groups_of, one_hot, positional
from cvsa_jax.models.unet import Conv

HEAD_FEATURES = 64


class Embedding(nn.Module):
    """What the network is told, (B,) and (B,) or None -> (B, features)."""

    waves: int
    features: int
    classes: int = 0

    @nn.compact
    def __call__(self, label, classes=None):
        h = nn.silu(nn.Dense(self.features, name="layer0")(positional(label.astype(jnp.float32), self.waves, shift=0)))
        h = nn.Dense(self.features, name="layer1")(h)
        if self.classes:
            known = one_hot(classes, self.classes, len(label))
            h = h + nn.Dense(self.features, use_bias=False, name="class")(known)
        return nn.silu(h)


class DhariwalUNet(nn.Module):
    """U-Net of residual blocks that the embedding scales and shifts, with attention in heads of 64 features.

    Blocks narrower than a head do not attend, whatever is asked.

    Args:
      model_channels: each level has channel_mult times as many features, the first convolution those of level 0.
      channel_mult: of each level, the full resolution first; each level halves the sides of the last.
      num_blocks: residual blocks of each level on the way down, one less than on the way up.
      attention: levels whose blocks attend, down and up.
      channel_mult_emb: features of the embedding.
      classes: number of classes; without one of them the network is told zeros.
      out_channels: of the output.
      levels_of_noise: length of a table that travels with the parameters; the network itself does not use it.
      dtype: of the arithmetic inside; parameters and output are float32.
      remat: whether the pullback computes the inside of each block again, in place of keeping it.

    Call: (B, H, W, C), label (B,), classes (B,) or None -> (B, H, W, out_channels); H and W divisible by stride.
    """

    model_channels: int = 192
    channel_mult: tuple[int, ...] = (1, 2, 3, 4)
    num_blocks: int = 3
    attention: tuple[int, ...] = (1, 2, 3)
    channel_mult_emb: int = 4
    classes: int = 0
    out_channels: int = 3
    levels_of_noise: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @property
    def stride(self) -> int:
        """Heights and widths must be multiples of this."""
        return 2 ** (len(self.channel_mult) - 1)

    @nn.compact
    def __call__(self, x, label, classes=None):
        if self.levels_of_noise:
            self.param("levels_of_noise", nn.initializers.zeros, (self.levels_of_noise,))
        base, levels = self.model_channels, len(self.channel_mult)
        embedding = Embedding(base, base * self.channel_mult_emb, self.classes, name="embedding")(label, classes)
        block = functools.partial(
            nn.remat(Block) if self.remat else Block, scale_shift=True, epsilon=1e-5, dtype=self.dtype
        )
        h, skips = x.astype(self.dtype), []
        for entry in encoder(levels, self.num_blocks, self.attention):
            width = base * self.channel_mult[entry.level]
            if entry.kind == "first":
                h = Conv(width, (3, 3), dtype=self.dtype, name=entry.name)(h)
            else:
                width = h.shape[-1] if entry.kind == "down" else width
                h = block(width, entry.kind, _heads(entry, width), name=entry.name)(h, embedding)
            skips.append(h)
        for entry in decoder(levels, self.num_blocks, self.attention, everywhere=True):
            width = h.shape[-1]
            if entry.kind == "block":
                h, width = jnp.concatenate([h, skips.pop()], -1), base * self.channel_mult[entry.level]
            h = block(width, entry.kind, _heads(entry, width), name=entry.name)(h, embedding)
        h = nn.silu(group_norm(groups_of(h.shape[-1]), 1e-5, "out_norm")(h))
        return Conv(self.out_channels, (3, 3), dtype=self.dtype, name="out_conv")(h).astype(jnp.float32)


def heads_of(channels: int) -> int:
    """Heads of an attention over so many features: 0 is none."""
    return channels // HEAD_FEATURES


def _heads(entry, width: int) -> int:
    return heads_of(width) if entry.attends else 0
