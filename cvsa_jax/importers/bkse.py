"""Weights of the published blur encoder (PyTorch) as parameters of `models.blur_encoder`.

Parameters are matched by order within each part, and every shape is checked, so that a file of
another network is refused instead of loaded in part.
"""

import pathlib
from collections.abc import Mapping

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cvsa_jax.models.blur_encoder import CODE_FEATURES, BlurEncoder


def expected_shapes(model: BlurEncoder) -> dict:
    """The parameters of a model, as shapes."""
    side = 4 * 2 ** len(model.widths)
    image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    code = jax.ShapeDtypeStruct((1, 1, 1, CODE_FEATURES), np.float32)
    return jax.eval_shape(lambda a, b: model.init(jax.random.key(0), a, b), image, code)["params"]


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
    expected, params = flatten_dict(expected_shapes(model)), {}
    for prefix, paths in _order(model).items():
        arrays = _part(state, prefix)
        if len(arrays) != 2 * len(paths):
            raise ValueError(f"{prefix}: {len(arrays)} arrays in the file, {2 * len(paths)} expected")
        for path, weight, bias in zip(paths, arrays[::2], arrays[1::2], strict=True):
            if weight.ndim != 4:
                raise ValueError(f"{prefix}: an array of shape {weight.shape} where a convolution's was expected")
            turned = path[-1].startswith("up") and path[0] == "adapter"
            kernel = weight[:, :, ::-1, ::-1].transpose(2, 3, 0, 1) if turned else weight.transpose(2, 3, 1, 0)
            wanted = [expected[*path, leaf].shape for leaf in ("kernel", "bias")]
            if [kernel.shape, bias.shape] != wanted:
                raise ValueError(f"{prefix}: {'.'.join(path)} is {kernel.shape} in the file, {wanted[0]} expected")
            params[*path, "kernel"] = np.ascontiguousarray(kernel, np.float32)
            params[*path, "bias"] = bias.astype(np.float32)
    return unflatten_dict(params)


def load(path: str | pathlib.Path) -> dict:
    """Parameters from a PyTorch file (.pth, needs PyTorch) or from one that `save` wrote (.npz).

    Raises:
      ValueError: if it cannot be read, or is of another network.
    """
    path = pathlib.Path(path)
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return _checked({name: archive[name] for name in archive.files})
        import torch

        state = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError as error:
        raise ValueError(f"{path} is a PyTorch file: install torch once, and save it as .npz") from error
    except Exception as error:  # unpickling fails in many ways
        raise ValueError(f"cannot read {path}: {str(error).splitlines()[0] if str(error) else error!r}") from error
    return convert({name: tensor.numpy() for name, tensor in state.items()})


def _checked(flat: Mapping[str, np.ndarray]) -> dict:
    """Names with slashes as a tree, if it is the published network's."""
    expected = flatten_dict(expected_shapes(BlurEncoder()), sep="/")
    if {k: a.shape for k, a in flat.items()} != {k: a.shape for k, a in expected.items()}:
        raise ValueError("the file holds another network's parameters")
    return unflatten_dict(dict(flat), sep="/")


def save(path: str | pathlib.Path, params: dict) -> None:
    """Write parameters so that `load` needs no PyTorch."""
    np.savez_compressed(path, **{name: np.asarray(a) for name, a in flatten_dict(params, sep="/").items()})
