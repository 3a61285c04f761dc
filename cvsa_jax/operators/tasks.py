"""The registry of tasks: how each degradation's operator is drawn."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.operators.base import Identity
from cvsa_jax.operators.camera import camera_shake
from cvsa_jax.operators.chain import Chain
from cvsa_jax.operators.convolution import Convolution, convolution
from cvsa_jax.operators.encoder import encoded_blur
from cvsa_jax.operators.kernels import motion_kernel
from cvsa_jax.operators.masks import Mask, box_mask, hand_mask, random_mask
from cvsa_jax.operators.options import OperatorOptions, default_kernel_size
from cvsa_jax.operators.phase import FourierMagnitude
from cvsa_jax.operators.separable import Separable, bicubic_downsample, gaussian_blur, gaussian_weights
from cvsa_jax.operators.tones import Clip, quantised
from cvsa_jax.types import Operator


class Task(NamedTuple):
    """One degradation.

    summary: a line for people. build: (generator, height, width, options) -> operator.
    factor: image side divided by measurement side. needs: what must be given with measured inputs,
    since it is drawn otherwise: 'kernel', 'mask', 'operator' or nothing. blind: the kernel is to be
    found too; family: of which, as `draw_kernel` has them. picture: whether the measurement can be
    looked at. settings: of the operator by default, for people; lengths in pixels of an image of 256.
    """

    summary: str
    build: Callable[[np.random.Generator, int, int, OperatorOptions], Operator]
    factor: int = 1
    needs: str = ""
    linear: bool = True
    blind: bool = False
    family: str | None = None
    picture: bool = True
    settings: str = ""


def _gaussian_deblur(generator, height, width, options):
    if options.kernel is not None:
        return convolution(options.kernel, options.boundary)
    return gaussian_blur(height, width, _gaussian_std(height, width, options))


def _gaussian_std(height, width, options):
    return 3 / 256 * min(height, width) if options.kernel_std is None else options.kernel_std


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

    return Task(f"bicubic super-resolution, x{factor}", build, factor=factor, settings=f"factor {factor}")


def _phase_retrieval(generator, height, width, options):
    if not 0 <= options.oversampling <= 8:
        raise ValueError(f"the oversampling must be in [0, 8], got {options.oversampling}")
    return FourierMagnitude(options.padding(height), options.padding(width))


def _nonlinear_deblur(generator, height, width, options):
    return camera_shake(generator, height, width, options.motion_intensity, options.exposure)


def _bkse_deblur(generator, height, width, options):
    if options.encoder is None:
        raise ValueError("bkse_deblur needs the published weights of the blur encoder: --bkse_weights=FILE")
    return encoded_blur(generator, height, width, options.encoder, options.encoder_source)


def _hdr(generator, height, width, options):
    if not options.hdr_gain >= 1:
        raise ValueError(f"the HDR gain must be at least 1, got {options.hdr_gain}")
    return Clip(jnp.asarray(options.hdr_gain, jnp.result_type(float)))


def _checkout(generator, height, width, options):
    blur = _motion_deblur(generator, height, width, options)
    mask = hand_mask(generator, height, width)
    return Chain(blur, mask if options.seen is None else _mask_inpaint(generator, height, width, options))


def _gaussian_kernel(generator, height, width, options):
    """The Gaussian blur by its kernel, as blind restoration knows it; of any width."""
    kernel = options.kernel
    if kernel is None:
        weights = gaussian_weights(_gaussian_std(height, width, options))
        kernel = np.outer(weights, weights)
    return convolution(kernel, options.boundary)


_GAUSSIAN, _MOTION = "deviation 3", "61x61, intensity 0.5"
TASKS: dict[str, Task] = {
    "denoise": Task("removal of the noise alone", lambda *_: Identity()),
    "gaussian_deblur": Task("Gaussian blur of a known width", _gaussian_deblur, settings=_GAUSSIAN),
    "motion_deblur": Task("motion blur by a known kernel", _motion_deblur, needs="kernel", settings=_MOTION),
    "box_inpaint": Task("a square hole at a random place", _box_inpaint, needs="mask", settings="128x128, margin 16"),
    "random_inpaint": Task("most pixels lost at random", _random_inpaint, needs="mask", settings="92 % missing"),
    "mask_inpaint": Task("a hole given as a mask file", _mask_inpaint, settings="--mask"),
    "sr2": _super_resolution(2),
    "sr4": _super_resolution(4),
    "sr8": _super_resolution(8),
    "phase_retrieval": Task(
        "magnitude of the Fourier transform", _phase_retrieval, linear=False, picture=False, settings="oversampling 2"
    ),
    "nonlinear_deblur": Task(
        "a camera's shake and saturation", _nonlinear_deblur, needs="operator", linear=False,
        settings="61x61, intensity 0.5, exposure 1.2",
    ),
    "bkse_deblur": Task(
        "blur by a network and a code", _bkse_deblur, needs="operator", linear=False, settings="--bkse_weights"
    ),
    "hdr": Task("a clipped range", _hdr, linear=False, settings="gain 2"),
    "jpeg": Task(
        "quantisation as in a JPEG file", lambda g, h, w, o: quantised(o.jpeg_quality), linear=False,
        settings="quality 10",
    ),
    "blind_gaussian_deblur": Task(
        "Gaussian blur of unknown width", _gaussian_kernel, linear=False, blind=True, family="gaussian",
        settings=_GAUSSIAN
    ),
    "blind_motion_deblur": Task(
        "motion blur by an unknown kernel", _motion_deblur, linear=False, blind=True, family="motion",
        settings=_MOTION
    ),
    "checkout": Task(
        "shaken camera, goods held in a hand", _checkout, needs="operator", settings=f"{_MOTION}, hand or --mask"
    ),
}  # fmt: skip


def find_task(name: str) -> Task:
    """The task of that name; a name like 'motion_deblur+sr4' is one degradation after another.

    Raises:
      ValueError: on an unknown name, or a combination that is not possible.
    """
    parts = name.split("+")
    for part in parts:
        if part not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, or several joined by '+', got {part!r}")
    tasks = [TASKS[part] for part in parts]
    if len(tasks) == 1:
        return tasks[0]
    for part, task in zip(parts, tasks, strict=True):
        if task.blind:
            raise ValueError(f"{part} cannot be combined with other degradations")
    for part, task in zip(parts[:-1], tasks[:-1], strict=True):
        if not task.picture:
            raise ValueError(f"nothing can follow {part}, whose measurement is no picture")

    def build(generator, height, width, options):
        operators, shape = [], (height, width, 1)
        for task in tasks:
            operators.append(task.build(generator, *shape[:2], options))
            shape = jax.eval_shape(operators[-1], jax.ShapeDtypeStruct(shape, jnp.result_type(float))).shape
        chained = operators[0]
        for operator in operators[1:]:
            chained = Chain(chained, operator)
        return chained

    return Task(
        ", then ".join(t.summary for t in tasks),
        build,
        int(np.prod([t.factor for t in tasks])),
        "operator" if any(t.needs for t in tasks) else "",
        all(t.linear for t in tasks),
        picture=tasks[-1].picture,
    )


def make_operator(
    task: str, generator: np.random.Generator, height: int, width: int, options: OperatorOptions
) -> Operator:
    """The operator of a task for images of height x width pixels.

    Args:
      task: name in TASKS, or several joined by '+'.
      generator: source of the random masks and kernels.
      height, width: of the image, not of the measurement.
      options: the tasks' settings.

    Raises:
      ValueError: on an unknown task or a setting out of range.
    """
    return find_task(task).build(generator, height, width, options)


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
