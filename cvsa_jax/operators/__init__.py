"""Measurement operators and the registry of tasks that use them.

An operator is any JAX function of one image; those here are pytrees, so that `vmap` over
masks and kernels works. `make_operator` draws one for a task.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from cvsa_jax.operators.base import Identity, View, adjoint, restrict, simulate
from cvsa_jax.operators.convolution import BOUNDARIES, Convolution, convolution
from cvsa_jax.operators.dense import Matrix, SpectralForm
from cvsa_jax.operators.kernels import motion_kernel
from cvsa_jax.operators.masks import Mask, box_mask, random_mask
from cvsa_jax.operators.separable import Separable, bicubic_downsample, gaussian_blur
from cvsa_jax.types import Operator


@dataclasses.dataclass(frozen=True)
class OperatorOptions:
    """Settings of the tasks. None scales with the image's shorter side S, as the paper's at 256.

    Args:
      kernel_size: side of a motion kernel, odd; None is 61/256 S.
      kernel_std: standard deviation of the Gaussian blur in pixels; None is 3/256 S.
      motion_intensity: 0 straight to 1 shaky.
      kernel: a kernel to use in place of a drawn one, (h, w).
      boundary: of blurs by a kernel, 'reflect' or 'circular'.
      box_size: side of the hole; None is S/2. box_margin: None is S/16.
      missing: share of the pixels that random inpainting loses.
      seen: (H, W) mask of `mask_inpaint`, one where the pixel is known.
    """

    kernel_size: int | None = None
    kernel_std: float | None = None
    motion_intensity: float = 0.5
    kernel: np.ndarray | None = None
    boundary: str = "reflect"
    box_size: int | None = None
    box_margin: int | None = None
    missing: float = 0.92
    seen: np.ndarray | None = None


class Task(NamedTuple):
    """One degradation.

    summary: a line for people. build: (generator, height, width, options) -> operator.
    factor: image side divided by measurement side. random: whether the operator is drawn,
    so that measured inputs need it given.
    """

    summary: str
    build: Callable[[np.random.Generator, int, int, OperatorOptions], Operator]
    factor: int = 1
    random: bool = False


def default_kernel_size(side: int) -> int:
    """61 of 256 pixels, as an odd number of at least 3."""
    return max(3, 2 * int(side * 61 / 256 / 2) + 1)


def _gaussian_deblur(generator, height, width, options):
    if options.kernel is not None:
        return convolution(options.kernel, options.boundary)
    std = 3 / 256 * min(height, width) if options.kernel_std is None else options.kernel_std
    return gaussian_blur(height, width, std)


def _motion_deblur(generator, height, width, options):
    kernel = options.kernel
    if kernel is None:
        size = options.kernel_size or default_kernel_size(min(height, width))
        kernel = motion_kernel(generator, size, options.motion_intensity)
    return convolution(kernel, options.boundary)


def _box_inpaint(generator, height, width, options):
    side = min(height, width)
    box = round(side / 2) if options.box_size is None else options.box_size
    margin = round(side / 16) if options.box_margin is None else options.box_margin
    return box_mask(generator, height, width, box, margin)


def _random_inpaint(generator, height, width, options):
    return random_mask(generator, height, width, options.missing)


def _mask_inpaint(generator, height, width, options):
    if options.seen is None:
        raise ValueError("mask_inpaint needs a mask file")
    if options.seen.shape != (height, width):
        have = "x".join(map(str, options.seen.shape))
        raise ValueError(f"the mask has {have} pixels, but the image has {height}x{width}")
    return Mask(jnp.asarray(options.seen[..., None], jnp.float32))


def _super_resolution(factor: int) -> Task:
    def build(generator, height, width, options):
        return bicubic_downsample(height, width, factor)

    return Task(f"bicubic super-resolution, x{factor}", build, factor=factor)


TASKS: dict[str, Task] = {
    "denoise": Task("removal of the noise alone", lambda *_: Identity()),
    "gaussian_deblur": Task("Gaussian blur of a known width", _gaussian_deblur),
    "motion_deblur": Task("motion blur by a known kernel", _motion_deblur, random=True),
    "box_inpaint": Task("a square hole at a random place", _box_inpaint, random=True),
    "random_inpaint": Task("most pixels lost at random", _random_inpaint, random=True),
    "mask_inpaint": Task("a hole given as a mask file", _mask_inpaint),
    "sr2": _super_resolution(2),
    "sr4": _super_resolution(4),
    "sr8": _super_resolution(8),
}


def make_operator(
    task: str, generator: np.random.Generator, height: int, width: int, options: OperatorOptions
) -> Operator:
    """The operator of a task for images of height x width pixels.

    Args:
      task: name in TASKS.
      generator: source of the random masks and kernels.
      height, width: of the image, not of the measurement.
      options: the tasks' settings.

    Raises:
      ValueError: on an unknown task or a setting out of range.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    return TASKS[task].build(generator, height, width, options)


def kernel_of(operator: Operator) -> np.ndarray | None:
    """The kernel of a blur, (h, w); None for operators that are no blur.

    None too for a Gaussian so wide that it reaches both borders, where it is folded back.
    """
    if isinstance(operator, Convolution):
        return np.asarray(operator.kernel)
    if isinstance(operator, Separable) and operator.rows.shape[0] == operator.rows.shape[1]:
        middles = [np.asarray(m)[len(m) // 2] for m in (operator.rows, operator.columns)]
        if all(m[0] == m[-1] == 0 for m in middles):
            return np.outer(*(m[m > 0] for m in middles))
    return None


__all__ = [
    "BOUNDARIES",
    "TASKS",
    "Convolution",
    "Identity",
    "Mask",
    "Matrix",
    "OperatorOptions",
    "Separable",
    "SpectralForm",
    "Task",
    "View",
    "adjoint",
    "bicubic_downsample",
    "box_mask",
    "convolution",
    "default_kernel_size",
    "gaussian_blur",
    "kernel_of",
    "make_operator",
    "motion_kernel",
    "random_mask",
    "restrict",
    "simulate",
]
