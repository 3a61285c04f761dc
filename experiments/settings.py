"""One preset for each task: what experiments.restore runs unless a flag says otherwise."""

from typing import NamedTuple

from cvsa_jax import operators


class Preset(NamedTuple):
    """How a task is restored: the names of `restore`, reverse steps, and posterior samples averaged."""

    sampler: str = "ancestral"
    guidance: str = "spectral_covariance"
    time_grid: str = "logarithmic"
    num_steps: int = 25
    num_samples: int = 4


# Holes are restored better by the white covariance: by .3 dB for the box of half the side. A plain
# measurement of every pixel leaves no difference, so it takes the cheaper one.
PRESETS: dict[str, Preset] = {task: Preset() for task in operators.TASKS} | {
    "denoise": Preset(guidance="covariance"),
    "box_inpaint": Preset(guidance="covariance"),
    "mask_inpaint": Preset(guidance="covariance"),
}


def fill(task: str, flag_values) -> None:
    """Set every flag that was left out to the task's preset."""
    for name, value in PRESETS[task]._asdict().items():
        if flag_values[name].value is None:
            flag_values[name].value = value


def listing() -> str:
    """A line for each task: its summary and its preset."""
    lines = [f"{'task':16} {'degradation':36} sampler, guidance, time grid, steps x samples"]
    for name, task in operators.TASKS.items():
        p = PRESETS[name]
        how = f"{p.sampler}, {p.guidance}, {p.time_grid}, {p.num_steps} x {p.num_samples}"
        lines.append(f"{name:16} {task.summary:36} {how}")
    return "\n".join(lines)
