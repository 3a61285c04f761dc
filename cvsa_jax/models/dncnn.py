"""DnCNN and FDnCNN: a plain stack of convolutions that predicts the noise of an image, or the image itself."""

import flax.linen as nn
import jax.numpy as jnp

from cvsa_jax.models.unet import Conv

SEGMENT = 4  # layers that the pullback computes again together


class Stack(nn.Module):
    """3x3 convolutions of stride 1 with zero padding, a ReLU between any two of them.

    Args:
      features: of every layer but the last.
      layers: number of convolutions, 2 or more.
      out_channels: of the last.
      bias: whether the convolutions have one.
      dtype: of the convolutions; parameters and output are float32.
      remat: whether the pullback keeps the input of every fourth layer alone, and computes the rest again.

    Call: (B, H, W, C) -> (B, H, W, out_channels).
    """

    features: int = 64
    layers: int = 17
    out_channels: int = 3
    bias: bool = True
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, x):
        last = self.layers - 1

        def segment(stack, h, first):
            for i in range(first, min(first + SEGMENT, last)):
                h = nn.relu(stack.convolution(self.features, i)(h))
            return h

        for first in range(0, last, SEGMENT):
            kept = nn.remat(segment, static_argnums=(2,)) if self.remat else segment
            x = kept(self, x, first)
        return self.convolution(self.out_channels, last)(x).astype(jnp.float32)

    def convolution(self, features: int, number: int) -> nn.Module:
        """One layer, by its number from 0."""
        return Conv(features, (3, 3), use_bias=self.bias, dtype=self.dtype, name=f"Conv_{number}")


class DnCNN(nn.Module):
    """x - F(x), or F(x) of a network that predicts the image; F is a `Stack`.

    Args:
      features, layers, bias, out_channels, dtype, remat: of the stack.
      residual: whether F predicts the noise, which is then taken from x.
      noise_map: whether F sees the noise level, as one more channel behind those of x (FDnCNN). Else the label has
        no effect: the network knows one level, or finds it in the image.

    Call: x (B, H, W, C) in [0, 1], label (B,) its noise level -> (B, H, W, out_channels).

    References: Zhang, Zuo, Chen, Meng, Zhang (2017), arXiv:1608.03981.
    """

    features: int = 64
    layers: int = 17
    bias: bool = True
    residual: bool = True
    noise_map: bool = False
    out_channels: int = 3
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @property
    def stride(self) -> int:
        """Heights and widths must be multiples of this."""
        return 1

    @nn.compact
    def __call__(self, x, label, classes=None):
        seen = with_noise_map(x, label) if self.noise_map else x
        out = Stack(self.features, self.layers, self.out_channels, self.bias, self.dtype, self.remat, name="stack")(
            seen
        )
        return x - out if self.residual else out


def with_noise_map(x, label):
    """(B, H, W, C) and a noise level (B,) -> (B, H, W, C + 1), the level everywhere in the last channel."""
    level = jnp.broadcast_to(label[:, None, None, None], (*x.shape[:-1], 1))
    return jnp.concatenate([x, level.astype(x.dtype)], -1)
