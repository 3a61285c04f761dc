"""What a task runs unless flags say otherwise: one preset for each task and aim."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from cvsa_jax.operators import find_task
from cvsa_jax.sampler_settings import SamplerSettings
from cvsa_jax.settings import nearest, values
from cvsa_jax.types import UnsuitableError

ACCURACY, POSTERIOR = "accuracy", "posterior"
AIMS = (ACCURACY, POSTERIOR)
MEAN, RESIDUAL = "mean", "residual"
COMBINATIONS = (MEAN, RESIDUAL)


class Preset(NamedTuple):
    """How a task is restored.

    sampler: the loop. num_samples: chains of an image. combine: the answer is the 'mean' of them, or the one
    with the smallest 'residual'.
    """

    sampler: SamplerSettings
    num_samples: int
    combine: str = MEAN

    def but(self, changes: Mapping[str, Any]) -> "Preset":
        """The same with other values."""
        own = {k: v for k, v in changes.items() if k in ("num_samples", "combine")}
        rest = {k: v for k, v in changes.items() if k not in own}
        return self._replace(sampler=dataclasses.replace(self.sampler, **rest), **own)

    def values(self) -> dict[str, Any]:
        """As flags have them."""
        return values(self.sampler) | {"num_samples": self.num_samples, "combine": self.combine}


# Tasks say how they differ from these. Two chains that draw their noise afresh lie nearer to the posterior's
# mean than samples do, and a weight of 2 makes up for a prior that is smoother than photographs.
USUAL = {
    ACCURACY: Preset(SamplerSettings("decoupled", "spectral_covariance", num_steps=50, data_weight=2.0), 2),
    POSTERIOR: Preset(SamplerSettings("ancestral_multistep", "spectral_covariance", num_steps=50, data_weight=2.0), 8),
}


def preset_of(task: str, aim: str = ACCURACY) -> Preset:
    """The preset of a task for an aim: 'accuracy', the least error of one answer; 'posterior', samples.

    Raises:
      ValueError: on an unknown task or aim.
      UnsuitableError: if posterior samples are wanted of a task that has none.
    """
    found = find_task(task)
    if aim not in AIMS:
        raise ValueError(f"aim must be one of {', '.join(AIMS)}, got {aim!r}{nearest(aim, AIMS)}")
    changes = found.accuracy if aim == ACCURACY else found.posterior
    if changes is None:
        raise UnsuitableError("the task has no posterior samples: its chains go on from what a search has found")
    return USUAL[aim].but(changes)
