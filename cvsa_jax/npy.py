"""NumPy's .npy files."""

import pathlib

import numpy as np

from cvsa_jax.types import InputError


def load_npy(path: str | pathlib.Path) -> np.ndarray:
    """A .npy file as it is; objects, which would have to be run, are not read.

    Raises:
      InputError: if it cannot be read as an array.
    """
    try:
        return np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise unreadable(path, error) from error


def unreadable(path: str | pathlib.Path, why: object) -> InputError:
    """The error of a file that holds no array of use."""
    return InputError(f"cannot read {path} as an array: {why}")
