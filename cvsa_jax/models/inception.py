"""Inception v3 as the Fréchet inception distance uses it: images to 2048 features.

It differs from the classifier in that its average pools do not count the padding and its last block
pools by the maximum, as in the network whose weights the published scores are of.

References: Szegedy et al. (2016), arXiv:1512.00567; Heusel et al. (2017), arXiv:1706.08500.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

SIDE = 299
FEATURES = 2048
EPSILON = 1e-3


class ConvNorm(nn.Module):
    """relu(normalised(conv(x))), the normalisation by stored means and variances."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    same: bool = False

    @nn.compact
    def __call__(self, x):
        padding = [(k // 2, k // 2) if self.same else (0, 0) for k in self.kernel]
        x = nn.Conv(
            self.features, self.kernel, (self.stride,) * 2, padding, use_bias=False, name="conv"
        )(x)  # fmt: skip
        return Normalised(name="bn")(x)


class Normalised(nn.Module):
    """relu((x - mean) / sqrt(variance + EPSILON) scale + bias)."""

    @nn.compact
    def __call__(self, x):
        shape = (x.shape[-1],)
        scale, bias, mean = (
            self.param(name, init, shape)
            for name, init in (("scale", nn.initializers.ones), ("bias", nn.initializers.zeros),
                               ("mean", nn.initializers.zeros))
        )  # fmt: skip
        variance = self.param("variance", nn.initializers.ones, shape)
        return nn.relu((x - mean) * jax.lax.rsqrt(variance + EPSILON) * scale + bias)


_AROUND: Any = ((1, 1), (1, 1))  # padding, which Flax takes but annotates as str


def _average(x):
    return nn.avg_pool(x, (3, 3), (1, 1), _AROUND, count_include_pad=False)


def _maximum(x):
    return nn.max_pool(x, (3, 3), (1, 1), _AROUND)


def _shrink(x):
    return nn.max_pool(x, (3, 3), (2, 2))


# A branch is a pool or nothing, then its convolutions: name, features, kernel, stride, padded. A tuple of
# branches in the place of a convolution splits the path; what it gives is joined.
def _a(pooled):
    double = ("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, (3, 3), 1, True), ("branch3x3dbl_3", 96, (3, 3), 1, True)
    return (
        (None, ("branch1x1", 64)),
        (None, ("branch5x5_1", 48), ("branch5x5_2", 64, (5, 5), 1, True)),
        (None, *double),
        (_average, ("branch_pool", pooled)),
    )


_B = (
    (None, ("branch3x3", 384, (3, 3), 2)),
    (None, ("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, (3, 3), 1, True), ("branch3x3dbl_3", 96, (3, 3), 2)),
    (_shrink,),
)


def _c(n):
    wide, tall = (1, 7), (7, 1)
    return (
        (None, ("branch1x1", 192)),
        (None, ("branch7x7_1", n), ("branch7x7_2", n, wide, 1, True), ("branch7x7_3", 192, tall, 1, True)),
        (None, ("branch7x7dbl_1", n), ("branch7x7dbl_2", n, tall, 1, True), ("branch7x7dbl_3", n, wide, 1, True),
         ("branch7x7dbl_4", n, tall, 1, True), ("branch7x7dbl_5", 192, wide, 1, True)),
        (_average, ("branch_pool", 192)),
    )  # fmt: skip


_D = (
    (None, ("branch3x3_1", 192), ("branch3x3_2", 320, (3, 3), 2)),
    (None, ("branch7x7x3_1", 192), ("branch7x7x3_2", 192, (1, 7), 1, True), ("branch7x7x3_3", 192, (7, 1), 1, True),
     ("branch7x7x3_4", 192, (3, 3), 2)),
    (_shrink,),
)  # fmt: skip


def _e(pool):
    split = lambda name: ((f"{name}a", 384, (1, 3), 1, True), (f"{name}b", 384, (3, 1), 1, True))  # noqa: E731
    return (
        (None, ("branch1x1", 320)),
        (None, ("branch3x3_1", 384), split("branch3x3_2")),
        (None, ("branch3x3dbl_1", 448), ("branch3x3dbl_2", 384, (3, 3), 1, True), split("branch3x3dbl_3")),
        (pool, ("branch_pool", 192)),
    )


STEM = (
    (None, ("Conv2d_1a_3x3", 32, (3, 3), 2), ("Conv2d_2a_3x3", 32, (3, 3)), ("Conv2d_2b_3x3", 64, (3, 3), 1, True)),
    (_shrink, ("Conv2d_3b_1x1", 80), ("Conv2d_4a_3x3", 192, (3, 3))),
)
BLOCKS = {
    "Mixed_5b": _a(32), "Mixed_5c": _a(64), "Mixed_5d": _a(64), "Mixed_6a": _B, "Mixed_6b": _c(128),
    "Mixed_6c": _c(160), "Mixed_6d": _c(160), "Mixed_6e": _c(192), "Mixed_7a": _D, "Mixed_7b": _e(_average),
    "Mixed_7c": _e(_maximum),
}  # fmt: skip


def _path(branch, x):
    pool, *layers = branch
    x = x if pool is None else pool(x)
    for layer in layers:
        if isinstance(layer[0], tuple):
            x = jnp.concatenate([_convolve(part, x) for part in layer], -1)
        else:
            x = _convolve(layer, x)
    return x


def _convolve(layer, x):
    name, *settings = layer
    return ConvNorm(*settings, name=name)(x)


class Block(nn.Module):
    """Branches side by side, joined in the channels."""

    branches: tuple

    @nn.compact
    def __call__(self, x):
        return jnp.concatenate([_path(branch, x) for branch in self.branches], -1)


class Inception(nn.Module):
    """Images (N, H, W, 3) in [-1, 1] to features (N, 2048); they are resized to 299x299 bilinearly, without filter."""

    @nn.compact
    def __call__(self, x):
        x = jax.image.resize(x, (len(x), SIDE, SIDE, 3), "linear", antialias=False)
        for branch in STEM:
            x = _path(branch, x)
        x = _shrink(x)
        for name, branches in BLOCKS.items():
            x = Block(branches, name=name)(x)
        return x.mean((1, 2))
