"""The U-Net of published noise predictors: ADM's, DDPM's and the diffusers library's are this one, by its fields."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cvsa_jax.models.blocks import (
    Attention,
    average_down,
    group_norm,
    nearest_up,
    sinusoids,
    strided_convolution,
)
from cvsa_jax.models.unet import Conv

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "silu": nn.silu,
    "mish": lambda x: x * jnp.tanh(nn.softplus(x)),
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "relu": nn.relu,
}
# Padding of the strided convolutions, before and after.
PADDINGS = {"conv": (1, 1), "conv_after": (0, 1)}
DOWN = (*PADDINGS, "pool", "block")
UP = ("conv", "nearest", "block")
CLASS_EMBEDDINGS = ("table", "sinusoids")


class ResidualBlock(nn.Module):
    """Norm, convolution, embedding, norm, convolution: (B, H, W, C), (B, E) -> (B, H', W', features).

    Args:
      features: of the output.
      resample: 'down' averages 2x2 pixels of the input and of the first norm's output, 'up' repeats them.
      scale_shift: the embedding gives norm1(h) (1 + scale) + shift, in place of norm1(h + embedding).
      groups, epsilon: of the norms.
      scale: what the sum with the input is divided by.
      activation: one of ACTIVATIONS.
      dtype: of the convolutions.
    """

    features: int
    resample: str = ""
    scale_shift: bool = False
    groups: int = 32
    epsilon: float = 1e-5
    scale: float = 1.0
    activation: str = "silu"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, embedding):
        activate = ACTIVATIONS[self.activation]
        h = activate(group_norm(self.groups, self.epsilon, "norm0")(x)).astype(self.dtype)
        if self.resample:
            resample = {"down": average_down, "up": nearest_up}[self.resample]
            x, h = resample(x), resample(h)
        h = Conv(self.features, (3, 3), dtype=self.dtype, name="conv0")(h)
        told = nn.Dense((1 + self.scale_shift) * self.features, name="embed")(activate(embedding))[:, None, None]
        norm1 = group_norm(self.groups, self.epsilon, "norm1")
        if self.scale_shift:
            scale, shift = jnp.split(told, 2, -1)
            h = norm1(h) * (1 + scale) + shift
        else:
            h = norm1(h + told)
        h = Conv(self.features, (3, 3), dtype=self.dtype, name="conv1")(activate(h))
        if x.shape[-1] != self.features:
            x = Conv(self.features, (1, 1), dtype=self.dtype, name="skip")(x)
        return x + h if self.scale == 1 else (x + h) / self.scale


class EpsilonUNet(nn.Module):
    """A U-Net told of the time by cosines and sines, whose decoder is shown what every layer of the encoder gave.

    Level 0 is the full resolution. Per level the encoder has `blocks` residual blocks, then halves the
    resolution; the decoder has one more, each on its input beside the last output of the encoder not yet used.

    Args:
      features: of the cosines and sines. embedding: of the layers after them; None is 4 features.
      cosine_first, shift: see `blocks.sinusoids`. time_scale: what the label is multiplied by.
      widths: channels of each level. stem: of the first convolution; None is the first level's.
      blocks: residual blocks of each level of the encoder.
      attend_down, attend_up: levels whose blocks in the encoder and in the decoder are each followed by attention.
      heads, heads_up: of attention before the decoder and in it; where head_features is None.
      head_features: features of each head; heads are then as many as fit into the channels.
      middle: whether there are a block, attention and a block between. middle_attention: whether with attention.
      middle_groups: of the norm of that attention; 0 is no norm. middle_scale: what its sums are divided by.
      scale_shift, groups, epsilon, activation: see `ResidualBlock`.
      down, up: per level but the last how it passes to and from the next, of DOWN and UP.
      center: whether the network sees 2 x - 1.
      classes: how many; 0 is none. class_embedding: 'table', or as the time: 'sinusoids'.
      out_channels: of the output. dtype: inside convolutions and matrix products but the last. remat: as in `UNet`.

    Call: (B, H, W, C), label (B,) and, with classes, their numbers (B,) -> (B, H, W, out_channels) float32.

    References: Ho, Jain, Abbeel (2020), arXiv:2006.11239, appendix B; Dhariwal, Nichol (2021), arXiv:2105.05233,
      section 3; the diffusers library, class UNet2DModel.
    """

    features: int = 128
    embedding: int | None = None
    cosine_first: bool = True
    shift: float = 0.0
    time_scale: float = 1.0
    widths: tuple[int, ...] = (128, 128, 256, 256, 512, 512)
    stem: int | None = None
    blocks: int = 1
    attend_down: tuple[int, ...] = (4,)
    attend_up: tuple[int, ...] = (4,)
    heads: int = 1
    heads_up: int = 1
    head_features: int | None = None
    middle: bool = True
    middle_attention: bool = True
    middle_groups: int = 32
    middle_scale: float = 1.0
    scale_shift: bool = False
    groups: int = 32
    epsilon: float = 1e-5
    activation: str = "silu"
    down: tuple[str, ...] = ("conv",) * 5
    up: tuple[str, ...] = ("conv",) * 5
    center: bool = False
    classes: int = 0
    class_embedding: str = "table"
    out_channels: int = 3
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    def __post_init__(self):
        for name, known in (("down", DOWN), ("up", UP)):
            kinds = getattr(self, name)
            if len(kinds) != len(self.widths) - 1 or not set(kinds) <= set(known):
                raise ValueError(f"{name} must be {len(self.widths) - 1} of {', '.join(known)}, got {kinds}")
        super().__post_init__()

    @property
    def stride(self) -> int:
        """Heights and widths must be multiples of this."""
        return 2 ** (len(self.widths) - 1)

    @nn.compact
    def __call__(self, x, label, classes=None):
        embedding = self._embed(label, classes)
        shape = {"scale_shift": self.scale_shift, "groups": self.groups, "epsilon": self.epsilon,
                 "activation": self.activation, "dtype": self.dtype}  # fmt: skip

        def residual(h, features, name, resample="", scale=1.0):
            kind = nn.remat(ResidualBlock) if self.remat else ResidualBlock
            return kind(features, resample=resample, scale=scale, name=name, **shape)(h, embedding)

        def attention(h, name, heads, groups=self.groups, scale=1.0):
            kind = nn.remat(Attention) if self.remat else Attention
            heads = h.shape[-1] // self.head_features if self.head_features else heads
            return kind(heads, self.head_features, groups, self.epsilon, scale, self.dtype, name=name)(h)

        h = (2 * x - 1 if self.center else x).astype(self.dtype)
        h = Conv(self.stem or self.widths[0], (3, 3), dtype=self.dtype, name="stem")(h)
        skips = [h]
        for level, features in enumerate(self.widths):
            for i in range(self.blocks):
                h = residual(h, features, f"down{level}_block{i}")
                if level in self.attend_down:
                    h = attention(h, f"down{level}_attention{i}", self.heads)
                skips.append(h)
            if level < len(self.down):
                name, kind = f"down{level}_resample", self.down[level]
                if kind == "block":
                    h = residual(h, features, name, "down")
                elif kind == "pool":
                    h = average_down(h)
                else:
                    h = strided_convolution(features, PADDINGS[kind], name, self.dtype)(h)
                skips.append(h)
        if self.middle:
            h = residual(h, self.widths[-1], "middle_block0", scale=self.middle_scale)
            if self.middle_attention:
                h = attention(h, "middle_attention", self.heads, self.middle_groups, self.middle_scale)
            h = residual(h, self.widths[-1], "middle_block1", scale=self.middle_scale)
        for level in reversed(range(len(self.widths))):
            features = self.widths[level]
            for i in range(self.blocks + 1):
                h = residual(jnp.concatenate([h, skips.pop()], -1), features, f"up{level}_block{i}")
                if level in self.attend_up:
                    h = attention(h, f"up{level}_attention{i}", self.heads_up)
            if level:
                name, kind = f"up{level}_resample", self.up[level - 1]
                h = residual(h, features, name, "up") if kind == "block" else nearest_up(h)
                h = Conv(features, (3, 3), dtype=self.dtype, name=name)(h) if kind == "conv" else h
        h = nn.silu(group_norm(self.groups, self.epsilon, "out_norm")(h))
        # In float32, as an error of the noise is multiplied by sigma.
        return Conv(self.out_channels, (3, 3), name="out")(h).astype(jnp.float32)

    def _embed(self, label, classes):
        width = self.embedding or 4 * self.features

        def told(values, name):
            h = sinusoids(values, self.features, cosine_first=self.cosine_first, shift=self.shift)
            return nn.Dense(width, name=f"{name}1")(nn.silu(nn.Dense(width, name=f"{name}0")(h)))

        embedding = told(self.time_scale * label, "time")
        if not self.classes:
            if classes is not None:
                raise ValueError("this network knows no classes")
            return embedding
        if classes is None:
            if not self.is_initializing():
                raise ValueError(f"this network needs the class of each image, one of {self.classes}")
            classes = jnp.zeros(label.shape, jnp.int32)
        if self.class_embedding == "sinusoids":
            return embedding + told(classes, "class")
        return embedding + nn.Embed(self.classes, width, name="class")(classes)
