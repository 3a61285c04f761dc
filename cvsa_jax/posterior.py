"""Posterior samples of one measurement: drawing them, and what they say."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from scipy import stats

from cvsa_jax.presets import POSTERIOR, USUAL
from cvsa_jax.priors import Prior
from cvsa_jax.restoration import restore
from cvsa_jax.sampler_settings import SamplerSettings
from cvsa_jax.types import UnsuitableError

LEVEL = 0.9


class Summary(NamedTuple):
    """mean, std: of the samples, each of an image's shape. low, high: the interval, see `interval`."""

    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray


def interval(samples: np.ndarray, level: float = LEVEL, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The interval that holds one more draw with probability `level`, from N draws of each pixel.

    mean -+ t s sqrt(1 + 1/N), s the samples' standard deviation and t the quantile of
    Student's distribution of N - 1 degrees of freedom at (1 + level)/2: exact for Gaussian
    posteriors at any N >= 2, where empirical quantiles would need dozens.

    Args:
      samples: N posterior samples along `axis`. level: in (0, 1).

    Returns: (low, high), without that axis.

    Raises:
      ValueError: on less than two samples, or another level.
    """
    samples = np.asarray(samples)
    count = _count(samples, axis)
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval must be above 0 and below 1, got {level}")
    half = stats.t.ppf((1 + level) / 2, count - 1) * (1 + 1 / count) ** 0.5 * samples.std(axis, ddof=1)
    mean = samples.mean(axis)
    return mean - half, mean + half


def _count(samples: np.ndarray, axis: int = 0) -> int:
    """How many samples lie along an axis; raises ValueError on less than two."""
    count = samples.shape[axis] if samples.ndim else 0
    if count < 2:
        raise ValueError(f"a deviation needs two or more samples, got {count}")
    return count


def summarise(samples: Any, level: float = LEVEL) -> Summary:
    """Mean, standard deviation (of N - 1) and `interval` of samples (N, ...).

    Raises:
      ValueError: on less than two samples, or a level that is not in (0, 1).
    """
    samples = np.asarray(samples)
    low, high = interval(samples, level)
    return Summary(samples.mean(0), samples.std(0, ddof=1), low, high)


def coverage(samples: Any, truth: Any, level: float = LEVEL, slack: float = 0.0) -> float:
    """The share of the truth's entries that lie in the samples' `interval`; near `level` where they can be trusted.

    Args:
      samples: (N, ...). truth: (...). slack: added on either side, as half a grey level of images that were rounded.

    Raises:
      ValueError: on less than two samples, another level, or shapes that do not go together.
    """
    samples, truth = np.asarray(samples), np.asarray(truth)
    if samples.shape[1:] != truth.shape:
        raise ValueError(f"the samples are of the shape {samples.shape[1:]}, but the truth of {truth.shape}")
    low, high = interval(samples, level)
    return float(np.mean((low - slack <= truth) & (truth <= high + slack)))


def expected_error(samples: Any) -> float:
    """The error that the mean of N samples (N, ...) should have, root mean square: s sqrt(1 + 1/N).

    s is the samples' deviation: the mean of N draws of a posterior is off by its own chance too. Compare it
    with the error that the mean has.

    Raises:
      ValueError: on less than two samples.
    """
    samples = np.asarray(samples)
    count = _count(samples)
    return float(np.sqrt(np.mean(samples.var(0, ddof=1)) * (1 + 1 / count)))


def sample_posterior(
    key: jax.Array, count: int, measurement: Any, operator: Callable, prior: Prior, *,
    image_shape: tuple[int, int, int], noise_std: Any, settings: SamplerSettings | None = None, batch_size: int = 8,
    **changes,
) -> jax.Array:  # fmt: skip
    """`count` samples of p(x | y), (count, H, W, C): `restore` with a key of its own for each.

    Pure, as `restore` is. `batch_size` of them run together, the batches one after the other, so that memory does not
    grow with the count; a sample is the same in any batch, up to rounding.

    Args:
      key: PRNG key. count: samples wanted.
      measurement, operator, prior, image_shape, noise_std: as of `restore`.
      settings: how the loop runs; None is the usual preset of posterior samples, with the likelihood as it is
        (data_weight 1). `preset_of(task, "posterior").sampler` is that of a task.
      batch_size: samples that run together.
      changes: single fields of `SamplerSettings` in place of those of `settings`.

    Raises:
      ValueError: on a count or a batch below one, and as `restore` does.
      UnsuitableError: of a sampler of many particles, which weighs its samples against each other.

    Example:
      mean, std, low, high = summarise(sample_posterior(key, 16, y, blur, prior, image_shape=..., noise_std=0.05))
    """
    if count < 1 or batch_size < 1:
        raise ValueError(f"count and batch_size must be at least 1, got {count} and {batch_size}")
    settings = settings or USUAL[POSTERIOR].but({"data_weight": 1.0}).sampler

    def one(key):
        found = restore(
            key,
            measurement,
            operator,
            prior,
            image_shape=image_shape,
            noise_std=noise_std,
            settings=settings,
            **changes,
        )
        if found.image.ndim != len(image_shape):
            raise UnsuitableError("a sampler of particles gives its samples by itself: call restore")
        return found.image

    return jax.lax.map(one, jax.random.split(key, count), batch_size=min(batch_size, count))
