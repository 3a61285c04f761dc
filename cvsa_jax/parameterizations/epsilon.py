"""Networks of a discrete variance-preserving diffusion: told a time step, they predict the noise or its like."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jax.tree_util import Partial

from cvsa_jax.adapters import as_denoiser, cosine_kept, linear_kept, preserving
from cvsa_jax.diffusion import CLD
from cvsa_jax.parameterizations.base import Described, Network, Parameterization
from cvsa_jax.priors import Prior, prior_from_denoiser

SCHEDULES: dict[str, Callable[[Mapping[str, Any]], np.ndarray]] = {
    "linear": lambda c: linear_kept(c["num_steps"], c["first"], c["last"]),
    "scaled_linear": lambda c: linear_kept(c["num_steps"], c["first"], c["last"], 0.5),
    "cosine": lambda c: cosine_kept(c["num_steps"]),
}
SMALLEST_KEPT = 1e-6  # sigma 1,000, above which no diffusion of ours starts
DEFAULTS = {"num_steps": 1000, "first": 1e-4, "last": 0.02, "predicts": "epsilon"}


def kept_of(constants: Mapping[str, Any]) -> np.ndarray:
    """(T,) alpha bar of a schedule: 'betas' themselves, or the name and the numbers of one in SCHEDULES.

    Raises:
      ValueError: if there is no such schedule.
    """
    if "betas" in constants:
        return np.cumprod(1 - np.asarray(constants["betas"], np.float64))
    name = constants.get("schedule")
    if name not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {name!r}")
    return SCHEDULES[name]({**DEFAULTS, **constants})


def usable_of(constants: Mapping[str, Any]) -> np.ndarray:
    """`kept_of` as far as it is above SMALLEST_KEPT: the cosine's last step keeps nothing that a float32 could tell."""
    kept = kept_of(constants)
    return kept[: int((kept > SMALLEST_KEPT).sum())]


def _epsilon(spec: Described, network: Network, params, cld: CLD) -> Prior:
    schedule = preserving(usable_of(spec.constants))
    predicts = spec.constants.get("predicts", DEFAULTS["predicts"])
    return prior_from_denoiser(as_denoiser(Partial(network, params), schedule, predicts, batched=True), cld)


EPSILON = Parameterization(_epsilon, "the noise in x at a time step, or what `predicts` says")
