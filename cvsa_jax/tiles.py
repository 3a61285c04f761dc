"""A prior for photographs of any size: its network sees overlapping tiles, one after the other.

x_0hat(p) = sum_i w_i(p) D_i(p), D_i the network's answer on tile i. The weights w_i are smooth and their sum is one.
"""

import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax.tree_util import Partial

from cvsa_jax.priors import Prior, coefficients, denoiser_of, prior_from_denoiser
from cvsa_jax.pyramid import Pyramid

# The tiles that `automatic_tile` chooses from, and the share of the memory that the network may take in one.
SIDES, SHARE = (2048, 1024, 512, 256), 0.25
# What a job holds of each image as a whole, in images: of its measurement, its state, the inner solve.
WHOLE = 48
CGROUP = pathlib.Path("/sys/fs/cgroup/memory.max")


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Layout:
    """How an image is cut: tiles of side `tile`, shifted by multiples of `stride`, at least `overlap` in common."""

    tile: int
    overlap: int
    stride: int = 1

    def starts(self, side: int) -> np.ndarray:
        """Where the tiles of one axis begin; they lie inside the image, evenly spread."""
        if side <= self.tile:
            return np.zeros(1, int)
        count = 1 + math.ceil((side - self.tile) / (self.tile - self.overlap))
        return np.round(np.linspace(0, (side - self.tile) / self.stride, count)).astype(int) * self.stride

    def weights(self, side: int) -> np.ndarray:
        """(tiles, min(side, tile)): of the pixels of each tile of one axis; those of one pixel of the image sum to one.

        Zero on the outer quarter of the overlap, where the network lacks what lies beyond, then half a cosine.
        """
        starts, length = self.starts(side), min(side, self.tile)
        edge = np.minimum(np.arange(length) + 0.5, length - np.arange(length) - 0.5)
        ramp = np.clip((edge - self.overlap / 4) / (self.overlap / 2), 0, 1)
        window = np.tile(np.sin(np.pi / 2 * ramp) ** 2, (len(starts), 1))
        half = -(-length // 2)
        window[0, :half] = window[-1, length - half :] = 1  # nothing lies beyond the image's border
        total, places = np.zeros(side), starts[:, None] + np.arange(length)
        np.add.at(total, places, window)
        return window / total[places]

    def blend(self, function: Any, x: jax.Array, *rest: Any) -> jax.Array:
        """function(x, *rest) of an image x (H, W, C) as large as a tile or smaller; else of each tile, blended.

        The pullback computes each tile again, so that it keeps the tiles' pixels alone, and is blended by the same
        weights: w -> sum_i w_i J_i' w. The transpose of the blended answers, sum_i J_i' (w_i w), is not what guidance
        needs: what a tile says of itself as a whole would count twice where tiles overlap, as bands. A denoiser's J_i
        is symmetric, so that this is the derivative along w.
        """
        sides = height, width = x.shape[:2]
        if max(sides) <= self.tile:
            return function(x, *rest)
        one = jax.checkpoint(lambda pixels: function(pixels, *rest), prevent_cse=False)
        cut, join = _cut_and_join(self, height, width)
        return join(jax.lax.map(one, cut(x)))


def _cut_and_join(layout: Layout, height: int, width: int) -> tuple[Callable, Callable]:
    """x (H, W, C) -> tiles (N, h, w, C), and tiles -> their blend; each is the pullback of the other."""
    rows, columns = layout.starts(height), layout.starts(width)
    places = [a.ravel() for a in np.meshgrid(rows, columns, indexing="ij")]
    down = np.repeat(layout.weights(height), len(columns), 0)[:, :, None, None]
    across = np.tile(layout.weights(width), (len(rows), 1))[:, None, :, None]
    shape = min(height, layout.tile), min(width, layout.tile)

    def apart(x):
        return _cut(x, places, shape)

    def blended(parts):
        like = jax.ShapeDtypeStruct((height, width, parts.shape[-1]), parts.dtype)
        weighed = parts * jnp.asarray(down, parts.dtype) * jnp.asarray(across, parts.dtype)
        return jax.linear_transpose(apart, like)(weighed)[0]

    cut, join = jax.custom_vjp(apart), jax.custom_vjp(blended)
    cut.defvjp(lambda x: (cut(x), None), lambda _, parts: (join(parts),))
    join.defvjp(lambda parts: (join(parts), None), lambda _, x: (cut(x),))
    return cut, join


def _cut(x: jax.Array, places: list[np.ndarray], shape: tuple[int, int]) -> jax.Array:
    """(tiles, *shape, C): those of an image that begin at these rows and columns."""
    return jax.vmap(lambda r, c: jax.lax.dynamic_slice(x, (r, c, 0), (*shape, x.shape[-1])))(*map(jnp.asarray, places))


def _tiled_denoise(layout, denoise, x, sigma):
    return layout.blend(denoise, x, sigma)


def _in_tiles(layout: Layout, denoise: Partial) -> Partial:
    """A denoiser in tiles; of a pyramid each level is, so that the low frequencies are seen whole."""
    if isinstance(denoise.func, Pyramid):
        plain, tables = denoise.args
        return Partial(denoise.func, _in_tiles(layout, plain), tables)
    return Partial(_tiled_denoise, layout, denoise)


def _tiled_mean(layout, mean, x, v, c):
    channels = x.shape[-1]
    both = jnp.concatenate([x, v], -1)
    return layout.blend(lambda u, c: mean(u[..., :channels], u[..., channels:], c), both, c)


def tiled(prior: Prior, tile: int, overlap: int | None = None) -> Prior:
    """The same prior, its network evaluated in overlapping tiles: memory is that of one tile, beside the image itself.

    An image that is no larger than a tile is computed as without tiles, bit for bit. Tiles of a larger one lie inside
    it. The posterior mean and its pullback are blended; the denoising error and the spectrum stay.

    Args:
      prior: of a denoiser, of a network of its own diffusion, or of several.
      tile: side of the tiles in pixels, a multiple of the prior's stride.
      overlap: what neighbours have in common at least, in pixels; None is an eighth of the tile, at least two strides.

    Raises:
      ValueError: if a tile is no multiple of the stride, or the overlap is less than two strides or more than half.
    """
    stride = prior.stride
    overlap = max(tile // 8, 2 * stride) if overlap is None else overlap
    least = 4 * stride
    if tile < least or tile % stride:
        raise ValueError(f"the tile must be a multiple of {stride} pixels for this prior, {least} or more, got {tile}")
    if not 2 * stride <= overlap <= tile // 2:
        raise ValueError(f"tiles of {tile} pixels overlap by {2 * stride} to {tile // 2}, got {overlap}")
    layout = Layout(tile, overlap, stride)
    if (denoise := denoiser_of(prior)) is not None:
        return dataclasses.replace(prior, mean=prior_from_denoiser(_in_tiles(layout, denoise), prior.cld).mean)
    return dataclasses.replace(prior, mean=Partial(_tiled_mean, layout, prior.mean))


def step_bytes(prior: Prior, height: int, width: int) -> int:
    """What the network keeps for the pullback of one image of that size, about what a step takes; nothing compiles."""
    row = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), coefficients(prior.cld, 0.1))
    image = jax.ShapeDtypeStruct(prior.canvas((height, width, prior.channels or 3)), jnp.float32)
    pullback = jax.eval_shape(lambda x, v: jax.vjp(lambda w: prior.mean(x, w, row), v)[1], image, image)
    return sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(pullback))


