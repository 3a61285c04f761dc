"""Operators on disk: their arrays bit for bit, and what they are."""

import json
import pathlib
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.operators.base import Operator, stored_name
from cvsa_jax.writing import whole


def save_operator(path: pathlib.Path, operator: Operator) -> None:
    """Write an operator as a NumPy archive, which appears whole, creating the folder.

    Raises:
      ValueError: if it has something that a file cannot hold.
    """
    arrays: list[np.ndarray] = []
    structure = json.dumps(_describe(operator, arrays))
    path.parent.mkdir(parents=True, exist_ok=True)
    named: dict[str, Any] = {f"a{i}": a for i, a in enumerate(arrays)}
    with whole(path) as part, part.open("wb") as file:
        np.savez_compressed(file, structure=structure, **named)


def load_operator(path: pathlib.Path | str) -> Operator:
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
    if isinstance(value, Operator):
        fields = value.store(lambda part: _describe(part, arrays))
        return {"class": stored_name(type(value)), "fields": fields}
    if isinstance(value, jax.Array | np.ndarray):
        arrays.append(np.asarray(value))
        return {"array": len(arrays) - 1}
    if value is None or isinstance(value, str | int | float | bool):
        return {"value": value}
    raise ValueError(f"cannot store a {type(value).__name__}")


def _build(record: dict, archive) -> Any:
    if "array" in record:
        return jnp.asarray(archive[f"a{record['array']}"])
    if "class" in record:
        if record["class"] not in Operator.CLASSES:
            raise ValueError(f"no operator is called {record['class']}")
        fields = {k: _build(v, archive) for k, v in record["fields"].items()}
        return Operator.CLASSES[record["class"]].load(fields)
    return record["value"]
