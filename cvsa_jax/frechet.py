"""Fréchet distances between sets of images: of Inception's features (FID), or of their patches.

The distance of two Gaussians is |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1^1/2 C_2 C_1^1/2)^1/2).

References: Dowson, Landau (1982); Heusel et al. (2017), arXiv:1706.08500.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

PATCH = 8


class Moments(NamedTuple):
    """Mean (d,) and covariance (d, d) of features, float64."""

    mean: np.ndarray
    covariance: np.ndarray


def moments(features: Iterable[np.ndarray]) -> Moments:
    """Of features that come in pieces (N, d), N >= 2 in all; the covariance divides by N - 1.

    Raises:
      ValueError: if there are less than two.
    """
    count, total, products = 0, 0.0, 0.0
    for piece in features:
        piece = np.asarray(piece, np.float64)
        count += len(piece)
        total = total + piece.sum(0)
        products = products + piece.T @ piece
    if count < 2:
        raise ValueError("a Fréchet distance needs at least two of each")
    mean = np.asarray(total / count)
    return Moments(mean, (products - count * np.outer(mean, mean)) / (count - 1))


def frechet_distance(a: Moments, b: Moments) -> float:
    """The squared Fréchet distance of the two Gaussians, >= 0; as published scores are, it is not rooted."""
    root = _root(a.covariance)
    cross = np.linalg.eigvalsh(root @ b.covariance @ root)
    trace = np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.sum(np.sqrt(np.maximum(cross, 0)))
    return float(max(np.sum((a.mean - b.mean) ** 2) + trace, 0.0))


def _root(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def patches(image: np.ndarray, size: int = PATCH) -> np.ndarray:
    """All patches of an image (H, W, C) in [-1, 1] as features, (N, size^2 C).

    `frechet_distance` of their moments, the patch distance, compares the colours, contrast and texture up to
    `size` pixels of two sets of images. It needs no weights, and is no FID: it knows nothing of objects.
    """
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(image, np.float64), (size, size), (0, 1))
    return windows.reshape(-1, image.shape[-1] * size * size)
