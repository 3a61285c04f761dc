"""Blur kernels from files: arrays, MATLAB's variables, pictures."""

import dataclasses
import pathlib

import numpy as np

from cvsa_jax.operators import array_files
from cvsa_jax.operators.paired_files import PairedFiles
from cvsa_jax.operators.picture_files import read_levels
from cvsa_jax.types import InputError

SUM_TOLERANCE = 0.01
TEXT = (".txt", ".csv", ".tsv")


@dataclasses.dataclass(frozen=True, eq=False)
class KernelFile:
    """A kernel as a file states it; NumPy takes it for its values.

    Args:
      path: of the file.
      values: (h, w), both odd, finite, of positive sum. The middle is the kernel's centre.
      remark: what was done to it, a line for people; empty if nothing was.
    """

    path: str
    values: np.ndarray
    remark: str = ""

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.values, dtype)


def read_kernel(path: str) -> KernelFile | PairedFiles:
    """The kernel of a file, or those of a folder, a file for each image.

    Raises:
      InputError: if it cannot be read or is no kernel.
    """
    if pathlib.Path(path).is_dir():
        return PairedFiles(path, "kernel", read_one, array_files.BESIDE + TEXT)
    return read_one(path)


def read_one(path: str) -> KernelFile:
    """The kernel of a file: an array (`array_files.read_matrix`), rows of numbers, or a picture whose black is zero.

    An even side gets a row or a column of zeros behind, so that its centre stays the entry n // 2, counted from zero,
    where SciPy, OpenCV and MATLAB's psf2otf have it. Then the rows of zeros that frame it are cut off.

    Raises:
      InputError: if it cannot be read, or is no matrix of positive sum.
    """
    array, text = array_files.is_array(path), pathlib.Path(path).suffix.lower() in TEXT
    matrix = array_files.read_matrix(path, "kernel") if array else _text(path) if text else _picture(path)
    total, remarks = matrix.sum(), []
    if not matrix.any():
        raise InputError(f"the kernel {path} is zero everywhere")
    if not total > 0:
        raise InputError(f"the kernel {path} sums to {total:.3g}, but a blur's weights have a positive sum")
    if (array or text) and abs(total - 1) > SUM_TOLERANCE:  # a picture's levels have no sum that means anything
        remarks.append(f"sums to {total:.4g} and is scaled to 1")
    sides = matrix.shape
    matrix = np.pad(matrix, [(0, 1 - n % 2) for n in sides])
    if matrix.shape != sides:
        remarks.append(f"has {sides[0]}x{sides[1]} entries; its centre is row {sides[0] // 2}, column {sides[1] // 2}")
    return KernelFile(path, _framed(matrix), f"the kernel {path} {', and '.join(remarks)}" if remarks else "")


def _framed(matrix: np.ndarray) -> np.ndarray:
    """A kernel (h, w), both odd, without the zeros that frame it: many come in an array of the image's size."""
    cuts = [min(where.min(), n - 1 - where.max()) for where, n in zip(np.nonzero(matrix), matrix.shape, strict=True)]
    return matrix[tuple(slice(cut, n - cut) for cut, n in zip(cuts, matrix.shape, strict=True))]


def _text(path: str) -> np.ndarray:
    """Rows of numbers, between which are blanks, commas or semicolons; what follows a # is left out.

    Where semicolons or tabs lie between them, a comma is a decimal point, as in many countries' spreadsheets.
    """
    try:
        lines = [line.split("#")[0] for line in pathlib.Path(path).read_text("utf-8-sig").splitlines()]
        comma = "." if any(";" in line or "\t" in line for line in lines) else " "
        rows = [line.replace(",", comma).replace(";", " ").split() for line in lines]
        matrix = np.array([[float(number) for number in row] for row in rows if row])
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # text that is none, words, or rows of several lengths
        raise InputError(f"the kernel {path} must be rows of equally many numbers") from error
    return array_files.finite(matrix, path)


def _picture(path: str) -> np.ndarray:
    """The levels of a picture."""
    levels = read_levels(path)
    if levels.colour is not None:
        raise InputError(f"the kernel {path} differs between its colours; one kernel blurs them all alike")
    if levels.alpha is not None:
        raise InputError(f"the kernel {path} is transparent in places; give its weights as grey levels on black")
    grey = levels.grey
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if border.min() > 0.75 * grey.max() and grey.min() < 0.5 * border.min():
        raise InputError(f"the kernel {path} is dark on a bright ground; weights are bright on black: invert it")
    return grey


def scaled_kernel(kernel: np.ndarray, factor: float) -> np.ndarray:
    """The kernel of an image that was resized by `factor`: each entry is a square that shrinks or grows about the
    centre, and is shared among the new entries by area. The sum stays the same.

    Args:
      kernel: (h, w), both odd. factor: the new side of the image over the old one.
    """
    rows, columns = (_shares(n, factor) for n in kernel.shape)
    return rows @ kernel @ columns.T


def _shares(count: int, factor: float) -> np.ndarray:
    """(new, count): which share of each old entry's length falls into each new entry."""
    edges = (np.arange(count + 1) - count / 2) * factor
    half = int(np.ceil(edges[-1] - 0.5 - 1e-9)) if edges[-1] > 0.5 else 0
    new = np.arange(-half, half + 1)
    low = np.maximum(edges[None, :-1], new[:, None] - 0.5)
    high = np.minimum(edges[None, 1:], new[:, None] + 0.5)
    return np.maximum(high - low, 0) / factor
