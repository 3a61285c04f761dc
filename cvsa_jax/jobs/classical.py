"""The classical yardstick, with the interface of `BatchRestorer`."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cvsa_jax.baselines import restore_classically
from cvsa_jax.batch import BatchResult
from cvsa_jax.noise import GaussianNoise, NoiseModel
from cvsa_jax.operators.algebra import root_mean_square
from cvsa_jax.types import UnsuitableError


class ClassicalRestorer:
    """The classical yardstick, image by image."""

    def __init__(self, noise: NoiseModel):
        if not isinstance(noise, GaussianNoise):
            raise UnsuitableError("it knows Gaussian noise alone")
        noise.check()
        self._noise_std = noise.std

    def check(self, measurement: np.ndarray, operator, image_shape, noise: NoiseModel | None = None) -> None:
        """Raises UnsuitableError if there is no classical method for the operator."""
        restore_classically(operator, measurement, self._noise_std, image_shape)

    def __call__(
        self, keys, measurements, operators, image_shape, progress: Callable[[int], object] = lambda _: None,
        noises: Sequence[Any] | None = None, size: int | None = None,
    ) -> BatchResult:  # fmt: skip
        """Image by image: nothing is filled up to a size."""
        stds = [self._noise_std] * len(measurements) if noises is None else [noise.std for noise in noises]
        clock, images, residuals = time.perf_counter(), [], []
        for y, operator, std in zip(measurements, operators, stds, strict=True):
            images.append(restore_classically(operator, y, std, image_shape))
            residuals.append(np.asarray(root_mean_square(operator, operator.restrict(y) - operator(images[-1]))))
        progress(1)
        return BatchResult(np.stack(images), np.array(residuals), None, None, time.perf_counter() - clock)
