"""Networks that a pickle holds as objects with their source text: EDM's. The text is not run, the objects do nothing.

Each object is a call of `torch_utils.persistence._reconstruct_persistent_obj` with its class' source text and its
attributes. A module of PyTorch keeps its parts in the attributes `_parameters`, `_buffers` and `_modules`.

References: torch_utils/persistence.py of NVlabs/edm.
"""

import dataclasses
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from cvsa_jax.importers.containers import is_archive, is_legacy, read_archive, read_legacy
from cvsa_jax.importers.pickles import Budget, Pending, load
from cvsa_jax.importers.tensors import tensor_names

_CONTAINERS = ("ModuleDict", "ModuleList", "Sequential", "ParameterDict", "ParameterList")
_MOST_PARTS, _LONGEST = 100_000, 1000  # parts of a network, characters of a name: a hostile file nests one part often


@dataclasses.dataclass(frozen=True, eq=False)
class Inert:
    """An object of a pickle, as data.

    class_name: of its class, as the file has it. init_kwargs: what it was made with, by name. attributes: all else
    that it had, `_init_args` among it. parameters, buffers: arrays or None. modules: the objects below it, or None.
    """

    class_name: str
    init_kwargs: dict[str, Any]
    attributes: dict[str, Any]
    parameters: dict[str, np.ndarray | None]
    buffers: dict[str, np.ndarray | None]
    modules: dict[str, "Inert | None"]


def read_pickle(file: BinaryIO, budget: Budget) -> Any:
    """What a plain pickle holds: `Inert` objects, and what `containers.read_archive` makes.

    Raises:
      ValueError: tells what it asks for and does not get.
      Exception: of any kind, if it is broken.
    """

    def storage(data: Any) -> Any:
        # A storage alone, as torch.save writes it: read as such, never unpickled.
        if type(data) is not bytes or not (is_legacy(data) or is_archive(data)):
            raise ValueError("a storage is not one that torch.save wrote")
        return (read_legacy if is_legacy(data) else read_archive)(io.BytesIO(data), budget)

    file.seek(0)
    names = tensor_names(budget) | {
        "torch.storage._load_from_bytes": storage,
        "torch_utils.persistence._reconstruct_persistent_obj": lambda meta: _persistent(meta, budget),
    }
    for name in _CONTAINERS:
        text = f"torch.nn.modules.container.{name}"
        names[text] = lambda text=text: Pending(lambda state: _inert(text, state, budget))
    return load(file, names, budget)


def _persistent(meta: Any, budget: Budget) -> Inert:
    if type(meta) is not dict or meta.get("type") != "class" or type(meta.get("class_name")) is not str:
        raise ValueError("refuses to run what is no persistent object of a class")
    return _inert(meta["class_name"], meta.get("state"), budget)


def _inert(class_name: str, state: Any, budget: Budget) -> Inert:
    if type(state) not in (dict, type(None)):
        raise ValueError(f"the attributes of a {class_name} are not told as a dictionary")
    budget.spend(8 * len(state or ()))
    rest = dict(state or {})
    parts = [rest.pop(name, None) or {} for name in ("_init_kwargs", "_parameters", "_buffers", "_modules")]
    if not all(type(part) is dict for part in parts):
        raise ValueError(f"the parts of a {class_name} are not told as dictionaries")
    kwargs, parameters, buffers, modules = parts
    return Inert(class_name, kwargs, rest, parameters, buffers, modules)


def walk(network: Inert) -> Iterator[tuple[str, Any]]:
    """The (dotted name, array) pairs of a network, in the order of its state dictionary.

    Raises:
      ValueError: if its parts are no modules, or more than any network has.
    """
    parts, budget = [("", network)], _MOST_PARTS
    while parts:
        prefix, part = parts.pop()
        if not isinstance(part, Inert) or len(prefix) > _LONGEST:
            raise ValueError(f"a part of it is no module of a network: {prefix}")
        budget -= 1 + len(part.parameters) + len(part.buffers) + len(part.modules)
        if budget < 0:
            raise ValueError(f"it has more than {_MOST_PARTS} parts")
        passing = part.attributes.get("_non_persistent_buffers_set") or ()
        buffers = {name: array for name, array in part.buffers.items() if name not in passing}
        yield from ((f"{prefix}{name}", a) for name, a in (part.parameters | buffers).items() if a is not None)
        below = [(f"{prefix}{name}.", module) for name, module in part.modules.items() if module is not None]
        parts += reversed(below)
