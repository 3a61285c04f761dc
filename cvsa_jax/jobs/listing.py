"""What the tasks are, in words."""

from cvsa_jax.operators import TASKS
from cvsa_jax.plans import evaluations_of
from cvsa_jax.presets import ACCURACY, AIMS, Preset, preset_of
from cvsa_jax.sampler_settings import COARSE, NOISE
from cvsa_jax.settings import Field, fields, text_of


def listing() -> str:
    """Three or four lines for each task: what it is, its settings, and its preset for each aim."""
    blocks = []
    for name, task in TASKS.items():
        lines = [f"{name}: {task.summary}"]
        if own := fields(task.settings):
            lines.append(f"  settings    {', '.join(_default(f) for f in own)}")
        aims = (ACCURACY,) if task.posterior is None else AIMS
        lines += [f"  {aim.ljust(10)}  {_preset_text(preset_of(name, aim))}" for aim in aims]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _preset_text(preset: Preset) -> str:
    loop = preset.sampler
    count = evaluations_of(loop)
    each = f" of {count} evaluations" if count > 1 else ""
    guess = f", from a guess at t = {loop.t_start:g}"
    start = {NOISE: "", COARSE: ", a large image from a small one"}.get(loop.start, guess)
    work = f"{loop.num_steps} steps{each} x {preset.num_samples} samples, {preset.combine}{start}"
    names = f"{loop.sampler}, {loop.guidance}, {loop.time_grid}"
    return f"{names}; {work}; data weight {loop.data_weight:g}"


def _default(field: Field) -> str:
    if field.default is not None:
        return f"{field.name} {text_of(field.default)}"
    return f"{field.name} {field.setting.otherwise}" if field.setting.otherwise else f"--{field.name}"
