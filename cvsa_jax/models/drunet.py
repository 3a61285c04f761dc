"""DRUNet: a U-Net of residual blocks without normalisation, told the noise level."""

import flax.linen as nn
import jax.numpy as jnp

from cvsa_jax.models.dncnn import with_noise_map
from cvsa_jax.models.unet import Conv, depth_to_space, space_to_depth


class ResidualBlock(nn.Module):
    """x + C(relu(C(x))), C a 3x3 convolution; the sum is float32."""

    features: int
    bias: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        h = nn.relu(Conv(self.features, (3, 3), use_bias=self.bias, dtype=self.dtype)(x))
        h = Conv(self.features, (3, 3), use_bias=self.bias, dtype=self.dtype)(h)
        return x + h.astype(x.dtype)


class DRUNet(nn.Module):
    """A U-Net whose skips are added, not concatenated; it predicts the image.

    A level goes down by a 2x2 convolution of stride 2 and up by a transposed one. Neither overlaps itself, so both
    are a 1x1 convolution, behind `space_to_depth` or before `depth_to_space`.

    Args:
      channels: features of each level; each level halves the resolution of the last.
      blocks: residual blocks of a level, on the way down and on the way up.
      bias: whether the convolutions have one.
      out_channels: channels of the output.
      dtype: of the convolutions; sums, parameters and output are float32.
      remat: whether the pullback computes the inside of each block again, in place of keeping it.

    Call: x (B, H, W, C) in [0, 1], label (B,) its noise level -> (B, H, W, out_channels); H and W divisible by stride.

    References: Zhang, Li, Zuo, Zhang, Van Gool, Timofte (2021), arXiv:2008.13751.
    """

    channels: tuple[int, ...] = (64, 128, 256, 512)
    blocks: int = 4
    bias: bool = False
    out_channels: int = 3
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @property
    def stride(self) -> int:
        """Heights and widths must be multiples of this."""
        return 2 ** (len(self.channels) - 1)

    @nn.compact
    def __call__(self, x, label, classes=None):
        block = nn.remat(ResidualBlock) if self.remat else ResidualBlock

        def convolution(name, h, features, side):
            out = Conv(features, (side, side), use_bias=self.bias, dtype=self.dtype, name=name)(h)
            return out.astype(jnp.float32)

        def level(name, h):  # by its name, which `remat` would change
            for number in range(self.blocks):
                h = block(h.shape[-1], self.bias, self.dtype, name=f"{name}_block{number}")(h)
            return h

        h = convolution("head", with_noise_map(x, label), self.channels[0], 3)
        skips = []
        for number, features in enumerate(self.channels[1:], 1):
            skips.append(h)
            h = convolution(f"down{number}", space_to_depth(level(f"down{number}", h), 2), features, 1)
        skips.append(h)
        h = level("body", h)
        for number in reversed(range(1, len(self.channels))):
            features = 4 * self.channels[number - 1]
            h = depth_to_space(convolution(f"up{number}", h + skips.pop(), features, 1), 2)
            h = level(f"up{number}", h)
        return convolution("tail", h + skips.pop(), self.out_channels, 3)
