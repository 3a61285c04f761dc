"""Measured pixels put back into a restored picture, without a seam."""

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from scipy import ndimage

from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.masks import Mask
from cvsa_jax.operators.registry import parts
from cvsa_jax.operators.task import Task

# Up to as many missing pixels are solved for at once; of more, first those of a picture of half the size.
DIRECT, STEPS, TOLERANCE = 250_000, 100, 1e-4


def keeps_pixels(task: Task) -> bool:
    """Whether the measurement of a task has pixels of the image itself: it does nothing but hide others."""
    return set(task.makes) == {Mask}


def seen_pixels(operator: Operator) -> np.ndarray:
    """(H, W), the product of all masks of an operator."""
    return np.prod([np.asarray(part.seen, np.float64) for part in parts(operator) if isinstance(part, Mask)], 0)[..., 0]


def put_back(estimate: np.ndarray, measurement: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The estimate with the measured pixels in their places, and its holes shifted to fit their borders.

    With the hole U, where seen < 1, and c the membrane over it,

        laplacian c = 0 in U,    c = y - x on the measured pixels next to U,    dc/dn = 0 at the image's border,

    a pixel becomes y where it is seen, and y + (1 - seen) (x + c) in U; y holds seen times the photograph. The
    membrane takes the border's differences in colour with it into the hole, and no detail.

    References: Perez, Gangnet and Blake, Poisson image editing (2003), with the estimate as the source.

    Args:
      estimate: x, (H, W, C). measurement: y, (H, W, C), of which what is not seen is not read. seen: (H, W) in [0, 1].

    Returns:
      (H, W, C) of the estimate's type; where seen is one, the measurement itself.
    """
    hole, gain = seen < 1, seen[..., None]
    y = np.where(gain > 0, measurement, 0)
    # Without a pixel that is wholly seen there is no border.
    shift = np.zeros_like(estimate) if hole.all() else membrane(np.where(hole[..., None], 0, y - estimate), hole)
    filled = y + (1 - gain) * (estimate + shift)
    return np.where(hole[..., None], filled, y).astype(estimate.dtype)


def membrane(values: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The function that is harmonic in the hole and has the given values elsewhere: in the hole, each pixel is the
    mean of its neighbours within the image.

    Args:
      values: (H, W, C), not read in the hole. hole: (H, W) booleans, not all true.
    """
    inside = np.argwhere(hole)
    if len(inside) == 0:
        return values
    number = np.full(hole.shape, -1)
    number[hole] = np.arange(len(inside))
    degree, border = np.zeros(len(inside)), np.zeros((len(inside), values.shape[-1]))
    rows, columns = [], []
    for step in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        place = inside + step
        own = np.flatnonzero((place >= 0).all(1) & (place < hole.shape).all(1))
        near = tuple(place[own].T)
        degree[own] += 1
        open_ = hole[near]
        rows.append(own[open_])
        columns.append(number[near][open_])
        np.add.at(border, own[~open_], values[near][~open_])
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    shape = (len(inside), len(inside))
    matrix = scipy.sparse.diags(degree) - scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape)
    found = values.astype(np.float64)
    found[hole] = _solved(matrix.tocsc(), border, values, hole)
    return found


def _solved(matrix, border: np.ndarray, values: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Directly; of a large hole from the membrane of half the size, by conjugate gradients."""
    if len(border) <= DIRECT:
        return scipy.sparse.linalg.splu(matrix, "MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(border)
    start = _enlarged(values, hole)[hole]
    solve = lambda b, x: scipy.sparse.linalg.cg(matrix, b, x, rtol=TOLERANCE, maxiter=STEPS)[0]  # noqa: E731
    return np.stack([solve(b, x) for b, x in zip(border.T, start.T, strict=True)], -1)


def _enlarged(values: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """The membrane of a picture of half the size, each of its pixels the mean of what is known of four."""
    pad = [(0, n % 2) for n in hole.shape]
    known = np.pad(~hole, pad)[..., None].astype(np.float64)
    sums = np.pad(np.where(hole[..., None], 0, values), [*pad, (0, 0)])
    four = lambda a: a.reshape(a.shape[0] // 2, 2, a.shape[1] // 2, 2, -1).sum((1, 3))  # noqa: E731
    count, total = four(known), four(sums)
    coarse = membrane(total / np.maximum(count, 1), count[..., 0] == 0)
    large = ndimage.zoom(coarse, (2, 2, 1), order=1, mode="nearest", grid_mode=True)
    return np.asarray(large)[: hole.shape[0], : hole.shape[1]]
