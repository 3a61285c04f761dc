"""Resampling by two with a short filter, per channel and separable.

By (1, 1) it is the average of 2x2 pixels and the nearest pixel, by (1, 3, 3, 1) the smoother kernel of NCSN++.

References: Karras et al. (2020), arXiv:1912.04958, for the filters; Song et al. (2021), arXiv:2011.13456, appendix H.
"""

import jax
import jax.numpy as jnp


def halve(x: jax.Array, taps: tuple[float, ...] = (1, 1), padded: bool = False) -> jax.Array:
    """y[i] = sum_k f[k] x[2 i + k - p] along both sides, f = taps / sum(taps), p = (K - 1) // 2, zero outside.

    Args:
      x: (B, H, W, C), H and W even.
      taps: K numbers, K even.
      padded: whether x has the border of p zeros, or what is there instead, already.

    Returns: (B, H / 2, W / 2, C), the border not counted.

    Raises:
      ValueError: if the number of taps is odd, since the sides would not halve.
    """
    gains, border = _gains(taps)
    for axis in (1, 2):
        side = x.shape[axis] + (0 if padded else 2 * border)
        y = x if padded else _pad(x, axis, border, border)
        stop = side - len(gains) + 1
        x = _sum(f * jax.lax.slice_in_dim(y, k, k + stop, 2, axis) for k, f in enumerate(gains))
    return x


def double(x: jax.Array, taps: tuple[float, ...] = (1, 1)) -> jax.Array:
    """4 times the adjoint of `halve`: (B, H, W, C) -> (B, 2 H, 2 W, C), which keeps the mean.

    Raises:
      ValueError: if the number of taps is odd.
    """
    gains, border = _gains(taps)
    for axis in (1, 2):
        reach = len(gains) // 2
        y = _pad(x, axis, reach, reach)
        phases = []
        for r in (0, 1):  # y[2 q + r] = sum_d f[2 d + r + p] x[q - d]
            shifts = [d for d in range(-reach, reach + 1) if 0 <= 2 * d + r + border < len(gains)]
            phases.append(_sum(
                2 * gains[2 * d + r + border] * jax.lax.slice_in_dim(y, reach - d, reach - d + x.shape[axis], 1, axis)
                for d in shifts
            ))  # fmt: skip
        shape = list(x.shape)
        shape[axis] *= 2
        x = jnp.stack(phases, axis + 1).reshape(shape)
    return x


def border(x: jax.Array, taps: tuple[float, ...]) -> jax.Array:
    """x with the zeros that `halve` would add."""
    width = _gains(taps)[1]
    return _pad(_pad(x, 1, width, width), 2, width, width)


def _gains(taps):
    if len(taps) % 2 or not taps:
        raise ValueError(f"a resampling filter needs an even number of taps, got {tuple(taps)}")
    total = float(sum(taps))
    return [float(tap) / total for tap in taps], (len(taps) - 1) // 2


def _pad(x, axis, low, high):
    widths = [(0, 0)] * x.ndim
    widths[axis] = (low, high)
    return jnp.pad(x, widths) if low or high else x


def _sum(terms):
    first, *rest = terms
    for term in rest:
        first = first + term
    return first
