"""A task: one degradation, with all that programs need to know of it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cvsa_jax.operators.base import Operator
from cvsa_jax.settings import Settings, setting


@dataclasses.dataclass(frozen=True)
class NoSettings(Settings):
    """The settings of a task that has none."""


@dataclasses.dataclass(frozen=True)
class BlindSettings(Settings):
    """The settings of every task whose kernel is to be found too."""

    kernel_checkpoint: str = setting("kernels16", "The prior of kernels: a shipped one, or a folder.", path=True)
    search_guesses: int = setting(8, "Kernels that the search refines.", low=1)


# Of as many evaluations in all, the mean of four short chains had less error and more structural similarity than that
# of two long ones under noise, Gaussian blur, x2 and x4; elsewhere not both (docs/results.md).
SHORT_CHAINS = {"num_steps": 25, "num_samples": 4}


@dataclasses.dataclass(frozen=True)
class Task:
    """One degradation. A module of `operators` lists its own in TASKS; `registry.MODULES` names the module.

    Args:
      name: how flags call it.
      summary: a line for people.
      build: (generator, height, width, settings) -> operator, for images of height x width.
      makes: the classes of the operators that it builds.
      settings: the class of its settings.
      factor: the image's side over the measurement's. image_shape: (measurement's (H, W), settings) -> the image's
        (H, W), where it is not that factor.
      drawn_by: what of the operator is drawn, each the name of the setting that states it instead, or of none
        ('mask' of a hole at a random place). With measured inputs they, or an operator's file, must be given.
      requires: settings that must always be given.
      linear: whether H is linear.
      blind: whether the kernel is to be found too. family: of which, as `draw_kernel` has them.
      picture: whether the measurement can be looked at.
      ambiguous: whether images that are turned or negative measure the same, so that answers are aligned first.
      reads: (array (H, W, C), settings) -> the measurement as the operator has it, of a file whose array has another
        convention; raises ValueError on what cannot be one.
      accuracy, posterior: how the presets of the two aims differ from the usual ones (`presets.py`);
        posterior is None for a task that has no posterior samples.
    """

    name: str
    summary: str
    build: Callable[[np.random.Generator, int, int, Any], Operator]
    makes: tuple[type[Operator], ...]
    settings: type = NoSettings
    factor: int = 1
    image_shape: Callable[[tuple[int, int], Any], tuple[int, int]] | None = None
    drawn_by: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    linear: bool = True
    blind: bool = False
    family: str | None = None
    picture: bool = True
    ambiguous: bool = False
    accuracy: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    posterior: Mapping[str, Any] | None = dataclasses.field(default_factory=dict)
    reads: Callable[[np.ndarray, Any], np.ndarray] | None = None

    def image_of(self, measured: tuple[int, int], settings: Any) -> tuple[int, int]:
        """(H, W) of the image whose measurement has (H, W) `measured`, in pixels."""
        if self.image_shape is not None:
            return self.image_shape(measured, settings)
        return measured[0] * self.factor, measured[1] * self.factor


def scaled(share: float, side: int) -> float:
    """A length that is this many of 256 pixels, on an image whose shorter side is `side`."""
    return share / 256 * side
