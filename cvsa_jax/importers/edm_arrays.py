"""The arrays of EDM's networks as parameters of ours: what each is called, and how it is turned."""

import functools
import re
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from flax.traverse_util import flatten_dict

from cvsa_jax.importers.arrays import LEAVES, convolution, shapes_of
from cvsa_jax.importers.source import take
from cvsa_jax.models.dhariwal_unet import heads_of
from cvsa_jax.networks import NetworkSpec

# What the file calls the parts of our blocks, and other layers.
_PARTS = {"norm": "norm2", "qkv": "qkv", "out": "proj"}
_OTHER: dict[tuple[str, ...], str] = {
    ("embedding", "layer0"): "map_layer0", ("embedding", "layer1"): "map_layer1", ("embedding", "class"): "map_label",
}  # fmt: skip


def _key_of(path: tuple[str, ...], side: int, encoder: str) -> str:
    """What the file calls a parameter of ours."""
    if path == ("levels_of_noise",):
        return "u"
    if path == ("embedding", "frequency"):
        return "model.map_noise.freqs"
    *layer, leaf = path
    if tuple(layer) in _OTHER:
        name = _OTHER[tuple(layer)]
    else:
        part, *below = layer
        below = [_PARTS[below[1]]] if below[:1] == ["attention"] else below
        name = ".".join([_place(part, side, encoder), *below])
    return f"model.{name}.{LEAVES[leaf]}"


def _place(part: str, side: int, encoder: str) -> str:
    """The name of a block: in the file it has the sides of its images in place of the number of its level."""
    found = re.fullmatch(r"(enc|dec|out)(\d+)_(\w+)", part)
    if found is None:
        return part
    stack, level, name = found[1], int(found[2]), found[3]
    names = {"first": "conv", "pyramid": "aux_skip" if encoder == "skip" else "aux_residual"}
    stack, name = ("dec", f"aux_{name}") if stack == "out" else (stack, names.get(name, name))
    return f"{stack}.{side >> level}x{side >> level}_{name}"


def parameter_shapes(spec: NetworkSpec, channels: int) -> dict:
    """The parameters of a network that is shown so many channels, as shapes.

    Raises:
      ValueError: if there can be no such network, as with a width that its layers cannot have.
    """
    try:
        return shapes_of(spec.build("float32"), (1, spec.stride, spec.stride, channels), (1,))
    except (ValueError, TypeError, ArithmeticError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"there is no {spec.model} with {spec.options}: {reason}") from error


def parameters(spec: NetworkSpec, state: Mapping[str, np.ndarray]) -> dict:
    """{"params": ...} of a network from the arrays of a file, by name.

    The filters that resample are in the description, and map_augment belongs to the training.

    Raises:
      ValueError: names the arrays that are missing, unknown or of another shape.
    """
    side, encoder = spec.image_size, spec.options.get("encoder", "standard")
    expected = parameter_shapes(spec, spec.image_channels)
    entries = []
    for path, shape in cast(dict[tuple, Any], flatten_dict(expected)).items():
        heads = 0 if "qkv" not in path else heads_of(shape.shape[-1] // 3) if spec.model == "dhariwal_unet" else 1
        entries.append((_key_of(path, side, encoder), path, functools.partial(_turned, len(shape.shape), heads)))
    return {"params": take(state, entries, expected, ("*resample_filter", "model.map_augment.weight"))}


def _turned(rank: int, heads: int, array: np.ndarray) -> np.ndarray:
    """An array of the file as our parameter of this rank; the rows of q, k, v are [head][feature][q, k, v] there."""
    array = np.asarray(array, np.float32)
    if heads and array.shape[0] % (3 * heads) == 0:
        array = array.reshape(heads, -1, 3, *array.shape[1:])
        array = np.moveaxis(array, 2, 0).reshape(-1, *array.shape[3:])
    if rank == 4 and array.ndim == 4:
        return convolution(array)
    if rank == 2 and array.ndim >= 2:
        return np.ascontiguousarray(array.reshape(array.shape[0], -1).T)
    return array
