"""One file of weights, of any kind that is known, told by its content; and whatever it holds as arrays by name."""

import contextlib
import json
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from cvsa_jax.importers.containers import HEAD, is_archive, is_legacy, read_archive, read_legacy
from cvsa_jax.importers.inert import Inert, read_pickle, walk
from cvsa_jax.importers.pickles import Budget

INDEX = ".index.json"  # the end of a file that tells which weights are in which of several files
_SAFETENSORS = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
_LONGEST, _SHOWN, _LARGEST_JSON = 300, 8, 2**24  # characters and names in a message, bytes


def read_file(path: str | pathlib.Path) -> Any:
    """What a file of weights holds: nested dictionaries, lists, tuples, arrays, plain values and `Inert` objects.

    Args:
      path: a file of torch.save in either format, a pickle of EDM's, a safetensors file, or the list (.index.json) of
        several of them. The content tells which, not the name.

    Raises:
      ValueError: one line, if it cannot be read, or asks for anything but weights.
    """
    path = pathlib.Path(path)
    with one_line_for(path):
        if not path.is_file():
            raise ValueError("it is no file" if path.exists() else "there is no such file")
        return _read_split(path) if path.name.endswith(INDEX) else _read_one(path)


def read_metadata(path: str | pathlib.Path) -> dict[str, str]:
    """What a safetensors file says beside its weights, text by name; nothing of any other file.

    Raises:
      ValueError: one line, if it cannot be read.
    """
    path = pathlib.Path(path)
    with one_line_for(path):
        with path.open("rb") as file:
            if not _is_safetensors(path, file.read(HEAD)):
                return {}
        with safetensors.safe_open(path, framework="np") as opened:
            return opened.metadata() or {}


@contextlib.contextmanager
def one_line_for(path: str | pathlib.Path) -> Iterator[None]:
    """Turns every failure into a ValueError of one line: a broken file fails in many ways."""
    try:
        yield
    except Exception as error:
        told = isinstance(error, ValueError | OSError)
        reason = printable(str(error)) if told else f"it is broken ({type(error).__name__}: {printable(str(error))})"
        raise ValueError(f"cannot read {path}: {reason}") from error


def printable(text: str, longest: int = _LONGEST) -> str:
    """A text out of a file as a part of one line."""
    shown = "".join(c if c.isprintable() else " " for c in text[:longest])
    return shown if len(text) <= longest else f"{shown[:-3]}..."


def some(names: Iterable[str]) -> str:
    """The first of many names."""
    names = list(names)
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(printable(name, 100) for name in names[:_SHOWN]) + rest


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      ValueError: one line, if there is none.
    """
    with one_line_for(path):
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError("it is too large for a file of settings")
        found = json.loads(path.read_text("utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, not settings by name")
        return found


def flat_state(tree: Any) -> dict[str, np.ndarray]:
    """The arrays by name that a dictionary or a network is.

    Raises:
      ValueError: if it is neither, or holds anything else.
    """
    if not isinstance(tree, dict | Inert):
        raise ValueError(f"it holds a {type(tree).__name__}, not weights by name")
    state = dict(walk(tree) if isinstance(tree, Inert) else tree)
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise ValueError(f"it does not hold weights by name: {name} is a {type(value).__name__}")
    if not state:
        raise ValueError("it holds no weights")
    return state


def _read_one(path: pathlib.Path) -> Any:
    with path.open("rb") as file:
        head, budget = file.read(HEAD), Budget(path.stat().st_size)
        if _is_safetensors(path, head):
            return _read_safetensors(path)
        if is_archive(head):
            return read_archive(file, budget)
        if is_legacy(head):
            return read_legacy(file, budget)
        if re.match(rb"\x80[\x02-\x05]", head):
            return read_pickle(file, budget)
    if head.startswith(b"version https://git-lfs"):
        raise ValueError("it only points to the weights, which `git lfs pull` fetches")
    raise ValueError("it is neither of torch.save, nor a pickle, nor a safetensors file" if head else "it is empty")


def _is_safetensors(path: pathlib.Path, head: bytes) -> bool:
    """Such a file starts with the length of its header, which is less than 2^32, and the header."""
    return path.suffix == ".safetensors" or head[4:9] == b"\0\0\0\0{"


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    with safetensors.safe_open(path, framework="np") as file:
        types = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        for name, kind in types.items():
            if kind not in _SAFETENSORS:
                raise ValueError(f"it has {name} as {kind}, but weights are read as {', '.join(_SAFETENSORS)}")
        state = {name: file.get_tensor(name) for name in types}
    return {n: a.astype(np.float32) if a.dtype == ml_dtypes.bfloat16 else a for n, a in state.items()}


def _read_split(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The weights of a list {"weight_map": {name: file beside it}}."""
    files = read_json(path).get("weight_map")
    names = list(files.values()) if isinstance(files, dict) else [None]
    # A name with a folder in it would lead elsewhere.
    if not isinstance(files, dict) or not all(isinstance(n, str) and re.fullmatch(r"[\w.-]+", n) for n in names):
        raise ValueError("it does not tell which weights are in which file beside it")
    state: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(map(str, names)):
        part = flat_state(_read_one(path.parent / name))
        listed = {weight for weight, file in files.items() if file == name}
        if part.keys() != listed:
            raise ValueError(f"{name} has other weights than it lists: {some(sorted(part.keys() ^ listed))}")
        state |= part
    return state
