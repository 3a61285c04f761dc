"""Figures of finished jobs that need a network with published weights, or a whole set of images."""

import math
from collections.abc import Iterable

import jax
import numpy as np

from cvsa_jax import frechet
from cvsa_jax.importers import quality
from cvsa_jax.measures import MEASURES, Measure
from cvsa_jax.models.inception import Inception
from cvsa_jax.models.perceptual import Perceptual
from cvsa_jax.operators import Task


class Judge:
    """Perceptual and set-level figures from the files; networks are used if their weights are given.

    Args:
      weights: files by flag: inception_weights and lpips_weights, as `quality` takes them.
    """

    def __init__(self, weights: dict[str, str | None]):
        self._weights = weights
        self._inception = self._lpips = None
        if weights.get("inception_weights"):
            params = quality.load_inception(str(weights["inception_weights"]))
            self._inception = jax.jit(lambda x: Inception().apply({"params": params}, x))
        if weights.get("lpips_weights"):
            backbone, found = quality.load_perceptual(str(weights["lpips_weights"]))
            self._lpips = jax.jit(lambda a, b: Perceptual(backbone).apply({"params": found}, a, b))

    def wanted(self, task: Task) -> dict[str, Measure]:
        """The columns of a task's table; what says nothing of quality comes last."""
        has = lambda m: not m.weights or bool(self._weights.get(m.weights))  # noqa: E731
        found = {n: m for n, m in MEASURES.items() if m.in_tables and m.applies(task) and has(m)}
        return dict(sorted(found.items(), key=lambda item: not item[1].interval))

    def lpips(self, truth: np.ndarray, estimate: np.ndarray) -> float:
        """Of one pair; not a number without weights."""
        if self._lpips is None:
            return math.nan
        a, b = (_colours(x)[None] for x in (truth, estimate))
        return float(self._lpips(a, b)[0])

    def distances(self, truths: list[np.ndarray], images: list[np.ndarray]) -> dict[str, float]:
        """Fréchet distances of two sets: of patches, and of Inception's features with weights; NaN of less than two."""
        out = {"patch_distance": _distance(map(frechet.patches, truths), map(frechet.patches, images))}
        network = self._inception
        if network is not None:
            features = lambda xs: (np.asarray(network(_colours(x)[None])) for x in xs)  # noqa: E731
            out["fid"] = _distance(features(truths), features(images))
        return out


def _colours(x: np.ndarray) -> np.ndarray:
    return np.repeat(x, 3 // x.shape[-1], -1)


def _distance(a: Iterable[np.ndarray], b: Iterable[np.ndarray]) -> float:
    try:
        both = frechet.moments(a), frechet.moments(b)
    except ValueError:  # a single image, or its single patch, has no covariance
        return math.nan
    return frechet.frechet_distance(*both)
