"""Weights of the published blur encoder (PyTorch) as parameters of `models.blur_encoder`.

Parameters are matched by order within each part, and every shape is checked, so that a file of
another network is refused instead of loaded in part.
"""

import pathlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cvsa_jax.importers.arrays import check_tree, convolution, read_state, read_tree, shapes_of
from cvsa_jax.models.blur_encoder import CODE_FEATURES, BlurEncoder


def expected_shapes(model: BlurEncoder) -> dict:
    """The parameters of a model, as shapes."""
    side = 4 * 2 ** len(model.widths)
    return shapes_of(model, (1, side, side, 3), (1, 1, 1, CODE_FEATURES))


def _part(state: Mapping[str, np.ndarray], prefix: str) -> list[np.ndarray]:
    """The arrays below a prefix, in the file's order."""
    return [np.asarray(a) for name, a in state.items() if name.split(".")[0] == prefix]


def _order(model: BlurEncoder) -> dict[str, list[tuple]]:
    """For each part of the file, the paths of its convolutions in our tree, in the file's order."""
    residual = lambda name: [(name, "first"), (name, "second")]  # noqa: E731
    levels = range(len(model.widths))
    features = [(f"feature{i}",) for i in range(3)]
    return {
        "feature_extractor": features + [p for i in range(model.front_blocks) for p in residual(f"front{i}")],
        # The U-Net is nested: down, then what is below, then up.
        "adapter": [("adapter", f"down{i}") for i in levels] + [("adapter", f"up{i}") for i in reversed(levels)],
        "recon_trunk": [p for i in range(model.back_blocks) for p in residual(f"back{i}")],
        "upconv1": [("upscale0",)],
        "upconv2": [("upscale1",)],
        "HRconv": [("high",)],
        "conv_last": [("last",)],
    }


def convert(state: Mapping[str, np.ndarray], model: BlurEncoder | None = None) -> dict:
    """A PyTorch state dictionary as Flax parameters.

    Convolutions change from (O, I, h, w) to (h, w, I, O). Transposed ones, (I, O, h, w) there, are
    turned too: Flax's correlates where PyTorch's convolves.

    Raises:
      ValueError: names the first parameter that is missing or of another shape.
    """
    model = model or BlurEncoder()
    expected, params = cast(dict[tuple, Any], flatten_dict(expected_shapes(model))), {}
    for prefix, paths in _order(model).items():
        arrays = _part(state, prefix)
        if len(arrays) != 2 * len(paths):
            raise ValueError(f"{prefix}: {len(arrays)} arrays in the file, {2 * len(paths)} expected")
        for path, weight, bias in zip(paths, arrays[::2], arrays[1::2], strict=True):
            if weight.ndim != 4:
                raise ValueError(f"{prefix}: an array of shape {weight.shape} where a convolution's was expected")
            turned = path[-1].startswith("up") and path[0] == "adapter"
            kernel = weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1) if turned else convolution(weight)
            wanted = [expected[*path, leaf].shape for leaf in ("kernel", "bias")]
            if [kernel.shape, bias.shape] != wanted:
                raise ValueError(f"{prefix}: {'.'.join(path)} is {kernel.shape} in the file, {wanted[0]} expected")
            params[*path, "kernel"] = np.ascontiguousarray(kernel, np.float32)
            params[*path, "bias"] = bias.astype(np.float32)
    return unflatten_dict(params)


def load(path: str | pathlib.Path) -> dict:
    """Parameters from a PyTorch file (.pth) or from one of `arrays.save_tree` (.npz).

    Raises:
      ValueError: if it cannot be read, or is of another network.
    """
    if pathlib.Path(path).suffix != ".npz":
        return convert(read_state(path))
    return check_tree(read_tree(path), expected_shapes(BlurEncoder()), "the blur encoder")
