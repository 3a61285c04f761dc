"""Train a prior on a folder of images, or on blur kernels that are drawn while it runs.

    cvsa train --data=FOLDER --output=runs/mine
    cvsa train --data=kernels --image_size=16 --output=runs/kernels

A run that was killed goes on where its last checkpoint stands when the same command is given again: optimiser,
moving average, data position and random key. The finished prior is OUTPUT/prior, which
cvsa restore --checkpoint=OUTPUT/prior takes.
"""

from collections.abc import Callable
from typing import Any

from cvsa_jax.commands.flags import Groups
from cvsa_jax.diffusion import CLD
from cvsa_jax.jobs.train import TrainingRun, TrainingSettings
from cvsa_jax.settings import build, fields


def groups() -> Groups:
    """The verb's flags."""
    return {"Training": ("", fields(TrainingSettings)), "Diffusion": ("", fields(CLD))}


def check(given: dict[str, Any]) -> Callable[[], None]:
    """The run."""
    training = TrainingRun(build(TrainingSettings, given), build(CLD, given))
    return lambda: print(f"the prior is in {training.run()}")
