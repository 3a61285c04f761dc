"""The shipped network in PyTorch, with the same weights: what drives the methods of other libraries at full speed.

Imported only where PyTorch is there. A callback into JAX would burden each evaluation with copies and a second pool of
threads; this runs as PyTorch's own networks do.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import torch.nn.functional as F  # pyright: ignore[reportMissingImports] # noqa: N812

from cvsa_jax import spectral
from cvsa_jax.networks import NetworkSpec
from cvsa_jax.parameterizations.own import LARGEST_NOISE, SMALLEST_NOISE

Params = Mapping[str, Any]


def as_torch(params: Params) -> dict[str, Any]:
    """The parameters of a Flax network: kernels (h, w, I, O) as (O, I, h, w), those of layers (I, O) as (O, I)."""
    found = {}
    for name, value in params.items():
        if isinstance(value, Mapping):
            found[name] = as_torch(value)
            continue
        array = np.asarray(value, np.float32)
        array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        found[name] = torch.tensor(np.ascontiguousarray(array))
        if array.ndim == 4:
            found[name] = found[name].contiguous(memory_format=torch.channels_last)
    return found


def _dense(p: Params, x):
    return F.linear(x, p["kernel"], p["bias"])


def _convolution(p: Params, x):
    return F.conv2d(x, p["kernel"], p["bias"], padding=p["kernel"].shape[-1] // 2)


def _norm(p: Params, x):
    groups = next(g for g in (8, 4, 2, 1) if x.shape[1] % g == 0)
    return F.group_norm(x, groups, p["scale"], p["bias"], 1e-5)


def _down(x, factor: int):
    """(B, C, H, W) to (B, factor^2 C, H/factor, W/factor), channels by row, column and C."""
    b, c, h, w = x.shape
    parts = x.reshape(b, c, h // factor, factor, w // factor, factor).permute(0, 3, 5, 1, 2, 4)
    parts = parts.reshape(b, factor**2 * c, h // factor, w // factor)
    return parts.contiguous(memory_format=torch.channels_last)


def _up(x, factor: int):
    """The inverse of `_down`."""
    b, c, h, w = x.shape
    parts = x.reshape(b, factor, factor, c // factor**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(b, c // factor**2, h * factor, w * factor).contiguous(memory_format=torch.channels_last)


def _block(p: Params, x, embedding):
    scale, shift = _dense(p["Dense_0"], embedding)[:, :, None, None].chunk(2, 1)
    h = F.silu(_norm(p["GroupNorm_0"], x) * (1 + scale) + shift)
    h = _convolution(p["Conv_1"], F.silu(_convolution(p["Conv_0"], h)))
    return h + (_convolution(p["Conv_2"], x) if "Conv_2" in p else x)


def _embedding(p: Params, label):
    frequency = torch.tensor(np.geomspace(0.5, 64.0, 32), dtype=torch.float32)
    angle = label[:, None] * frequency
    embedding = torch.cat([angle.sin(), angle.cos()], -1)
    return F.silu(_dense(p["Dense_1"], F.silu(_dense(p["Dense_0"], embedding))))


def unet(p: Params, module: Any, x, label):
    """`models.unet.UNet` of those options: x (B, C, H, W), label (B,) -> (B, out_channels, H, W)."""
    embedding, skips, levels = _embedding(p["NoiseEmbedding_0"], label), [], range(len(module.channels))
    convolutions = (p[f"Conv_{i}"] for i in range(len(p)))  # in the order in which Flax numbers them
    blocks = (p[f"ResidualBlock_{i}"] for i in range(len(p)))
    h = _convolution(next(convolutions), _down(x, module.patch))
    for level in levels:
        h = _convolution(next(convolutions), _down(h, 2)) if level else h
        for _ in range(module.encoder_blocks[level]):
            h = _block(next(blocks), h, embedding)
        skips.append(h)
    for level in reversed(levels):
        if level < levels[-1]:
            h = _up(_convolution(next(convolutions), h), 2)
            h = _convolution(next(convolutions), torch.cat([h, skips[level]], 1))
        for _ in range(module.decoder_blocks[level]):
            h = _block(next(blocks), h, embedding)
    h = _convolution(next(convolutions), F.silu(_norm(p["GroupNorm_0"], h)))
    return _convolution(next(convolutions), torch.cat([F.silu(_up(h, module.patch)), x], 1))


class Denoiser(torch.nn.Module):
    """D(x; s) of `parameterizations.own.edm_denoise` on images in [0, 1], as deepinv's denoisers are.

    forward: x (B, C, H, W) in [0, 1] beside its noise, sigma a number or (B,) of that noise on this scale.
    `evaluations` counts the batches that it was asked for.
    """

    def __init__(self, spec: NetworkSpec, params: Params, side: int):
        super().__init__()
        self._params, self._module = as_torch(params["params"]), spec.build("float32")
        self._data_std, self.evaluations = spec.data_std, 0
        assert spec.spectrum is not None  # as `check_twin` sees to
        grid = np.broadcast_to(np.asarray(spec.spectrum.grid(side, side)), (side, side, spec.image_channels))
        self._variance = torch.tensor(np.moveaxis(grid, -1, 0)[None].copy(), dtype=torch.float32)
        self._cosines = torch.tensor(spectral.cosine_matrix(side), dtype=torch.float32)
        self._colours = torch.tensor(spectral.colour_matrix(spec.image_channels), dtype=torch.float32)

    def _spectrum(self, x):
        return torch.einsum("dc,bcij->bdij", self._colours, self._cosines @ x @ self._cosines.T)

    def _pixels(self, z):
        return torch.einsum("dc,bdij->bcij", self._colours, self._cosines.T @ z @ self._cosines)

    def forward(self, x, sigma, *_, **__):
        """The image without its noise."""
        self.evaluations += 1
        sigma = torch.as_tensor(sigma, dtype=torch.float32).reshape(-1).expand(len(x))
        return (self.denoise(2 * x.float() - 1, 2 * sigma) + 1) / 2

    def denoise(self, x, sigma):
        """D(x; s) on images in [-1, 1]; sigma (B,)."""
        s, variance = sigma[:, None, None, None], self._variance
        z = self._spectrum(x)
        white = self._pixels(z / (s**2 + variance).sqrt())
        given = torch.cat([x / (s**2 + self._data_std**2).sqrt(), white], 1)
        given = given.contiguous(memory_format=torch.channels_last)
        label = sigma.clamp(SMALLEST_NOISE, LARGEST_NOISE).log() / 4
        output = self._spectrum(unet(self._params, self._module, given, label))
        shrink = (variance / (s**2 + variance)).sqrt()
        return self._pixels(shrink**2 * z + s * shrink * output)
