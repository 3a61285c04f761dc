"""The network of score-based models, DDPM++ and NCSN++, as EDM and CLD-SGM use it.

References: Song et al. (2021), arXiv:2011.13456, appendix H; Karras, Aittala, Aila, Laine (2022), arXiv:2206.00364,
  appendix F.2; Dockhorn, Vahdat, Kreis (2021), arXiv:2112.07068, appendix E.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvsa_jax.models.blocks import group_norm, strided_convolution
from cvsa_jax.models.edm_blocks import Block, decoder, encoder, groups_of, one_hot, positional, waves
from cvsa_jax.models.fir import border, double, halve
from cvsa_jax.models.unet import Conv

EMBEDDINGS = ("positional", "fourier", "log_fourier")
ENCODERS = ("standard", "residual", "strided", "skip")
DECODERS = ("standard", "skip")
TWO_PI = 6.2831855  # as float32 rounds it


class Embedding(nn.Module):
    """What the network is told, (B,) and (B,) or None -> (B, features); see `SongUNet`."""

    waves: int
    features: int
    kind: str = "positional"
    classes: int = 0

    @nn.compact
    def __call__(self, label, classes=None):
        label = label.astype(jnp.float32)
        if self.kind != "positional":
            label = jnp.log(label) if self.kind == "log_fourier" else label
            frequency = self.param("frequency", nn.initializers.normal(16.0), (self.waves // 2,))
            h = waves(label[:, None] * (TWO_PI * jax.lax.stop_gradient(frequency)))
        else:
            h = positional(label, self.waves, shift=1)
        h = jnp.roll(h, self.waves // 2, -1)  # the sines first
        if self.classes:
            known = one_hot(classes, self.classes, len(label)) * self.classes**0.5
            h = h + nn.Dense(self.waves, name="class")(known)
        h = nn.silu(nn.Dense(self.features, name="layer0")(h))
        return nn.silu(nn.Dense(self.features, name="layer1")(h))


class SongUNet(nn.Module):
    """U-Net of BigGAN's residual blocks, with pyramids of the input and of the output if asked for.

    Args:
      model_channels: features of the first convolution; each level has channel_mult of them.
      channel_mult: of each level, the full resolution first; each level halves the sides of the last.
      num_blocks: residual blocks of each level on the way down, one less than on the way up.
      attention: levels that attend: each block on the way down, the last on the way up.
      channel_mult_emb, channel_mult_noise: features of the embedding, and of its waves.
      embedding: 'positional', or by frequencies that are parameters: 'fourier', 'log_fourier' of the label's logarithm.
      encoder: 'standard'; 'residual' adds to each level's input the pyramid of the network's input, by a convolution
        before its filter, 'strided' by one of stride 2; 'skip' adds that of the plain resampled input.
      decoder: 'standard', or 'skip': the output is the sum of every level's.
      taps: of the filter that resamples, (1, 1) or (1, 3, 3, 1).
      skip_scale: of every sum.
      classes: number of classes; without one of them the network is told zeros.
      out_channels: of the output.
      levels_of_noise: length of a table that travels with the parameters; the network itself does not use it.
      dtype: of the arithmetic inside; parameters and output are float32.
      remat: whether the pullback computes the inside of each block again, in place of keeping it.

    Call: (B, H, W, C), label (B,), classes (B,) or None -> (B, H, W, out_channels); H and W divisible by stride.
    """

    model_channels: int = 128
    channel_mult: tuple[int, ...] = (1, 2, 2, 2)
    num_blocks: int = 4
    attention: tuple[int, ...] = (2,)
    channel_mult_emb: int = 4
    channel_mult_noise: int = 1
    embedding: str = "positional"
    encoder: str = "standard"
    decoder: str = "standard"
    taps: tuple[float, ...] = (1, 1)
    skip_scale: float = 0.5**0.5
    classes: int = 0
    out_channels: int = 3
    levels_of_noise: int = 0
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def __post_init__(self):
        for name, known in (("embedding", EMBEDDINGS), ("encoder", ENCODERS), ("decoder", DECODERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        super().__post_init__()

    @property
    def stride(self) -> int:
        """Heights and widths must be multiples of this."""
        return 2 ** (len(self.channel_mult) - 1)

    @nn.compact
    def __call__(self, x, label, classes=None):
        if self.levels_of_noise:
            self.param("levels_of_noise", nn.initializers.zeros, (self.levels_of_noise,))
        base, levels = self.model_channels, len(self.channel_mult)
        embedding = Embedding(
            base * self.channel_mult_noise, base * self.channel_mult_emb, self.embedding, self.classes, name="embedding"
        )(label, classes)
        block = functools.partial(
            nn.remat(Block) if self.remat else Block, taps=self.taps, scale=self.skip_scale, epsilon=1e-6,
            projects=True, dtype=self.dtype,
        )  # fmt: skip
        conv = functools.partial(Conv, dtype=self.dtype)
        h = pyramid = x.astype(self.dtype)
        skips = []
        for entry in encoder(levels, self.num_blocks, self.attention):
            if entry.kind == "first":
                h = conv(base, (3, 3), name=entry.name)(h)
            elif entry.kind == "down":
                h = block(h.shape[-1], entry.kind, name=entry.name)(h, embedding)
                h, pyramid = self._joined(h, pyramid, f"enc{entry.level}_pyramid")
            else:
                width = base * self.channel_mult[entry.level]
                h = block(width, heads=int(entry.attends), name=entry.name)(h, embedding)
            skips.append(h)
        output = None
        for entry in decoder(levels, self.num_blocks, self.attention, everywhere=False):
            width = h.shape[-1]
            if entry.kind == "block":
                h, width = jnp.concatenate([h, skips.pop()], -1), base * self.channel_mult[entry.level]
            h = block(width, entry.kind, int(entry.attends), name=entry.name)(h, embedding)
            if entry.name == f"dec{entry.level}_block{self.num_blocks}" and (
                self.decoder == "skip" or entry.level == 0
            ):
                part = nn.silu(group_norm(groups_of(width), 1e-6, f"out{entry.level}_norm")(h))
                part = conv(self.out_channels, (3, 3), name=f"out{entry.level}_conv")(part)
                output = part if output is None else part + double(output, self.taps)
        assert output is not None  # as level 0 gave one
        return output.astype(jnp.float32)

    def _joined(self, h, pyramid, name):
        """(features, pyramid) of a level from its features and the pyramid of the level above."""
        conv, width = functools.partial(Conv, dtype=self.dtype, name=name), h.shape[-1]
        if self.encoder == "standard":
            return h, pyramid
        if self.encoder == "skip":
            pyramid = halve(pyramid, self.taps)
            return h + conv(width, (1, 1))(pyramid), pyramid
        if self.encoder == "strided":
            pyramid = strided_convolution(width, (0, 1), name, self.dtype)(pyramid)
        else:  # convolution and filter see the same border of zeros
            pyramid = halve(conv(width, (3, 3))(border(pyramid, self.taps)), self.taps, padded=True)
        h = (h + pyramid) * self.skip_scale
        return h, h
