"""Numbers in files: NumPy's arrays and archives, MATLAB's variables."""

import pathlib
from typing import Any

import numpy as np
import scipy.io
import scipy.sparse

from cvsa_jax.npy import load_npy, unreadable
from cvsa_jax.types import InputError

ARCHIVES = (".npz", ".mat")
SUFFIXES = (".npy", *ARCHIVES)
BESIDE = (".npy", ".mat")  # of a folder for many images: a job's .npz is an operator, beside its picture


def is_array(path: str | pathlib.Path) -> bool:
    """Whether a path names an array: `a.npy`, `a.npz`, `a.mat`, or one variable of a file, `a.mat:NAME`."""
    return split_name(path)[0].suffix.lower() in SUFFIXES


def split_name(path: str | pathlib.Path) -> tuple[pathlib.Path, str]:
    """(file, variable) of `FILE.mat:NAME`; the variable is empty where none is named."""
    file, colon, name = str(path).rpartition(":")
    if colon and file.lower().endswith(ARCHIVES):
        return pathlib.Path(file), name
    return pathlib.Path(path), ""


def read_array(path: str | pathlib.Path, called: tuple[str, ...], hint: str = "") -> np.ndarray:
    """The numbers or truths of a .npy file, or of one array of a .npz or .mat file, as they are.

    Args:
      path: of the file; `FILE.mat:NAME` names one of its arrays.
      called: names of which the first that the file has is taken; without one it is the only array of more than one
        number, as MATLAB's scalars are 1 x 1 matrices. hint: another way to say which, for people.

    Raises:
      InputError: if it cannot be read, or there is no saying which array is meant.
    """
    file, name = split_name(path)
    if not file.is_file():
        raise InputError(f"no such file: {file}")
    if file.suffix.lower() not in ARCHIVES:
        found = load_npy(file)
        array = _dense(found)
        if array is None:
            raise unreadable(file, f"it holds {found.dtype}")
        return array
    arrays = {k: v for k, v in _archive(file).items() if v is not None}
    if name:
        if name not in arrays:
            raise InputError(f"{file} has no array {name}, but {', '.join(arrays) or 'none at all'}")
        return arrays[name]
    chosen = [n for n in called if n in arrays][:1] or [n for n, v in arrays.items() if v.size > 1]
    if len(chosen) != 1:
        listed = ", ".join(f"{k} ({'x'.join(map(str, v.shape))})" for k, v in arrays.items())
        way = f"one is needed, or one called {' or '.join(called)}{hint}"
        raise InputError(f"{file} holds {len(arrays)} arrays ({listed or 'none'}): {way}")
    return arrays[chosen[0]]


def _archive(file: pathlib.Path) -> dict[str, np.ndarray | None]:
    """All that a .npz or .mat file holds; None in place of text, cells and structures."""
    try:
        if file.suffix.lower() == ".mat":
            found = scipy.io.loadmat(file)
            return {name: _dense(value) for name, value in found.items() if not name.startswith("__")}
        with np.load(file, allow_pickle=False) as archive:
            return {name: _dense(archive[name]) for name in archive.files}
    except NotImplementedError as error:
        raise InputError(f"cannot read {file}: MATLAB's format 7.3; save it with '-v7', or as .npy") from error
    except Exception as error:  # what a damaged file raises is up to zlib, struct and the reader
        raise unreadable(file, " ".join(str(error).split()) or type(error).__name__) from error


def _dense(value: Any) -> np.ndarray | None:
    """A variable as an array of numbers or truths; None of text, cells and structures."""
    array = value.toarray() if scipy.sparse.issparse(value) else np.asarray(value)
    return array if array.dtype == bool or np.issubdtype(array.dtype, np.number) else None


def read_matrix(path: str, what: str) -> np.ndarray:
    """The matrix of real numbers in a file, float64; axes of length one and equal colours are no matter.

    Args:
      path: as of `read_array`. what: the file states, for people; also a name of its array.

    Raises:
      InputError: if it cannot be read, is no matrix, or its numbers are complex, NaN or infinite.
    """
    array = read_array(path, (what,), "; or give FILE:NAME")
    if np.iscomplexobj(array):
        raise InputError(f"{path} holds complex numbers, but real ones are needed")
    return matrix_of(finite(array, path).astype(np.float64), f"the {what} {path}")


def finite(array: np.ndarray, path: str) -> np.ndarray:
    """The numbers of a file; raises InputError if there are none, or NaN or infinite ones among them."""
    if array.size == 0 or not np.isfinite(array).all():
        raise InputError(f"{path} holds {'NaN or infinite numbers' if array.size else 'no numbers'}")
    return array


def matrix_of(array: np.ndarray, name: str) -> np.ndarray:
    """(h, w) of it or of (h, w, 1), (1, h, w), three equal colours first or last, or a batch of one of these.

    Raises:
      InputError: with the name, if it is none of these.
    """
    given = array.shape
    array = array[0] if array.ndim == 4 and given[0] == 1 else array
    if array.ndim == 3 and 1 in (array.shape[0], array.shape[-1]):
        array = array[..., 0] if array.shape[-1] == 1 else array[0]
    elif array.ndim == 3 and 3 in (array.shape[0], array.shape[-1]):
        ends = [np.moveaxis(array, end, 0) for end in (-1, 0) if array.shape[end] == 3]
        alike = [a[0] for a in ends if np.ptp(a, axis=0).max() <= 1e-6 * np.abs(a).max()]
        if not alike:
            raise InputError(f"{name} differs between its colours; one is needed for them all")
        array = alike[0]
    if array.ndim != 2:
        raise InputError(f"{name} is no matrix, but of shape {given}")
    return array
