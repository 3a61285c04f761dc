"""What can restore: CVSA, the baselines, and the classical yardstick, behind one interface."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from absl import flags

from cvsa_jax import baselines, batch, checkpoints, operators, samplers
from cvsa_jax.baselines import BASELINES, BLIND_BASELINES
from cvsa_jax.baselines.base import TRAINING_STEPS
from cvsa_jax.diffusion import SMALLEST_TIME
from cvsa_jax.noise import GaussianNoise, NoiseModel
from cvsa_jax.types import UnsuitableError

CVSA, CLASSICAL = "cvsa", "classical"
AIMS = ACCURACY, POSTERIOR = "accuracy", "posterior"
METHODS = {CVSA: "CVSA", **{n: b.label for n, b in (BASELINES | BLIND_BASELINES).items()}, CLASSICAL: "classical"}
# A magnitude has several answers: as in DAPS' own protocol, the one of least residual of a few.
PHASE_STARTS = 4
# Step sizes of DPS and BlindDPS at 1000 steps, the best of .1 (BlindDPS), .3, 1 and 3 on four shipped photographs
# at 64x64, for phase retrieval its paper's; .3 for what is not named. With fewer steps each is longer, so that
# together they go as far.
DPS_STEPS = {"gaussian_deblur": 1.0, "motion_deblur": 1.0, "sr4": 1.0, "phase_retrieval": 1.0}


class Preset(NamedTuple):
    """How a task is restored: names for `restore`, reverse steps, corrections of each, posterior samples.

    combine: 'mean' of the samples, or the one with the smallest 'residual'. start: 'noise', or the 'guess' of
    the operator; for blind tasks, of a search for the kernel. t_start, t_end: of the grid. data_weight: power of
    the likelihood.
    """

    sampler: str = "decoupled"
    guidance: str = "spectral_covariance"
    time_grid: str = "logarithmic"
    num_steps: int = 50
    num_corrections: int = 0
    num_samples: int = 2
    combine: str = "mean"
    start: str = "noise"
    t_start: float = 1.0
    t_end: float = SMALLEST_TIME
    data_weight: float = 2.0


def preset(method: str, task: str, own: Preset) -> Preset:
    """Steps and samples of a method that is not ours; what only CVSA has is left at None."""
    steps = 1 if method == CLASSICAL else (BASELINES | BLIND_BASELINES)[method].num_steps
    starts = PHASE_STARTS if own.combine == "residual" and method != CLASSICAL else 1
    return Preset(None, None, None, steps, 0, starts, own.combine, "noise", None, None, None)


def check(method: str, task: operators.Task) -> None:
    """Raises UnsuitableError if a method is blind and the task is not, or the other way round."""
    if method == CVSA:
        return
    if task.blind and method not in BLIND_BASELINES:
        raise UnsuitableError("it must be given the kernel")
    if not task.blind and method in BLIND_BASELINES:
        raise UnsuitableError("it is for blind tasks alone")


def evaluations(job: flags.FlagValues) -> int:
    """Of the network, for one image, a search for the kernel not counted."""
    return 0 if job.method == CLASSICAL else job.num_steps * job.num_samples * (1 + job.num_corrections)


def method_settings(job: flags.FlagValues) -> dict[str, float]:
    """The constants of a baseline: its paper's, and over them --method_settings=NAME=NUMBER,...

    Raises:
      ValueError: on a constant that the method does not have, or no number.
    """
    known = baselines.constants(job.method) if job.method in BASELINES | BLIND_BASELINES else {}
    settings = dict(known)
    if job.method in ("dps", "blind_dps"):
        settings["step_size"] = DPS_STEPS.get(job.task, 0.3) * TRAINING_STEPS / job.num_steps
    for text in job.method_settings:
        name, _, value = text.partition("=")
        if name not in known:
            have = ", ".join(known) or "none"
            raise ValueError(f"--method_settings={text}: {METHODS[job.method]} has these constants: {have}")
        try:
            settings[name] = type(known[name])(value)
        except ValueError as error:
            raise ValueError(f"--method_settings={text}: {value!r} is no {type(known[name]).__name__}") from error
    return settings


def restorer(job: flags.FlagValues, loaded: checkpoints.LoadedPrior, noise: NoiseModel, kernels):
    """What restores a batch; has the interface of `BatchRestorer`."""
    if job.method == CLASSICAL:
        return ClassicalRestorer(noise)
    settings = {"num_steps": job.num_steps, "noise_std": noise}
    constants = method_settings(job)
    if job.method == CVSA:
        settings |= {
            "sampler": job.sampler, "guidance": job.guidance, "time_grid_name": job.time_grid, "t_start": job.t_start,
            "t_end": job.t_end, "data_weight": job.data_weight, "num_corrections": job.num_corrections,
            "start": "noise" if kernels else job.start,
            "num_particles": job.num_samples if job.sampler in samplers.POPULATION_SAMPLERS else None,
        }  # fmt: skip
    if kernels:
        settings |= kernels.joint_settings()
    spec, baseline = loaded.spec, None if job.method == CVSA else (job.method, constants)
    return batch.BatchRestorer(
        loaded.prior, spec.build().stride, spec.image_channels, baseline=baseline, **settings
    )  # fmt: skip


class ClassicalRestorer:
    """The classical yardstick, image by image."""

    def __init__(self, noise: NoiseModel):
        if not isinstance(noise, GaussianNoise):
            raise UnsuitableError("it knows Gaussian noise alone")
        noise.check()
        self._noise_std = noise.std

    def check(self, measurement: np.ndarray, operator, image_shape) -> None:
        """Raises UnsuitableError if there is no classical method for the operator."""
        baselines.classical(operator, measurement, self._noise_std, image_shape)

    def __call__(
        self, keys, measurements, operators_, image_shape, progress: Callable[[int], None] = lambda _: None
    ) -> batch.BatchResult:
        clock, images, residuals = time.perf_counter(), [], []
        for y, operator in zip(measurements, operators_, strict=True):
            images.append(baselines.classical(operator, y, self._noise_std, image_shape))
            r = operators.restrict(operator, y) - np.asarray(operator(images[-1]))
            residuals.append(np.sqrt(np.mean(np.asarray(r) ** 2)))
        progress(1)
        return batch.BatchResult(
            np.stack(images), np.array(residuals), None, None, time.perf_counter() - clock
        )  # fmt: skip
