"""The one table of measures: what is reported of a restoration, how it is computed and shown."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from cvsa_jax import metrics
from cvsa_jax.operators import Task, aligned, shifted


class Case:
    """One restored image, as the measures see it; what takes time is computed once and only if wanted.

    Args:
      task: the degradation. truth: the image (H, W, C), or None. estimate: its restoration.
      shown: the measurement at the image's size, or None if it is no picture.
      kernel: found by a blind task, true_kernel: measured with; else None.
      residual: of the restoration, the mean over the samples that it is made of. noise_std: of a file's measurement.
      seconds, evaluations: what it took.
    """

    def __init__(
        self, task: Task, truth: np.ndarray | None, estimate: np.ndarray, shown: np.ndarray | None = None,
        kernel: np.ndarray | None = None, true_kernel: np.ndarray | None = None, residual: float = float("nan"),
        seconds: float = float("nan"), evaluations: int = 0, noise_std: float | None = None,
    ):  # fmt: skip
        self.task, self.truth, self.estimate, self.shown = task, truth, estimate, shown
        self.kernel, self.true_kernel = kernel, true_kernel
        self.residual, self.seconds, self.evaluations, self.noise_std = residual, seconds, evaluations, noise_std

    @functools.cached_property
    def aligned(self) -> np.ndarray:
        """The restoration after undoing what the task leaves open: a shift; of phase retrieval turn and sign too."""
        assert self.truth is not None
        return (aligned if self.task.ambiguous else shifted)(self.estimate, self.truth)


def always(task: Task) -> bool:
    """Of every task."""
    return True


def has_freedom(task: Task) -> bool:
    """Of tasks whose answer has a trivial freedom."""
    return task.blind or task.ambiguous


def is_blind(task: Task) -> bool:
    """Of tasks that find a kernel."""
    return task.blind


class Measure(NamedTuple):
    """One measure.

    heading: for tables. more: whether more is better; None is neither. digits: decimals in print. applies: to
    which tasks. compute: Case -> number, None where the case has none; a measure without it is one of a whole set
    of images or of a network with weights, which `evaluation.judge` computes. truth: whether it needs the true
    image. unit: behind the number. interval: whether the spread over images says something. in_tables: whether
    comparisons show it; 'psnr_aligned' stands in the column of 'psnr' where a task has a freedom. weights: the
    flag that names the network's weights, if it has one. measured: whether it is of jobs with --measured alone.
    """

    heading: str
    more: bool | None
    digits: int
    applies: Callable[[Task], bool] = always
    compute: Callable[[Case], float | None] | None = None
    truth: bool = True
    unit: str = ""
    interval: bool = True
    in_tables: bool = True
    weights: str = ""
    measured: bool = False


MEASURES: dict[str, Measure] = {
    "psnr_measurement": Measure(
        "PSNR of the measurement", True, 2, always,
        lambda c: None if c.shown is None else metrics.psnr(c.truth, c.shown), unit="dB", in_tables=False,
    ),
    "ssim_measurement": Measure(
        "SSIM of the measurement", True, 3, always,
        lambda c: None if c.shown is None else metrics.ssim(c.truth, c.shown), in_tables=False,
    ),
    "psnr": Measure("PSNR", True, 2, always, lambda c: metrics.psnr(c.truth, c.estimate), unit="dB"),
    "ssim": Measure("SSIM", True, 3, always, lambda c: metrics.ssim(c.truth, c.estimate)),
    "lpips": Measure("LPIPS", False, 3, weights="lpips_weights"),
    "fid": Measure("FID", False, 1, weights="inception_weights"),
    "patch_distance": Measure("patch distance", False, 3),
    "seconds": Measure("s an image", None, 1, always, lambda c: c.seconds, False, interval=False),
    "network_evaluations": Measure(
        "evaluations", None, 0, always, lambda c: c.evaluations, False, interval=False
    ),
    "psnr_aligned": Measure(
        "aligned PSNR", True, 2, has_freedom, lambda c: metrics.psnr(c.truth, c.aligned), unit="dB", in_tables=False
    ),
    "ssim_aligned": Measure(
        "aligned SSIM", True, 3, has_freedom, lambda c: metrics.ssim(c.truth, c.aligned), in_tables=False
    ),
    "kernel_mse": Measure(
        "kernel MSE", False, 4, is_blind, lambda c: metrics.kernel_mse(c.true_kernel, c.kernel)
    ),
    "residual": Measure("residual", None, 4, always, lambda c: c.residual, False, in_tables=False),
    "noise_std": Measure(
        "noise", None, 4, always, lambda c: c.noise_std, False, in_tables=False, measured=True
    ),
}  # fmt: skip


def columns(task: Task, measured: bool = False) -> list[str]:
    """The measures of one image that metrics.csv has for a task; measured: whether the inputs are measurements."""
    return [n for n, m in MEASURES.items() if m.compute is not None and m.applies(task) and measured >= m.measured]


def compute(case: Case, names: list[str]) -> dict[str, float]:
    """Those of the measures that can be had of a case."""
    found = {}
    for name in names:
        measure = MEASURES[name]
        if measure.compute is None or (measure.truth and case.truth is None):
            continue
        value = measure.compute(case)
        if value is not None:
            found[name] = value
    return found


def column_of(name: str, task: Task) -> str:
    """The column by which a comparison judges: the aligned one where the image itself has a trivial freedom."""
    other = f"{name}_aligned"
    return other if other in MEASURES and task.ambiguous else name


def text(name: str, value: float) -> str:
    """A number as it is printed."""
    return f"{value:.{MEASURES[name].digits}f}"


def closing_lines(task: Task, means: dict[str, float]) -> list[str]:
    """What a program says of the means at its end."""
    lines = []
    for suffix, words in (("", ""), ("_aligned", "up to the task's trivial ambiguities: ")):
        parts = []
        for name in ("psnr", "ssim"):
            own = f"{name}{suffix}"
            if own not in means:
                continue
            before = f"{name}_measurement"
            shown = [text(before, means[before])] if not suffix and before in means else []
            numbers = " -> ".join([*shown, text(own, means[own])])
            unit = f" {MEASURES[own].unit}" if MEASURES[own].unit else ""
            parts.append(f"{MEASURES[name].heading} {numbers}{unit}")
        if parts:
            lines.append(words + ", ".join(parts))
    if "kernel_mse" in means:
        error = text("kernel_mse", means["kernel_mse"])
        lines.append(f"kernel's mean squared error (maximum one, common shift removed): {error}")
    return lines
