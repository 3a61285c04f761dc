"""A second try of an image whose loop diverged: by itself, its network in float32, with twice the steps."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax import batch, operators
from cvsa_jax.jobs import methods, tiling
from cvsa_jax.jobs.prepared import Prepared, Restorer
from cvsa_jax.noise import NoiseModel
from cvsa_jax.placement import spread_of
from cvsa_jax.sampler_settings import GUESS

DIVERGED = 10.0  # images lie in [-1, 1]


def diverged(found: batch.BatchResult) -> bool:
    """Whether an answer is of no image: not finite, or far out of range."""
    return not np.abs(found.images).max() < DIVERGED  # true for not-a-number too


def broken_step(found: batch.BatchResult) -> int | None:
    """The first step, counted from one, at which a residual was not finite; None if all were, or there are no steps."""
    if found.trace is None:
        return None
    residual = np.asarray(found.trace.residual)  # (samples, steps), of particles with an axis more
    broken = np.flatnonzero(~np.isfinite(residual).all(tuple(i for i in range(residual.ndim) if i != 1)))
    return int(broken[0]) + 1 if broken.size else None


class SecondTry:
    """Restores single images of a job again; what it needs is made when the first one asks for it.

    possible: whether the job does so.
    """

    def __init__(self, prepared: Prepared):
        self._prepared, method = prepared, prepared.job.method
        # The constants of a baseline are for its own number of steps.
        self.possible = isinstance(method, methods.CvsaSettings) and method.retry

    @functools.cached_property
    def _restorer(self) -> Restorer:
        prepared, method = self._prepared, self._prepared.job.method
        assert isinstance(method, methods.CvsaSettings)
        method = dataclasses.replace(method, num_steps=2 * method.num_steps)
        own = dataclasses.replace(prepared.job.job, dtype="float32")
        prior = tiling.tiled(dataclasses.replace(prepared.job, job=own).prior(), own.tile)
        # Of this process: the others have no image to try again.
        spread = spread_of(own.split_rows, own.shard_params, prior, alone=jax.process_count() > 1)
        kernels = prepared.kernels
        search = prepared.job.task.blind and method.start == GUESS
        return methods.make_restorer(
            own.method, method, prior, prepared.noise, methods.plan_of(method, prior),
            kernels.joint() if kernels else None, search, spread,
        )  # fmt: skip

    def __call__(
        self, keys: Sequence[jax.Array], measurement: np.ndarray, known: operators.Operator,
        shape: tuple[int, int, int], noise: NoiseModel | None, size: int,
    ) -> batch.BatchResult:  # fmt: skip
        """The chains of one image, `size` of them at a time.

        Args:
          keys: of the chains, those of the first try. noise: of the measurement, or None if all have the same.
        """
        parts = []
        for start in range(0, len(keys), size):
            some: Any = keys[start : start + size]
            found = self._restorer(
                jnp.stack(some), np.stack([measurement] * len(some)), [known] * len(some), shape, lambda _: None,
                None if noise is None else [noise] * len(some),
            )  # fmt: skip
            parts += [found.part(i, len(some)) for i in range(len(some))]
        return batch.join_parts(parts)
