"""What names in pickles stand for, where they mean plain values: containers, numbers, arrays of NumPy."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from cvsa_jax.importers.pickles import Budget, Pending, as_key


def plain_names(budget: Budget) -> dict[str, Any]:
    """The names of plain values, as Python 2 and 3 and both generations of NumPy have them."""

    def array(data, dtype, shape, order):
        return _array(budget, data, dtype, shape, order)

    def from_state(state):
        _, shape, dtype, columns, data = state
        return array(data, dtype, shape, "F" if columns else "C")

    names: dict[str, Any] = {
        "collections.OrderedDict": mapping,
        "collections.Counter": mapping,
        "collections.defaultdict": lambda _=None, pairs=(): mapping(pairs),
        "dnnlib.util.EasyDict": mapping,
        "dnnlib.EasyDict": mapping,
        "argparse.Namespace": lambda: Pending(mapping),
        "_codecs.encode": _encode,
        "numpy.ndarray": only_named("numpy.ndarray"),
        "numpy.dtype": _dtype,
    }
    for module in ("builtins", "__builtin__"):
        kept = {"dict": mapping, "list": lambda items=(): list(items), "bytes": lambda: b"", "tuple": _tuple}
        names |= {f"{module}.{name}": make for name, make in kept.items()}
        names |= dict.fromkeys((f"{module}.set", f"{module}.frozenset"), lambda items=(): set(map(as_key, items)))
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray.scalar"] = lambda dtype, data: array(data, dtype, (), "C").item()
        names[f"{core}.multiarray._reconstruct"] = lambda *_: Pending(from_state)
        names[f"{core}.numeric._frombuffer"] = array
    return names


def mapping(pairs: Any = ()) -> dict:
    """A dictionary from another one, or from pairs.

    Raises:
      ValueError: if a key is not plain.
    """
    return {as_key(key): value for key, value in (pairs.items() if isinstance(pairs, dict) else pairs)}


def _tuple(items: Any = ()) -> tuple:
    return tuple(items)


def only_named(name: str) -> Callable:
    """What stands for a class that files name but never call."""

    def call(*_: Any) -> Any:
        raise ValueError(f"refuses to run `{name}`")

    return call


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("refuses to encode text but as latin-1")
    return text.encode("latin-1")


def _dtype(text: Any, *_: Any) -> Pending:
    """A type of numbers; its byte order follows as the second entry of a state."""
    if type(text) is not str or not re.fullmatch(r"[<>|=]?[biufc](1|2|4|8|16)", text):
        raise ValueError("refuses a type of NumPy's that is no plain number")

    def finish(state):
        if state[1] not in tuple("<>|="):
            raise ValueError("refuses an order of bytes that is unknown")
        return np.dtype(text).newbyteorder(state[1])

    return Pending(finish)


def _array(budget: Budget, data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """The array in a pickle's own bytes, in memory of its own and in the byte order of this machine."""
    plain = type(shape) is tuple and all(type(n) is int for n in shape) and order in ("C", "F")
    if not plain or not isinstance(dtype, np.dtype) or type(data) not in (bytes, bytearray):
        raise ValueError("an array of NumPy's is not told as numbers of one type")
    budget.spend(len(data))
    return np.array(np.frombuffer(data, dtype).reshape(shape, order=order), dtype.newbyteorder("="), order="C")
