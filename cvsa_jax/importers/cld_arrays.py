"""The layers of CLD-SGM's networks as a file lists them, and their arrays as parameters of ours."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cvsa_jax.importers.arrays import convolution
from cvsa_jax.importers.edm_arrays import parameter_shapes
from cvsa_jax.importers.source import take
from cvsa_jax.networks import NetworkSpec

_BLOCK = {"GroupNorm_0": "norm0", "Conv_0": "conv0", "Dense_0": "affine", "GroupNorm_1": "norm1", "Conv_1": "conv1",
          "Conv_2": "skip"}  # fmt: skip
_BY_RANK = {1: "norm", 2: "dense", 4: "convolution"}
_BY_SIDE = {1: "added", 3: "strided"}  # of a pyramid's convolution


class Layer(NamedTuple):
    """A layer of a file.

    number: its place in the list.
    kind: 'waves' (the embedding's frequencies), 'dense', 'convolution', 'norm', 'block', 'resampling' (a block with a
      convolution beside it although its width stays), 'attention', what adds to the pyramid of the input ('filtered',
      'strided', 'added'), or 'other'.
    shape: of the array that tells its width, outputs first.
    arrays: by their names in it.
    """

    number: int
    kind: str
    shape: tuple[int, ...]
    arrays: dict[str, np.ndarray]


def layers_of(state: Mapping[str, np.ndarray]) -> list[Layer]:
    """The layers in their order.

    Raises:
      ValueError: if an array is of no layer, or a number is missing.
    """
    found: dict[int, dict[str, np.ndarray]] = {}
    for key, array in state.items():
        place = re.fullmatch(r"(?:\w+\.)*all_modules\.(\d+)\.(.+)", key)
        if place is None:
            raise ValueError(f"{key} is no part of a layer of CLD-SGM's networks")
        found.setdefault(int(place[1]), {})[place[2]] = np.asarray(array)
    missing = sorted(set(range(len(found))) - found.keys())
    if missing:
        raise ValueError(f"layer {missing[0]} (all_modules.{missing[0]}) is missing")
    return [_layer(number, found[number]) for number in range(len(found))]


def _layer(number: int, arrays: dict[str, np.ndarray]) -> Layer:
    kind, told = "other", next(iter(arrays.values()))
    if arrays.keys() == {"W"}:
        kind = "waves"
    elif "NIN_0.W" in arrays:
        kind, told = "attention", arrays["NIN_0.W"]
    elif {"Conv_0.weight", "Dense_0.weight", "Conv_1.weight"} <= arrays.keys() and arrays["Conv_0.weight"].ndim == 4:
        told = arrays["Conv_0.weight"]
        kind = "resampling" if "Conv_2.weight" in arrays and told.shape[0] == told.shape[1] else "block"
    elif "Conv2d_0.weight" in arrays:
        kind, told = "filtered", arrays["Conv2d_0.weight"]
    elif "Conv_0.weight" in arrays:
        told = arrays["Conv_0.weight"]
        kind = _BY_SIDE.get(told.shape[-1] if told.ndim else 0, "other")
    elif "weight" in arrays:
        told = arrays["weight"]
        kind = _BY_RANK.get(told.ndim, "other")
    return Layer(number, kind, told.shape, arrays)


def parameters(spec: NetworkSpec, layers: Sequence[Layer], places: Sequence[tuple[str, ...]]) -> dict:
    """{"params": ...} of a network.

    Args:
      layers: of the file. places: our name of each.

    Raises:
      ValueError: names the arrays that are missing, unknown or of another shape.
    """
    state, entries = {}, []
    for layer, place in zip(layers, places, strict=True):
        arrays = _fused(layer.arrays)
        for name, path in _paths(layer.kind).items():
            if name in arrays or (not name.startswith("Conv_2") and layer.kind in ("block", "resampling")):
                entries.append((f"all_modules.{layer.number}.{name}", (*place, *path), _turned))
        state |= {f"all_modules.{layer.number}.{name}": array for name, array in arrays.items()}
    return {"params": take(state, entries, parameter_shapes(spec, 2 * spec.image_channels))}


def _paths(kind: str) -> dict[str, tuple[str, ...]]:
    """Our path below a layer for each array that the file may have in it."""
    leaves = lambda norm: {"weight": "scale" if norm else "kernel", "bias": "bias"}  # noqa: E731
    if kind == "waves":
        return {"W": ()}
    if kind in ("block", "resampling"):
        return {f"{theirs}.{leaf}": (ours, own) for theirs, ours in _BLOCK.items()
                for leaf, own in leaves(ours.startswith("norm")).items()}  # fmt: skip
    if kind == "attention":
        layers = {f"{nin}.{leaf}": (ours, own) for nin, ours in (("qkv", "qkv"), ("NIN_3", "out"))
                  for leaf, own in (("W", "kernel"), ("b", "bias"))}  # fmt: skip
        return {"GroupNorm_0.weight": ("norm", "scale"), "GroupNorm_0.bias": ("norm", "bias"), **layers}
    prefix = {"filtered": "Conv2d_0.", "strided": "Conv_0.", "added": "Conv_0."}.get(kind, "")
    return {f"{prefix}{theirs}": (own,) for theirs, own in leaves(kind == "norm").items()}


def _fused(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays, with the layers of q, k and v as one."""
    arrays = dict(arrays)
    for leaf in ("W", "b"):
        names = [f"NIN_{i}.{leaf}" for i in range(3)]
        if arrays.keys() >= {*names} and len({arrays[name].shape for name in names}) == 1:
            # Those of attention are (inputs, outputs), turned here so that all dense layers are alike.
            arrays[f"qkv.{leaf}"] = np.concatenate([arrays.pop(name).T for name in names])
    if arrays.get("NIN_3.W", np.zeros(0)).ndim == 2:
        arrays["NIN_3.W"] = arrays["NIN_3.W"].T
    return arrays


def _turned(array: np.ndarray) -> np.ndarray:
    return convolution(array) if array.ndim == 4 else np.asarray(array, np.float32).T
