"""Measurements that are arrays: their files, their layout and their range."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import tifffile

from cvsa_jax.npy import unreadable
from cvsa_jax.operators import Task, array_files
from cvsa_jax.operators.light import as_power
from cvsa_jax.pictures.levels import EXCESS
from cvsa_jax.pictures.reading import upright
from cvsa_jax.pictures.tiffs import read_tiff
from cvsa_jax.settings import Settings, setting
from cvsa_jax.types import InputError

TIFFS = (".tif", ".tiff")
NAMES = ("y", "measurement")
# Images in [-1, 1] have at most 1; noise of a deviation of 1.1 is left room for.
LARGEST = 1.5
# More than 99 % of the values above it are of [0, 1]: of the shipped photographs, whole, blurred and shrunk, with noise
# up to .1, that holds of 15 of 512 in [-1, 1]; in [0, 1] of all but 4 of 384 with noise up to .05.
LEAST = -0.04
LEVEL = 1 / 127.5  # one of 255
SCALES = (1, 255, 1023, 4095, 16383, 65535)


@dataclasses.dataclass(frozen=True)
class MeasurementSettings(Settings):
    """How measured arrays are read, and what the values of files mean."""

    range: tuple[float, ...] | None = setting(
        None,
        "LOW,HIGH: the values of black and white in arrays, and in pictures of floats or of more than 8 bits.",
        otherwise="found for each file, see the documentation",
    )

    gamma_decode: str | None = setting(
        None, "The blur averaged light: of files encoded by 'srgb', or by a power as in 2.2.", otherwise="off"
    )

    def __post_init__(self):
        super().__post_init__()
        if self.gamma_decode is not None:
            as_power(self.gamma_decode)
        if self.range is not None:
            object.__setattr__(self, "range", as_range(self.range))


def as_range(values: tuple) -> tuple[float, float]:
    """(black, white) from two numbers or their texts.

    Raises:
      ValueError: unless they are two different finite numbers, the smaller first.
    """
    try:
        low, high = map(float, values)
        if np.isfinite([low, high]).all() and low < high:
            return low, high
    except (TypeError, ValueError):
        pass
    raise ValueError(f"range must be two numbers, black and white, as in 0,255; got {values!r}")


def is_array(path: pathlib.Path) -> bool:
    """Whether a file holds an array: .npy, .npz, .mat, or a TIFF of floating-point numbers."""
    suffix = path.suffix.lower()
    if suffix not in TIFFS:
        return suffix in array_files.SUFFIXES
    try:
        with tifffile.TiffFile(path) as file:
            dtype = file.pages.first.dtype
            return dtype is not None and dtype.kind in "fc"
    except Exception:  # of a damaged file nearly anything: the reader of pictures says what is wrong
        return False


def read_measurement(
    path: pathlib.Path, channels: int, task: Task, settings: Any = None, limits: tuple[float, ...] | None = None
) -> np.ndarray:
    """A measurement (H, W, C), float32, or complex64 where the file's numbers are complex.

    Args:
      path: of the file. channels: of the prior; under one of grey images colours are averaged.
      task: what was measured. settings: of the task, files read.
      limits: the values that stand for black and white, mapped to -1 and 1; None are -1 and 1, and checked.

    Raises:
      InputError: if it cannot be read, has no image's shape, or values that the task does not measure.
    """
    array = _layout(path, _read(path))
    if limits is not None and not task.picture:
        raise InputError(f"--range is of pictures, which {task.name} does not measure: {path} is taken as it is")
    if limits is None and array.dtype.kind in "iub":
        found = _span(array)
        raise InputError(
            f"{path} is {array.dtype}, but numbers in [-1, 1] are needed; found {found}: "
            + (f"give {_offer(array)}" if task.picture else "save them as floating-point numbers")
        )
    array = array.astype(np.complex64 if np.iscomplexobj(array) else np.float32)
    if limits not in (None, (-1.0, 1.0)):
        low, high = limits
        found = _span(array)
        array = (2 * (array - low) / (high - low) - 1).astype(array.dtype)
        if _large(array) or np.nanmax(np.abs(array - np.nanmean(array))) < LEVEL:
            raise InputError(f"{path} has values {found}, which is not --range={low:g},{high:g}")
    elif limits is None and task.picture and not np.iscomplexobj(array):
        _check_range(path, array)
    if task.reads is not None:
        try:
            array = task.reads(array, settings)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error
    return array.mean(-1, keepdims=True) if channels == 1 else array


def _check_range(path: pathlib.Path, array: np.ndarray) -> None:
    """Raises InputError if the values of a picture are not of [-1, 1] and noise.

    They are not if their root mean square is above LARGEST, or if all but noise, a hundredth at most, are above
    LEAST: no pixel of a picture is then darker than half its range.
    """
    known = array[np.isfinite(array)].astype(np.float64)
    if not known.size:
        return  # the reader reports it
    if _large(known) or np.percentile(known, 1) > LEAST:
        also = ", or --range=-1,1 if they are in [-1, 1] already" if np.abs(known).max() <= LARGEST else ""
        raise InputError(f"{path} has values {_span(known)}, but [-1, 1] is needed: give {_offer(known)}{also}")


def _large(array: np.ndarray) -> bool:
    return bool(np.sqrt(np.nanmean(np.abs(array.astype(np.complex128)) ** 2)) > LARGEST)


def _span(array: np.ndarray) -> str:
    known = array[np.isfinite(array)]
    return f"{known.min():g} to {known.max():g}" if known.size else "nothing finite"


def _offer(array: np.ndarray) -> str:
    known = array[np.isfinite(array)].astype(np.float64)
    low, high = float(known.min()), float(known.max())
    scale = next((s for s in SCALES if high <= (1 + EXCESS) * s), high)
    if low >= -EXCESS * scale:
        low, high = 0.0, scale
    return f"--range={low:g},{high:g}"


def _layout(path: pathlib.Path, array: np.ndarray) -> np.ndarray:
    """(H, W, C) of (H, W), (H, W, C), (C, H, W), or one of those behind a batch of one; C is 1 or 3."""
    given = array.shape
    if array.ndim == 4 and given[0] == 1:
        array = array[0]
    array = array[..., None] if array.ndim == 2 else array
    ends = [array.ndim == 3 and array.shape[i] in (1, 3) for i in (0, -1)]
    if all(ends) and len(given) > 2:
        raise InputError(f"{path} is {given}: channels may be first or last; give one that is not 1 or 3 pixels wide, "
                         "or (H, W)")  # fmt: skip
    if not any(ends) or 0 in given:
        raise InputError(f"{path} is no (H, W), (H, W, 1) or (H, W, 3) array, nor one with its channels first, but "
                         f"{given}")  # fmt: skip
    return array if ends[1] else np.moveaxis(array, 0, -1)


def _read(path: pathlib.Path) -> np.ndarray:
    """The one array of a file, as it is stored; of a TIFF all its pages, of a single page as it is to be seen."""
    if path.suffix.lower() not in TIFFS:
        return array_files.read_array(path, NAMES)
    try:
        with tifffile.TiffFile(path) as file:
            count = len(file.pages)
        stored = read_tiff(path) if count == 1 else None
        if stored is None or stored.alpha is not None:
            return tifffile.imread(path)
        return upright(stored.values, stored.orientation)
    except Exception as error:  # what a damaged file raises is up to zlib, struct and the reader
        raise unreadable(path, " ".join(str(error).split()) or type(error).__name__) from error
