"""Numbers in files: NumPy's arrays and MATLAB's variables."""

import pathlib
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse

from cvsa_jax.npy import load_npy, unreadable
from cvsa_jax.types import InputError

SUFFIXES = (".npy", ".mat")


def is_array(path: str) -> bool:
    """Whether a path names an array: `a.npy`, `a.mat`, or one variable of a file, `a.mat:NAME`."""
    return split_name(path)[0].suffix.lower() in SUFFIXES


def split_name(path: str) -> tuple[pathlib.Path, str]:
    """(file, variable) of `FILE.mat:NAME`; the variable is empty where none is named."""
    file, colon, name = path.rpartition(":")
    if colon and file.lower().endswith(".mat"):
        return pathlib.Path(file), name
    return pathlib.Path(path), ""


def read_numbers(path: str) -> np.ndarray:
    """The real numbers of a .npy file, or of the one matrix in a .mat file, as they are.

    Args:
      path: of the file; `FILE.mat:NAME` names a variable of a file that has several.

    Raises:
      InputError: if it cannot be read, or its numbers are complex, NaN or infinite.
    """
    file, name = split_name(path)
    array = _matlab(file, name) if file.suffix.lower() == ".mat" else _numpy(file)
    if np.iscomplexobj(array):
        raise InputError(f"{path} holds complex numbers, but real ones are needed")
    if array.size == 0 or not np.isfinite(array).all():
        raise InputError(f"{path} holds {'NaN or infinite numbers' if array.size else 'no numbers'}")
    return array


def _numpy(file: pathlib.Path) -> np.ndarray:
    found = load_npy(file)
    array = _dense(found)
    if array is None:
        raise unreadable(file, f"it holds {found.dtype}")
    return array


def _matlab(file: pathlib.Path, name: str) -> np.ndarray:
    """A variable of a .mat file: the one that is named, or the only matrix. MATLAB's scalars are 1 x 1 matrices."""
    if not file.is_file():
        raise InputError(f"no such file: {file}")
    try:
        found = scipy.io.loadmat(file)
    except NotImplementedError as error:
        raise InputError(f"{file} is a MATLAB 7.3 file (HDF5), which is not read: save it with -v7") from error
    except Exception as error:  # of a damaged file the reader raises whatever it meets
        raise InputError(f"cannot read {file} as a MATLAB file: {_line(error)}") from error
    numbers = {k: _dense(v) for k, v in found.items() if not k.startswith("__")}
    numbers = {k: v for k, v in numbers.items() if v is not None}
    if name:
        if name not in numbers:
            raise InputError(f"{file} has no matrix {name}, but {', '.join(numbers) or 'none at all'}")
        return numbers[name]
    matrices = {k: v for k, v in numbers.items() if v.size > 1}
    if len(matrices) != 1:
        listed = ", ".join(f"{k} ({'x'.join(map(str, v.shape))})" for k, v in matrices.items())
        raise InputError(f"{file} holds {listed or 'no matrix'}" + (f": give {file}:NAME" if listed else ""))
    return next(iter(matrices.values()))


def _dense(value: Any) -> np.ndarray | None:
    """A variable as an array of numbers; None of text, cells and structures."""
    array = value.toarray() if scipy.sparse.issparse(value) else np.asarray(value)
    if array.dtype == bool:
        return array.astype(np.uint8)
    return array if np.issubdtype(array.dtype, np.number) else None


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
