"""Files of weights: those of PyTorch's networks, and ours."""

import pathlib
from collections.abc import Mapping
from typing import Any, cast

import jax
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict

from cvsa_jax.importers.files import flat_state, one_line_for, read_file

# What PyTorch calls the arrays of a layer.
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}


def read_state(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a state dictionary in one of PyTorch's files (.pth, .pt), by name. PyTorch is not needed.

    Raises:
      ValueError: if the file cannot be read.
    """
    path = pathlib.Path(path)
    tree = read_file(path)
    with one_line_for(path):
        return flat_state(tree)


def read_tree(path: str | pathlib.Path) -> dict:
    """Parameters that `save_tree` wrote.

    Raises:
      ValueError: if the file cannot be read.
    """
    with one_line_for(path), np.load(path, allow_pickle=False) as archive:
        return unflatten_dict({name: archive[name] for name in archive.files}, sep="/")


def save_tree(path: str | pathlib.Path, params: dict) -> None:
    """Write parameters, a tree of arrays, as .npz."""
    arrays: dict[str, Any] = {name: np.asarray(a) for name, a in flatten_dict(params, sep="/").items()}
    np.savez_compressed(path, **arrays)


def save_safetensors(path: str | pathlib.Path, state: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write arrays by name, and text beside them, as .safetensors.

    Raises:
      OSError: if it cannot be written.
    """
    # The library writes an array's memory as it lies.
    arrays = {name: np.ascontiguousarray(a) for name, a in state.items()}
    try:
        safetensors.numpy.save_file(arrays, path, metadata)
    except safetensors.SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error


def check_tree(params: dict, expected: dict, what: str) -> dict:
    """The same parameters, if names and shapes are the expected ones.

    Raises:
      ValueError: names the first that is not.
    """
    flat = (cast(dict[str, Any], flatten_dict(tree, sep="/")) for tree in (params, expected))
    have, want = ({k: np.shape(a) for k, a in arrays.items()} for arrays in flat)
    for name in sorted(have.keys() | want.keys()):
        if have.get(name) != want.get(name):
            raise ValueError(f"these are not the weights of {what}: {name} is {have.get(name)}, not {want.get(name)}")
    return params


def convolution(weight: np.ndarray) -> np.ndarray:
    """A convolution's weights from PyTorch's (O, I, h, w) to (h, w, I, O)."""
    return np.ascontiguousarray(np.asarray(weight).transpose(2, 3, 1, 0), np.float32)


def shapes_of(model, *inputs: tuple[int, ...]) -> dict:
    """The parameters of a Flax model for float32 inputs of these shapes, as shapes."""
    arguments = [jax.ShapeDtypeStruct(shape, np.float32) for shape in inputs]
    return jax.eval_shape(lambda *a: model.init(jax.random.key(0), *a), *arguments)["params"]
