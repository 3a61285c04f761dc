"""One preset for each task and aim: what experiments.restore runs unless a flag says otherwise."""

from absl import flags

from cvsa_jax import operators
from cvsa_jax.types import UnsuitableError
from experiments import methods
from experiments.methods import Preset

OWN_FLAGS = ("sampler", "guidance", "num_corrections", "time_grid", "t_start", "t_end", "start", "data_weight")
# What a hole is filled with must fit its border: over 200 levels it is drawn afresh until it does.
_HOLE = Preset(num_steps=200)
# Where a range is cut off, drawing afresh loses what the chain has found out about it.
_CLIPPED = Preset("ancestral", num_steps=25, num_samples=4, data_weight=1.0)
_BLIND = Preset(start="guess", data_weight=1.0)
# Guidance along a derivative cannot find lost phases. Projections can, round means that are drawn afresh
# at each noise from 2 to .05; of sixteen starts a few get there, and the residual tells which.
_PHASE = Preset(
    "decoupled", "projection", num_steps=60, num_samples=16, combine="residual", start="guess", t_start=0.2749,
    t_end=0.0234, data_weight=1.0,
)  # fmt: skip
PRESETS: dict[str, Preset] = {task: Preset() for task in operators.TASKS} | {
    "denoise": Preset(guidance="covariance"),  # which plain noise does not tell from the others, and the cheapest
    "box_inpaint": _HOLE,
    "mask_inpaint": _HOLE,
    "hdr": _CLIPPED,
    "jpeg": _CLIPPED,
    "phase_retrieval": _PHASE,
    "blind_gaussian_deblur": _BLIND,
    "blind_motion_deblur": _BLIND,
}
# Samples cannot forget what they drew; a seam shows unless the chain is corrected at each noise level.
_HOLE_SAMPLES = Preset("ancestral", "covariance", num_steps=25, num_corrections=7, num_samples=8, data_weight=1.0)
_SAMPLES = Preset("ancestral_multistep", num_steps=50, num_samples=8)
# Where much is left open, the noise of each step costs texture that few steps do not bring back; a flow has none.
_OPEN_SAMPLES = _SAMPLES._replace(sampler="multistep")
SAMPLES: dict[str, Preset] = {
    "box_inpaint": _HOLE_SAMPLES, "mask_inpaint": _HOLE_SAMPLES,
    **dict.fromkeys(("random_inpaint", "sr2", "sr4", "sr8"), _OPEN_SAMPLES),
}  # fmt: skip


def preset_of(task: str, aim: str = methods.ACCURACY) -> Preset:
    """The preset of a task; several joined by '+' have the default one.

    aim: 'accuracy', the least error of one answer; 'posterior', samples whose spread tells how sure it is.
    """
    if aim == methods.ACCURACY:
        return PRESETS.get(task, Preset())
    return SAMPLES.get(task, _SAMPLES)


def fill(job: flags.FlagValues) -> None:
    """Set every flag that was left out to the preset of the task, or of a method that is not ours.

    A sampler of the user's own takes no corrections unless they are asked for: not all can. With a sampler or
    guidance of the user's own the likelihood is not weighted unless that is asked for: it is what its name says.

    Raises:
      ValueError: if a flag is given that the method does not have.
      UnsuitableError: if posterior samples are wanted of a task whose chains go on from a search.
    """
    preset = preset_of(job.task, job.aim)
    if job.aim == methods.POSTERIOR and preset_of(job.task).start == "guess":
        raise UnsuitableError("the task has no posterior samples: its chains go on from what a search has found")
    if job.method != methods.CVSA:
        if job.aim != methods.ACCURACY:
            raise ValueError(f"--aim belongs to --method={methods.CVSA}, not to {job.method}")
        for name in OWN_FLAGS:
            if job[name].value is not None:
                raise ValueError(f"--{name} belongs to --method={methods.CVSA}, not to {job.method}")
        preset = methods.preset(job.method, job.task, preset)
    else:
        own_sampler, own_guidance = (job[name].value is not None for name in ("sampler", "guidance"))
        if own_sampler and job["num_corrections"].value is None:
            job["num_corrections"].value = 0
        if (own_sampler or own_guidance) and job["data_weight"].value is None:
            job["data_weight"].value = 1.0
    for name, value in preset._asdict().items():
        if job[name].value is None:
            job[name].value = value
    job["method_settings"].value = [f"{k}={v}" for k, v in methods.method_settings(job).items()]


def listing() -> str:
    """A line for each task: its summary, its operator's settings and its preset."""
    header = (
        "task",
        "degradation",
        "operator",
        "sampler, guidance, time grid",
        "start",
        "steps x (1 + corrections) x samples",
        "data weight",
    )
    rows = [header]
    for name, task in operators.TASKS.items():
        p = PRESETS[name]
        start = p.start if p.t_start == 1 else f"{p.start} at t = {p.t_start:g}"
        work = f"{p.num_steps} x {1 + p.num_corrections} x {p.num_samples}, {p.combine}"
        rows.append((name, task.summary, task.settings, f"{p.sampler}, {p.guidance}, {p.time_grid}", start, work,
                     f"{p.data_weight:g}"))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
