"""Measurements that are arrays: their files, their layout and their range."""

import dataclasses
import pathlib
from typing import Any

import numpy as np
import scipy.io
import tifffile

from cvsa_jax import images
from cvsa_jax.npy import unreadable
from cvsa_jax.operators import Task
from cvsa_jax.operators.light import as_power
from cvsa_jax.settings import Settings, setting
from cvsa_jax.types import InputError

ARRAYS = (".npy", ".npz", ".mat")
TIFFS = (".tif", ".tiff")
NAMES = ("y", "measurement")
# Images in [-1, 1] have at most 1; noise of a deviation of 1.1 is left room for.
LARGEST = 1.5
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
        return suffix in ARRAYS
    try:
        with tifffile.TiffFile(path) as file:
            dtype = file.pages.first.dtype
            return dtype is not None and dtype.kind in "fc"
    except (OSError, ValueError, IndexError, tifffile.TiffFileError):
        return False  # the reader of pictures says what is wrong


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
        array = (2 * (array - low) / (high - low) - 1).astype(array.dtype)
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

    They are not if their root mean square is above LARGEST, or if none is negative: no pixel of a picture is then
    darker than half its range.
    """
    known = array[np.isfinite(array)].astype(np.float64)
    if not known.size:
        return  # the reader reports it
    if np.sqrt(np.mean(known**2)) > LARGEST or (known.min() >= 0 and known.max() > 0):
        also = ", or --range=-1,1 if they are in [-1, 1] already" if np.abs(known).max() <= LARGEST else ""
        raise InputError(f"{path} has values {_span(known)}, but [-1, 1] is needed: give {_offer(known)}{also}")


def _span(array: np.ndarray) -> str:
    known = array[np.isfinite(array)]
    return f"{known.min():g} to {known.max():g}" if known.size else "nothing finite"


def _offer(array: np.ndarray) -> str:
    known = array[np.isfinite(array)].astype(np.float64)
    low, high = float(known.min()), float(known.max())
    if low >= 0:
        low, high = 0.0, next((s for s in SCALES if high <= 1.01 * s), high)
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
    """The one array of a file, as it is stored."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                array = archive[_choose(path, archive.files)]
        elif suffix == ".mat":
            names = [name for name, _, kind in scipy.io.whosmat(path) if kind not in ("char", "cell", "struct")]
            name = _choose(path, names)
            array = scipy.io.loadmat(path, variable_names=[name])[name]
        elif suffix in TIFFS:
            array = tifffile.imread(path)
        else:
            return images.read_array(path)
        if not np.issubdtype(array.dtype, np.number) and array.dtype != bool:
            raise ValueError(f"it holds {array.dtype}")
        return array
    except InputError:
        raise
    except NotImplementedError as error:
        raise InputError(f"cannot read {path}: MATLAB's format 7.3; save it with '-v7', or as .npy") from error
    except Exception as error:  # what a damaged file raises is up to zlib, struct and the reader
        reason = " ".join(str(error).split()) or type(error).__name__
        raise unreadable(path, reason) from error


def _choose(path: pathlib.Path, names: list[str]) -> str:
    found = [name for name in NAMES if name in names] or names
    if len(found) != 1:
        listed = ", ".join(names) or "none"
        raise InputError(f"{path} holds {len(names)} arrays ({listed}): one is needed, or one called y or measurement")
    return found[0]
