"""One preset for each task: what experiments.restore runs unless a flag says otherwise."""

from typing import NamedTuple

from cvsa_jax import operators


class Preset(NamedTuple):
    """How a task is restored: names for `restore`, reverse steps, corrections of each, posterior samples averaged."""

    sampler: str = "ancestral"
    guidance: str = "spectral_covariance"
    time_grid: str = "logarithmic"
    num_steps: int = 25
    num_corrections: int = 0
    num_samples: int = 4


# What a hole is filled with must fit its border: without corrections a seam shows, with seven at
# each noise level it is gone, and a white covariance then serves best. Scattered pixels and blur
# are better off with more samples. Plain noise leaves no difference, so it takes the cheapest.
_HOLE = Preset(guidance="covariance", num_corrections=7, num_samples=2)
PRESETS: dict[str, Preset] = {task: Preset() for task in operators.TASKS} | {
    "denoise": Preset(guidance="covariance"),
    "box_inpaint": _HOLE,
    "mask_inpaint": _HOLE,
}


def fill(task: str, flag_values) -> None:
    """Set every flag that was left out to the task's preset.

    A sampler of the user's own takes no corrections unless they are asked for: not all can.
    """
    if flag_values["sampler"].value is not None and flag_values["num_corrections"].value is None:
        flag_values["num_corrections"].value = 0
    for name, value in PRESETS[task]._asdict().items():
        if flag_values[name].value is None:
            flag_values[name].value = value


def listing() -> str:
    """A line for each task: its summary and its preset."""
    lines = [f"{'task':16} {'degradation':36} sampler, guidance, time grid, steps x (1 + corrections) x samples"]
    for name, task in operators.TASKS.items():
        p = PRESETS[name]
        work = f"{p.num_steps} x {1 + p.num_corrections} x {p.num_samples}"
        lines.append(f"{name:16} {task.summary:36} {p.sampler}, {p.guidance}, {p.time_grid}, {work}")
    return "\n".join(lines)
