"""How the world's programs make small images: one matrix for each side, by the name of the method."""

import dataclasses
import functools

import numpy as np

from cvsa_jax.operators.separable import Separable, bicubic_matrix, cubic, separable
from cvsa_jax.operators.task import SHORT_CHAINS, Task
from cvsa_jax.settings import Settings, setting

BICUBIC = "bicubic"


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0.0)


def filtered_matrix(size: int, factor: int, kernel, support: float, stretch: bool, cut: bool) -> np.ndarray:
    """Rows of a reduction by a filter around (i + 1/2) scale - 1/2: (ceil(size / factor), size), each of sum 1.

    Args:
      kernel: of the distance in pixels, or in reduced ones. support: where it ends.
      stretch: whether the filter is stretched by the scale, which suppresses aliasing.
      cut: whether the filter is cut off at the border and scaled to sum 1 again, as Pillow does; else the outermost
        pixel is repeated, as OpenCV does.
    """
    count = -(-size // factor)
    scale = size / count
    width = scale if stretch else 1.0
    matrix = np.zeros((count, size))
    for i in range(count):
        centre = (i + 0.5) * scale - 0.5
        taps = np.arange(int(np.floor(centre - support * width)), int(np.ceil(centre + support * width)) + 1)
        weights = kernel((taps - centre) / width)
        if cut:
            weights = np.where((taps >= 0) & (taps < size), weights, 0.0)
        np.add.at(matrix[i], np.clip(taps, 0, size - 1), weights / weights.sum())
    return matrix


def area_matrix(size: int, factor: int) -> np.ndarray:
    """Rows of the mean over the pixels that an output covers, those that it covers in part by their share."""
    count = -(-size // factor)
    edges = np.arange(count + 1) * size / count
    pixels = np.arange(size)
    shares = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    matrix = np.maximum(shares, 0.0)
    return matrix / matrix.sum(1, keepdims=True)


def sampling_matrix(size: int, factor: int, centre: bool) -> np.ndarray:
    """Rows that take one pixel: the one that holds the output's centre, or the first that the output covers."""
    count = -(-size // factor)
    taken = np.floor((np.arange(count) + (0.5 if centre else 0.0)) * size / count).astype(int)
    return np.eye(size)[taken]


# Each: (size, factor) -> matrix (ceil(size / factor), size).
REDUCTIONS = {
    BICUBIC: bicubic_matrix,
    "bicubic_pillow": lambda n, f: filtered_matrix(n, f, lambda x: cubic(x), 2, True, True),
    "bicubic_opencv": lambda n, f: filtered_matrix(n, f, lambda x: cubic(x, -0.75), 2, False, False),
    "bilinear": lambda n, f: filtered_matrix(n, f, _triangle, 1, True, True),
    "bilinear_opencv": lambda n, f: filtered_matrix(n, f, _triangle, 1, False, False),
    "lanczos": lambda n, f: filtered_matrix(n, f, _lanczos, 3, True, True),
    "area": area_matrix,
    "nearest": functools.partial(sampling_matrix, centre=True),
    "nearest_opencv": functools.partial(sampling_matrix, centre=False),
}


def reduction(height: int, width: int, factor: int, method: str = BICUBIC) -> Separable:
    """Reduction by a whole factor as a program does it; any height and width.

    Args:
      method: a name in REDUCTIONS. bicubic is MATLAB's imresize: antialiased, a = -1/2, mirrored at the border.
        bicubic_pillow, bilinear and lanczos are Pillow's, which cuts the filter off there; nearest is Pillow's too,
        which takes the middle pixel. area is OpenCV's INTER_AREA and, where the factor divides the side, Pillow's BOX.
        bicubic_opencv (a = -3/4), bilinear_opencv and nearest_opencv (the first pixel, as image[::factor]) are
        OpenCV's, without antialiasing.

    Raises:
      ValueError: if the factor is below 1, or there is no such method.
    """
    if factor < 1:
        raise ValueError(f"the factor must be at least 1, got {factor}")
    if method not in REDUCTIONS:
        raise ValueError(f"the method must be one of {', '.join(REDUCTIONS)}, got {method!r}")
    return separable(*(REDUCTIONS[method](side, factor) for side in (height, width)))


@dataclasses.dataclass(frozen=True)
class ReductionSettings(Settings):
    """A small image."""

    sr_method: str = setting(BICUBIC, "How the small image was made.", choices=REDUCTIONS)


def _super_resolution(factor: int) -> Task:
    return Task(
        f"sr{factor}", f"bicubic super-resolution, x{factor}",
        lambda generator, height, width, settings: reduction(height, width, factor, settings.sr_method), (Separable,),
        ReductionSettings, factor=factor, accuracy=SHORT_CHAINS if factor < 8 else {},
        posterior={"sampler": "multistep"},
    )  # fmt: skip


TASKS = tuple(_super_resolution(factor) for factor in (2, 4, 8))
