"""Published weights of the networks behind FID and LPIPS as parameters of `models`."""

import pathlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cvsa_jax.importers.arrays import check_tree, convolution, read_state, read_tree, shapes_of
from cvsa_jax.models.inception import Inception
from cvsa_jax.models.perceptual import Perceptual

_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "variance"}


def inception_shapes() -> dict:
    """The parameters of `Inception`, as shapes."""
    return shapes_of(Inception(), (1, 299, 299, 3))


def convert_inception(state: Mapping[str, np.ndarray]) -> dict:
    """A PyTorch state dictionary (pt_inception-2015-12-05-6726825d.pth) as parameters of `Inception`.

    Raises:
      ValueError: names the first parameter that is missing or of another shape.
    """
    params = {}
    for name in flatten_dict(inception_shapes(), sep="/"):
        *path, part, leaf = name.split("/")
        theirs = "weight" if part == "conv" else {v: k for k, v in _NORM.items()}[leaf]
        source = ".".join([*path, part, theirs])
        if source not in state:
            raise ValueError(f"these are not the weights of Inception v3: {source} is missing")
        params[name] = convolution(state[source]) if part == "conv" else np.asarray(state[source], np.float32)
    return check_tree(unflatten_dict(params, sep="/"), inception_shapes(), "Inception v3")


def perceptual_shapes(backbone: str) -> dict:
    """The parameters of `Perceptual`, as shapes."""
    return shapes_of(Perceptual(backbone), (1, 64, 64, 3), (1, 64, 64, 3))


def convert_perceptual(classifier: Mapping[str, np.ndarray], linear: Mapping[str, np.ndarray], backbone: str) -> dict:
    """The classifier's state dictionary (torchvision's AlexNet or VGG-16) and that of LPIPS' weights, version 0.1.

    Raises:
      ValueError: names the first parameter that is missing or of another shape.
    """
    params = {}
    for name, shape in cast(dict[str, Any], flatten_dict(perceptual_shapes(backbone), sep="/")).items():
        if name.startswith("lin"):
            source, state = f"{name}.model.1.weight", linear
        else:
            layer, leaf = name.split("/")
            source = f"features.{layer.removeprefix('conv')}.{'weight' if leaf == 'kernel' else 'bias'}"
            state = classifier
        if source not in state:
            raise ValueError(f"these are not the weights of LPIPS ({backbone}): {source} is missing")
        array = np.asarray(state[source], np.float32)
        params[name] = convolution(array) if name.endswith("kernel") else array.reshape(shape.shape)
    return check_tree(unflatten_dict(params, sep="/"), perceptual_shapes(backbone), f"LPIPS ({backbone})")


def load_inception(path: str | pathlib.Path) -> dict:
    """Parameters from the published PyTorch file, or an .npz of `cvsa import`.

    Raises:
      ValueError: if it cannot be read, or is of another network.
    """
    if pathlib.Path(path).suffix != ".npz":
        return convert_inception(read_state(path))
    return check_tree(read_tree(path), inception_shapes(), "Inception v3")


def load_perceptual(paths: str) -> tuple[str, dict]:
    """(backbone, parameters) from 'CLASSIFIER.pth,LINEAR.pth', or an .npz of `cvsa import`.

    Raises:
      ValueError: if they cannot be read, or are of another network.
    """
    files = paths.split(",")
    if len(files) == 1 and files[0].endswith(".npz"):
        params = read_tree(files[0])
        backbone = "alex" if "conv3" in params else "vgg"
        return backbone, check_tree(params, perceptual_shapes(backbone), f"LPIPS ({backbone})")
    if len(files) != 2:
        raise ValueError(f"LPIPS needs two PyTorch files, CLASSIFIER.pth,LINEAR.pth, or one .npz, got {paths}")
    classifier, linear = map(read_state, files)
    backbone = "alex" if classifier.get("features.0.weight", np.zeros(1)).shape[-1] == 11 else "vgg"
    return backbone, convert_perceptual(classifier, linear, backbone)
