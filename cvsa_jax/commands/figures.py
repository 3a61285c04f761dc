"""Draw the figures of one image, as the paper's.

    cvsa figures --kind=tasks --input=IMAGE --output=figures
    cvsa figures --kind=path --task=motion_deblur --input=IMAGE --output=figures
    cvsa figures --kind=checkout --input=FOLDER --output=figures

`tasks` (the paper's figure 1) has every task on one sheet, `checkout` (6) goods held in a hand. `path` (2) shows
position, velocity and the denoised image on the way, as a film strip (path.png) and animated (path.webp).
Figures 3 to 5, methods side by side, are written by cvsa evaluate.
"""

import pathlib
from collections.abc import Callable
from typing import Any

from cvsa_jax.commands.flags import Groups
from cvsa_jax.evaluation.figures import FIGURES, FigureSettings
from cvsa_jax.jobs import selection
from cvsa_jax.operators import find_task
from cvsa_jax.settings import build, fields, require

# Flags that one kind of figure alone has.
ONLY = {"task": "path", "num_steps": "path", "num_frames": "path", "tasks": "tasks", "limit": "checkout"}


def groups() -> Groups:
    """The verb's flags."""
    return {"Figure": ("", fields(FigureSettings))}


def check(given: dict[str, Any]) -> Callable[[], None]:
    """The figure."""
    require(given, "kind", "input", "output")
    own = build(FigureSettings, given)
    for name, kind in ONLY.items():
        if name in given and own.kind != kind:
            raise ValueError(f"--{name} belongs to --kind={kind}, not to --kind={own.kind}")
    for task in own.tasks or (own.task,):
        found = find_task(task)
        if found.requires:
            raise ValueError(f"{task} needs a file, --{found.requires[0]}, which a figure does not take")
        if own.kind == "path" and found.blind:
            raise ValueError("--kind=path is for tasks whose kernel is known")
    selection.list_inputs(str(own.input), False, own.output)
    output = pathlib.Path(str(own.output))

    def work() -> None:
        output.mkdir(parents=True, exist_ok=True)
        print(f"figure: {FIGURES[str(own.kind)](own, output)}")

    return work