def memory() -> int:
    """Bytes of the device that restores: of an accelerator its own, of a CPU the machine's or this container's."""
    told = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in told:
        return int(told["bytes_limit"])
    total = psutil.virtual_memory().total
    try:
        return min(total, int(CGROUP.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return total


def automatic_tile(prior: Prior, available: int | None = None) -> int:
    """The largest of SIDES whose network step takes at most SHARE of the memory; the smallest if none does.

    Args:
      prior: without tiles. available: bytes; None is `memory()`.
    """
    available = memory() if available is None else available
    sides = [side - side % prior.stride for side in SIDES]
    return next((side for side in sides if step_bytes(prior, side, side) <= SHARE * available), sides[-1])


def largest_batch(prior: Prior, tile: int, image_shape: tuple[int, int, int], available: int | None = None) -> int:
    """How many images of that shape fit into three quarters of the memory, at least one.

    Args:
      prior: without tiles. tile: side of its tiles, 0 of none. image_shape: (H, W, C). available: as above.
    """
    available = memory() if available is None else available
    height, width, channels = prior.canvas(image_shape)
    seen = (min(n, tile) if tile else n for n in (height, width))
    each = step_bytes(prior, *seen) + WHOLE * 4 * height * width * channels
    return max(1, int(3 * SHARE * available / each))
