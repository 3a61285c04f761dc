"""Measurements that are arrays."""

import pathlib

import numpy as np

from cvsa_jax import images
from cvsa_jax.types import InputError


def read_measurement(path: pathlib.Path, channels: int) -> np.ndarray:
    """A measurement of any range, (H, W, C) or (H, W), complex where the operator's are.

    Args:
      path: of the file. channels: of the prior; under one of grey images colours are averaged.

    Raises:
      InputError: if it cannot be read, is of whole numbers or of no image's shape.
    """
    array = images.read_array(path)
    if not np.issubdtype(array.dtype, np.inexact):
        raise InputError(f"{path} is {array.dtype}, but numbers in [-1, 1] are needed: y / 127.5 - 1 of 8 bits")
    array = array.astype(np.complex64 if np.iscomplexobj(array) else np.float32)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[-1] not in (1, 3):
        raise InputError(f"{path} is no (H, W), (H, W, 1) or (H, W, 3) array, but {array.shape}")
    return array.mean(-1, keepdims=True) if channels == 1 else array
