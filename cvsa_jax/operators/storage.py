"""Operators on disk: their arrays bit for bit, and what they are."""

import dataclasses
import json
import pathlib
import zipfile

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.importers import bkse
from cvsa_jax.operators.base import Identity
from cvsa_jax.operators.camera import CameraShake
from cvsa_jax.operators.chain import Chain
from cvsa_jax.operators.convolution import Convolution
from cvsa_jax.operators.dense import Matrix
from cvsa_jax.operators.encoder import EncodedBlur
from cvsa_jax.operators.masks import Mask
from cvsa_jax.operators.phase import FourierMagnitude
from cvsa_jax.operators.separable import Separable
from cvsa_jax.operators.tones import Clip, Quantised
from cvsa_jax.types import Operator

CLASSES = {
    c.__name__: c
    for c in (CameraShake, Chain, Clip, Convolution, FourierMagnitude, Identity, Mask, Matrix, Quantised, Separable)
}


def save_operator(path: pathlib.Path, operator: Operator) -> None:
    """Write an operator of this package as a NumPy archive, creating the folder."""
    arrays: list[np.ndarray] = []
    structure = json.dumps(_describe(operator, arrays))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, structure=structure, **{f"a{i}": a for i, a in enumerate(arrays)})


def load_operator(path: pathlib.Path) -> Operator:
    """The inverse of `save_operator`: the same measurements, bit for bit.

    Raises:
      ValueError: if the file is missing, damaged or of something else.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _build(json.loads(str(archive["structure"])), archive)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot read {path} as an operator: {str(error) or type(error).__name__}") from error


def _describe(value, arrays: list[np.ndarray]):
    """A value as JSON; arrays go into the list."""
    if isinstance(value, EncodedBlur):  # its network is stored once, not with each image
        if not value.source:
            raise ValueError("cannot store a blur encoder whose parameters are from no file")
        return {"encoder": value.source, "code": _describe(value.code, arrays)}
    if isinstance(value, jax.Array | np.ndarray):
        arrays.append(np.asarray(value))
        return {"array": len(arrays) - 1}
    if type(value).__name__ in CLASSES:
        fields = {f.name: _describe(getattr(value, f.name), arrays) for f in dataclasses.fields(value)}
        return {"class": type(value).__name__, "fields": fields}
    if value is None or isinstance(value, str | int | float | bool):
        return {"value": value}
    raise ValueError(f"cannot store a {type(value).__name__}")


def _build(record: dict, archive):
    if "array" in record:
        return jnp.asarray(archive[f"a{record['array']}"])
    if "encoder" in record:
        code = _build(record["code"], archive)
        params = jax.tree.map(lambda a: jnp.asarray(a, code.dtype), bkse.load(record["encoder"]))
        return EncodedBlur(params, code, record["encoder"])
    if "class" in record:
        return CLASSES[record["class"]](**{k: _build(v, archive) for k, v in record["fields"].items()})
    return record["value"]
