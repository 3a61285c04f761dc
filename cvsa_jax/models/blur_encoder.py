"""The network of blur-kernel-space encoding: a sharp image and a code give a blurred image.

References: Tran, Tran, Phung, Hoai (2021), Explore image deblurring via encoded blur kernel space,
CVPR, pages 11956-11965; the structure is that of its published weights.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

STRIDE = 128
CODE_FEATURES = 512


def _convolution(features: int, stride: int = 1, name: str | None = None) -> nn.Conv:
    return nn.Conv(features, (3, 3), (stride, stride), padding=1, name=name)


class Residual(nn.Module):
    """x + conv(relu(conv(x))), without normalisation."""

    features: int

    @nn.compact
    def __call__(self, x):
        h = nn.relu(_convolution(self.features, name="first")(x))
        return x + _convolution(self.features, name="second")(h)


class Adapter(nn.Module):
    """A U-Net of 4x4 convolutions of stride 2; the code joins at its lowest level. Tanh at the end.

    Args:
      widths: features of each level on the way down, the first level's first.
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x, code):
        skips, h, out_features = [], x, (x.shape[-1], *self.widths[:-1])
        for level, width in enumerate(self.widths):
            h = h if level == 0 else nn.leaky_relu(h, 0.2)
            h = nn.Conv(width, (4, 4), (2, 2), padding=1, name=f"down{level}")(h)
            skips.append(h)
        h = jnp.concatenate([skips.pop(), code], -1)
        for level in reversed(range(len(self.widths))):
            h = nn.ConvTranspose(out_features[level], (4, 4), (2, 2), padding="SAME", name=f"up{level}")(nn.relu(h))
            if level:
                h = jnp.concatenate([skips.pop(), h], -1)
        return jnp.tanh(h)


class BlurEncoder(nn.Module):
    """The blurred image of a sharp one under a code.

    Args:
      features: of the residual blocks. front_blocks, back_blocks: before and after the adapter.
      widths: of the adapter; by default the published network's.

    Call: (B, H, W, 3) in [0, 1] with sides divisible by 4 * 2^levels (128), code
    (B, H / 128, W / 128, CODE_FEATURES) -> (B, H, W, 3).
    """

    features: int = 64
    front_blocks: int = 10
    back_blocks: int = 20
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)

    @nn.compact
    def __call__(self, image, code):
        h = image
        for i in range(3):
            h = nn.leaky_relu(_convolution(self.features, 1 if i == 0 else 2, f"feature{i}")(h), 0.1)
        for i in range(self.front_blocks):
            h = Residual(self.features, name=f"front{i}")(h)
        h = Adapter(self.widths, name="adapter")(h, code)
        for i in range(self.back_blocks):
            h = Residual(self.features, name=f"back{i}")(h)
        for i in range(2):
            h = _convolution(4 * self.features, name=f"upscale{i}")(h)
            h = nn.leaky_relu(pixel_shuffle(h), 0.1)
        h = nn.leaky_relu(_convolution(self.features, name="high")(h), 0.1)
        return image + _convolution(3, name="last")(h)


def pixel_shuffle(x: jax.Array) -> jax.Array:
    """(B, H, W, 4 C) to (B, 2 H, 2 W, C), the channel index slowest, as PyTorch orders it."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, c // 4, 2, 2)
    return x.transpose(0, 1, 4, 2, 5, 3).reshape(b, 2 * h, 2 * w, c // 4)
