"""The networks of the learned perceptual image patch similarity (LPIPS).

    d(a, b) = sum_l mean over pixels of w_l . (f_l(a) / |f_l(a)| - f_l(b) / |f_l(b)|)^2

f_l the features after chosen layers of a classifier, w_l >= 0 learned from people's judgements.

References: Zhang et al. (2018), arXiv:1801.03924, equation 1.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

# Of the classifiers' inputs, for images in [-1, 1].
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Convolution(NamedTuple):
    """number: of the layer in the published `features`."""

    number: int
    features: int
    kernel: int
    stride: int = 1
    padding: int = 1


class Pool(NamedTuple):
    """By the maximum."""

    window: int
    stride: int = 2


TAP = "tap"
_VGG = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def _vgg():
    layers, number = [], 0
    for level, widths in enumerate(_VGG):
        if level:
            layers, number = [*layers, Pool(2)], number + 1
        for features in widths:
            layers, number = [*layers, Convolution(number, features, 3)], number + 2
        layers.append(TAP)
    return tuple(layers)


BACKBONES = {
    "alex": (
        Convolution(0, 64, 11, 4, 2), TAP, Pool(3), Convolution(3, 192, 5, 1, 2), TAP, Pool(3),
        Convolution(6, 384, 3), TAP, Convolution(8, 256, 3), TAP, Convolution(10, 256, 3), TAP,
    ),
    "vgg": _vgg(),
}  # fmt: skip


class Perceptual(nn.Module):
    """Distances (N,) of images a and b, (N, H, W, 3) in [-1, 1].

    Args:
      backbone: name in BACKBONES.
    """

    backbone: str

    @nn.compact
    def __call__(self, a, b):
        count = len(a)
        x = (jnp.concatenate([a, b]) - jnp.array(SHIFT)) / jnp.array(SCALE)
        distance, level = 0.0, 0
        for layer in BACKBONES[self.backbone]:
            if layer == TAP:
                weight = self.param(f"lin{level}", nn.initializers.ones, (x.shape[-1],))
                unit = x / (jnp.sqrt(jnp.sum(x**2, -1, keepdims=True)) + 1e-10)
                distance += jnp.mean((unit[:count] - unit[count:]) ** 2 @ weight, (1, 2))
                level += 1
            elif isinstance(layer, Pool):
                x = nn.max_pool(x, (layer.window,) * 2, (layer.stride,) * 2)
            else:
                x = nn.relu(nn.Conv(
                    layer.features, (layer.kernel,) * 2, (layer.stride,) * 2, layer.padding, name=f"conv{layer.number}"
                )(x))  # fmt: skip
        return distance
