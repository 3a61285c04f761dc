"""FFDNet: a stack of convolutions at half the resolution, told the noise level."""

import flax.linen as nn
import jax.numpy as jnp

from cvsa_jax.models.dncnn import Stack, with_noise_map
from cvsa_jax.models.unet import depth_to_space, space_to_depth

PATCH = 2


class FFDNet(nn.Module):
    """F(x, s) or x - F(x, s), with F a `Stack` on the 2x2 cells of x and a map of s.

    A pixel's cell lies in its channels in the order of `space_to_depth`, row, column, colour; the map is last.

    Args:
      features, layers, bias, out_channels, dtype, remat: of the stack.
      residual: whether F predicts the noise, which is then taken from x.

    Call: x (B, H, W, C) in [0, 1], label (B,) its noise level -> (B, H, W, out_channels); H and W even.

    References: Zhang, Zuo, Zhang (2018), arXiv:1710.04026.
    """

    features: int = 96
    layers: int = 12
    bias: bool = True
    residual: bool = False
    out_channels: int = 3
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @property
    def stride(self) -> int:
        """Heights and widths must be multiples of this."""
        return PATCH

    @nn.compact
    def __call__(self, x, label, classes=None):
        seen = with_noise_map(space_to_depth(x, PATCH), label)
        channels = self.out_channels * PATCH**2
        out = Stack(self.features, self.layers, channels, self.bias, self.dtype, self.remat, name="stack")(seen)
        out = depth_to_space(out, PATCH)
        return x - out if self.residual else out
