"""What a job says of itself when its answer is likely to be wrong: too few steps, a residual unlike the noise."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from cvsa_jax.jobs.inputs import Measured
from cvsa_jax.jobs.methods import CvsaSettings, MethodSettings
from cvsa_jax.noise import GaussianNoise, NoiseModel
from cvsa_jax.operators import Task

# With the preset's own steps the residual over the noise was .49 to 1.58 on the shipped photographs, of all tasks at
# noise .01 and .05 (docs/results.md). The restorations of measurements that were read wrongly lie outside.
LOWEST, HIGHEST = 0.35, 2.0
MUCH = 0.5  # noise that hides a photograph
# An answer of which so large a SHARE lies beyond LEVEL is of no image in [-1, 1]; of right ones at most .0006 did.
LEVEL, SHARE = 1.2, 0.005
# The least of 10, 15, 25, 35 and the preset's own steps that lost at most 1.5 dB to the preset, at noise .05
# (docs/results.md). Blind tasks, whose search does the most, and `bkse_deblur` are as what they are most like.
USUAL_STEPS = 10
LEAST_STEPS = {
    "motion_deblur": 15, "blind_motion_deblur": 15, "box_inpaint": 15, "hdr": 15, "mask_inpaint": 25, "ct": 25,
    "nonlinear_deblur": 25, "bkse_deblur": 25, "checkout": 25, "mri": 35, "phase_retrieval": 60,
}  # fmt: skip


def least_steps(task: Task) -> int:
    """The fewest steps that make sense for a task; of a joined one the most of its parts'."""
    return max(LEAST_STEPS.get(name, USUAL_STEPS) for name in task.name.split("+"))


def few_steps(task: Task, method: MethodSettings) -> str | None:
    """What to say of a loop of too few steps; None of one that has enough, and of other methods."""
    least = least_steps(task)
    if not isinstance(method, CvsaSettings) or method.num_steps * (1 + method.num_corrections) >= least:
        return None
    return f"--num_steps={method.num_steps} is few for {task.name}: {least} stay within 1.5 dB of the preset"


def expected_residual(noise: NoiseModel, measured: Measured) -> float:
    """The root mean square of the noise in a measurement, where something is measured."""
    y = jnp.asarray(measured.measurement)
    parts = (y.real, y.imag) if jnp.iscomplexobj(y) else (y,)
    seen = np.asarray(measured.operator.restrict(jnp.ones_like(y))) != 0
    variance = [np.broadcast_to(np.asarray(noise.variance(part)), y.shape)[seen].mean() for part in parts]
    return float(np.sqrt(np.mean(variance)))


def misfit(residual: float, noise: NoiseModel, measured: Measured, task: Task) -> str | None:
    """What to say of a residual that is far from the noise; None of one that is near.

    Args:
      residual: root mean square of y - H(x). noise: of the measurement. measured: it. task: the degradation.
    """
    std = expected_residual(noise, measured)
    count = np.count_nonzero(np.asarray(measured.operator.restrict(jnp.ones_like(measured.measurement))))
    chance = 3 / np.sqrt(2 * max(count, 1))  # three deviations of the noise's own root mean square
    ratio = residual / std
    if LOWEST - chance <= ratio <= HIGHEST + chance:
        return None
    found = f"the residual is {residual:.3g}, but the noise {std:.3g}"
    if ratio < 1:
        how = "--noise_std" if isinstance(noise, GaussianNoise) else "the noise"
        return f"{found}: {how} is too large, or the measurement has been smoothed"
    return f"{found}: look at {', '.join(suspects(task))}, and the number of steps"


def suspects(task: Task) -> list[str]:
    """What may be wrong about a measurement of a task, for people."""
    kinds = {kind.__name__ for kind in task.makes}
    found = [] if task.blind else ["the kernel"] * bool(kinds & {"Convolution", "CameraShake"})
    found += ["the mask"] * bool(kinds & {"Mask", "SubsampledFourier"})
    found += ["how the image was shrunk"] * (task.factor > 1)
    if "FourierMagnitude" in kinds:
        found += ["whether these are magnitudes, not their squares", "where frequency zero is", "--oversampling"]
    return [*found, "the range of the values", "--noise_std"]


def much_noise(std: float, task: Task) -> str | None:
    """What to say of an estimated deviation that no photograph survives; None of others."""
    if std < MUCH:
        return None
    return f"the measurement looks like noise of {std:.3g}: look at {', '.join(suspects(task))}"


def out_of_range(samples: np.ndarray, task: Task) -> str | None:
    """What to say of answers (N, H, W, C) that leave the range of images; None of those that do not."""
    share = float(np.mean(np.abs(samples) > LEVEL))
    if share <= SHARE:
        return None
    return (
        f"{share:.0%} of the answer lies beyond [-{LEVEL:g}, {LEVEL:g}], but images are in [-1, 1]: look at "
        f"{', '.join(suspects(task))}"
    )


def divergence(
    measured: Measured, residuals: np.ndarray, method: MethodSettings, step: int | None = None, again: bool = False
) -> str:
    """Why an image has no answer: what was found in its measurement, then what may help.

    Args:
      residuals: of its samples. step: the first that was not finite, from one, or None. again: whether a second try,
        with twice the steps, diverged too.
    """
    y = measured.measurement
    level = np.abs(y) if np.iscomplexobj(y) else y
    finite = level[np.isfinite(level)]
    unknown = level.size - finite.size
    span = f"{finite.min():.3g} to {finite.max():.3g}" if finite.size else "no finite number"
    nan = f", {unknown} not finite" if unknown else ""
    residual: Any = residuals[np.isfinite(residuals)]
    left = f"{residual.min():.3g}" if residual.size else "not finite"
    parts = ["the loop diverged", f"its measurement is {span}{nan}, its residual {left}"]
    if step is not None:
        parts.append(f"it was not finite from step {step} of {method.num_steps} on")
    if again:
        parts.append(f"so did a second try, in float32 with {2 * method.num_steps} steps")
    if isinstance(method, CvsaSettings):
        parts.append("take more steps, or sampler ancestral with covariance")
    return "; ".join(parts)
