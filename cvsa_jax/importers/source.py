"""What a user names as published weights, a file or a folder, and the strict way from there to our parameters."""

import fnmatch
import pathlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cvsa_jax.descriptions import Description
from cvsa_jax.importers.files import INDEX, flat_state, one_line_for, read_file, read_json, read_metadata, some
from cvsa_jax.importers.inert import Inert
from cvsa_jax.networks import NetworkSpec

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl")
_DIFFUSERS = [f"diffusion_pytorch_model{kind}{end}" for kind in (".safetensors", ".bin") for end in ("", INDEX)]

Entry = tuple[str, tuple[str, ...], Callable[[np.ndarray], np.ndarray]]
"""(name in the file, path in our parameters, what turns the one into the other)."""


class Source(NamedTuple):
    """What was found at a path.

    path: the file of weights that was read, also where a folder was named.
    tree: what it holds: nested dictionaries, lists, tuples, arrays, plain values and `Inert` objects.
    config: of a folder, its config.json, scheduler_config.json and model_index.json, by name, as far as there are any;
      and as "metadata" what a safetensors file says beside its weights, if anything.
    """

    path: pathlib.Path
    tree: Any
    config: dict[str, dict]


class Imported(NamedTuple):
    """Weights of a file as a network of ours.

    spec: what rebuilds it. params: {"params": {...}}, float32. notes: lines for the user, such as what was left out.
    description: all that is known of it, where the file tells that; None of those that were published elsewhere.
    """

    spec: NetworkSpec
    params: dict
    notes: list[str]
    description: Description | None = None


def read_source(path: str | pathlib.Path) -> Source:
    """The weights in a file, or in a folder, with the JSON files there that say what they are.

    A folder may be one of diffusers, its files at the root or in unet/ and scheduler/, or have one file of weights.
    Where the same weights are there twice, .safetensors is read, not .bin; `Source.path` says what was.

    Raises:
      ValueError: one line, if it cannot be read, or asks for anything but weights.
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        return Source(path, read_file(path), _metadata(path))
    with one_line_for(path):
        weights = _weights_in(path)
    places = {
        "config.json": (weights.parent, path),
        "scheduler_config.json": (path / "scheduler", path, weights.parent),
        "model_index.json": (path,),
    }
    found = {name: [p / name for p in folders if (p / name).is_file()] for name, folders in places.items()}
    tree = read_file(weights)
    config = {name: read_json(files[0]) for name, files in found.items() if files}
    return Source(weights, tree, config | _metadata(weights))


def _metadata(path: pathlib.Path) -> dict[str, dict]:
    said = {} if path.name.endswith(INDEX) else read_metadata(path)
    return {"metadata": said} if said else {}


def _weights_in(folder: pathlib.Path) -> pathlib.Path:
    for place in (folder, folder / "unet"):
        files = sorted(file for file in place.iterdir() if file.is_file()) if place.is_dir() else []
        names = {file.name for file in files}
        known = [place / name for name in _DIFFUSERS if name in names]
        lists = [file for file in files if file.name.endswith(INDEX)]
        weights = [file for file in files if file.suffix in SUFFIXES]
        weights = [f for f in weights if f.suffix != ".bin" or f"{f.stem}.safetensors" not in names]
        found = known[:1] or lists or weights
        if len(found) > 1:
            raise ValueError(f"name one of its files of weights: {some(file.name for file in found)}")
        if found:
            return found[0]
    raise ValueError(f"it has no file of weights ({', '.join(SUFFIXES)})")


def state_of(source: Source) -> dict[str, np.ndarray]:
    """The weights of a source as arrays by name; of what EDM's training wrote, those of its `ema`.

    Raises:
      ValueError: one line, if it holds anything else.
    """
    tree = source.tree
    averaged = tree.get("ema") if isinstance(tree, dict) else None
    with one_line_for(source.path):
        return flat_state(averaged if isinstance(averaged, Inert) else tree)


def plain_state(source: Source) -> dict[str, np.ndarray]:
    """The weights of a source as `state_of` has them; none if it holds anything else."""
    try:
        return state_of(source)
    except ValueError:
        return {}


def take(
    state: Mapping[str, np.ndarray], entries: Iterable[Entry], expected: dict, ignored: Sequence[str] = ()
) -> dict:
    """Our parameters from a file's weights, each used once, none left over, none missing, each of the right shape.

    Args:
      state: the file's weights by name.
      entries: where each goes, and what is done to it on the way.
      expected: our parameters as shapes, a nested dictionary such as `arrays.shapes_of` makes.
      ignored: patterns (of fnmatch, as 'map_augment.*') of names that may be left over.

    Returns:
      A nested dictionary as `expected`, of float32 arrays.

    Raises:
      ValueError: one line with the first names of each kind that do not fit.
    """
    entries, wanted = list(entries), cast(dict[tuple, Any], flatten_dict(expected))
    names, paths = Counter(name for name, _, _ in entries), Counter(path for _, path, _ in entries)
    problems = {
        "missing": [name for name in names if name not in state],
        "not known": [k for k in state if k not in names and not any(fnmatch.fnmatchcase(k, p) for p in ignored)],
        "used twice": [k for k, n in names.items() if n > 1] + ["/".join(p) for p, n in paths.items() if n > 1],
        "not filled": ["/".join(path) for path in wanted if path not in paths],
        "without a place": ["/".join(path) for path in paths if path not in wanted],
    }
    params, wrong, infinite = {}, [], []
    for name, path, turn in entries:
        if name not in state or path not in wanted:
            continue
        array, shape = state[name], tuple(wanted[path].shape)
        params[path] = _turned(array, turn)
        if np.shape(params[path]) != shape:
            wrong.append(f"{name} is {array.dtype} {array.shape} for {'/'.join(path)} {shape}")
        elif not np.isfinite(params[path]).all():
            infinite.append(name)
    problems |= {"of another shape": wrong, "NaN or infinite": infinite}
    told = "; ".join(f"{kind}: {some(names)}" for kind, names in problems.items() if names)
    if told:
        raise ValueError(f"these weights do not fit the network; {told}")
    return unflatten_dict(params)


def _turned(array: np.ndarray, turn: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
    """A weight as float32, turned; None if it has too few axes for that, or is no real number."""
    if array.dtype.kind not in "fiu":
        return None
    try:
        with np.errstate(over="ignore"):  # told as infinite
            return np.array(turn(array), np.float32, order="C")
    except (ValueError, IndexError, TypeError):
        return None
