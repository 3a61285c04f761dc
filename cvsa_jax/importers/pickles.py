"""Pickles as plain values: no name in a file is imported, and nothing of the file runs.

Python's unpickler imports what a file names, and calls it. `load` follows the same instructions, but a name is only a
key of a closed table of functions of ours, each of which makes a plain value. Python's is not used even with another
look-up of names: it also sets attributes of whatever it is told to, and a few bytes can make it reserve any amount
of memory or end the process.

References: the instructions are those of Python's module pickletools.
"""

import dataclasses
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

GROWTH, SPARE = 8, 2**26  # what reading may cost: so often the file's size, and so many bytes more
INSTRUCTION = 128  # bytes, about what the value of one instruction needs
_SIZES = {str: 1, bytes: 1, bytearray: 1, tuple: 8, list: 8, dict: 8, set: 8}  # of an item, in bytes


class Budget:
    """What reading a file may still cost, in bytes: a hostile one has a value once and asks for it many times.

    Args:
      size: of the file, in bytes.
    """

    def __init__(self, size: int):
        self.left = GROWTH * size + SPARE

    def spend(self, count: int) -> None:
        """Raises ValueError once a file has asked for more than one of its size may need."""
        self.left -= count
        if self.left < 0:
            raise ValueError("it asks for far more than a file of its size can hold")


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Name:
    """A name in a file. `make` stands in for what the name would have called."""

    text: str
    make: Callable


class Pending:
    """A value that is not complete before a BUILD instruction: `finish` makes it from the state that follows."""

    def __init__(self, finish: Callable[[Any], Any]):
        self.finish = finish
        self.places: list[int] = []


def load(file: BinaryIO, names: Mapping[str, Any], budget: Budget, persistent: Callable | None = None) -> Any:
    """The value of one pickle. The file is left at its end.

    Args:
      file: binary, where the pickle starts.
      names: 'module.name' to a function that makes a plain value, or to such a value.
      budget: what it may cost.
      persistent: what stands for the pickle's references to something outside of it.

    Raises:
      ValueError: tells what the pickle asks for and does not get.
      Exception: of any kind, if it is broken.
    """
    machine = _Machine(names, budget, persistent)
    for opcode, argument, _ in pickletools.genops(_Bounded(file)):  # pyright: ignore[reportArgumentType]
        if opcode.name == "STOP":
            return machine.pop()
        budget.spend(INSTRUCTION)
        if opcode.name not in _STEPS:
            raise ValueError(f"refuses the instruction {opcode.name}")
        _STEPS[opcode.name](machine, argument)
    raise ValueError("the pickle has no end")


def as_key(value: Any) -> Any:
    """The same value, if it may be a key: looking up what nests, or huge numbers, can take for ever.

    Raises:
      ValueError: if it may not.
    """
    if type(value) not in (str, bytes, int, float, bool, type(None)) or (type(value) is int and abs(value) >> 64):
        raise ValueError(f"refuses a {type(value).__name__} as a key")
    return value


class _Bounded:
    """A file that is asked for no more than it has: what it is asked for, it reserves first."""

    def __init__(self, file: BinaryIO):
        here = file.tell()
        self.size = file.seek(0, 2)
        file.seek(here)
        self.file, self.tell, self.readline = file, file.tell, file.readline

    def read(self, count: int) -> bytes:
        return self.file.read(count if count < 1024 else min(count, self.size - self.file.tell()))


class _Machine:
    """The stack, the memo and what calls are allowed."""

    def __init__(self, names: Mapping[str, Any], budget: Budget, persistent: Callable | None):
        self.names, self.budget, self.persistent = names, budget, persistent
        self.stack: list = []
        self.marks: list[list] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        return self.stack.pop()

    def several(self, count: int | None) -> list:
        """The last values of the stack; None: those since the last mark."""
        if count is None:
            items, self.stack = self.stack, self.marks.pop()
            return items
        if len(self.stack) < count:
            raise ValueError("the pickle takes more than it gave")
        items = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return items

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def store(self, place: int | None) -> None:
        place = len(self.memo) if place is None else place
        value = self.memo[place] = self.stack[-1]
        if isinstance(value, Pending):
            value.places.append(place)

    def name(self, module: Any, name: Any) -> None:
        text = f"{module}.{name}" if type(module) is type(name) is str else "no text"
        # A second dot would reach into what a name stands for.
        if text not in self.names or "." in name:
            raise ValueError(f"refuses to run `{text}`")
        found = self.names[text]
        self.push(Name(text, found) if callable(found) else found)

    def call(self, name: Any, arguments: Any) -> None:
        if type(name) is not Name or type(arguments) is not tuple:
            raise ValueError(f"refuses to call a {type(name).__name__}")
        self.spend_on(*arguments)
        self.push(name.make(*arguments))

    def spend_on(self, *values: Any) -> None:
        """Values may be copied. One that the file has once, it may use any number of times."""
        self.budget.spend(sum(_SIZES[type(value)] * len(value) for value in values if type(value) in _SIZES))

    def build(self) -> None:
        value, state = self.several(2)
        if isinstance(value, Pending):
            self.spend_on(state)
            finished = value.finish(state)
            while value.places:
                self.memo[value.places.pop()] = finished
            self.push(finished)
        elif type(value) is dict:  # attributes beside the entries, such as the version numbers of a state: left out
            self.push(value)
        else:
            raise ValueError(f"refuses to set attributes of a {type(value).__name__}")

    def refer(self) -> None:
        identity = self.pop()
        if self.persistent is None:
            raise ValueError("it refers to something outside of itself")
        self.push(self.persistent(identity))


def _fill(kind: type, add: Callable[[Any, list], Any], count: int | None) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, _: Any) -> None:
        items, target = machine.several(count), machine.stack[-1]
        if type(target) is not kind:
            raise ValueError(f"refuses to fill a {type(target).__name__}")
        add(target, items)

    return step


def _pairs(items: list) -> dict:
    return {as_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _inst(machine: _Machine, text: str) -> None:
    arguments = machine.several(None)
    machine.name(*text.split(" ", 1))
    machine.call(machine.pop(), tuple(arguments))


def _obj(machine: _Machine, _: Any) -> None:
    name, *arguments = machine.several(None)
    machine.call(name, tuple(arguments))


_VALUES = (
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_KEPT: dict[str, tuple[Callable, int | None]] = {
    "TUPLE": (tuple, None), "TUPLE1": (tuple, 1), "TUPLE2": (tuple, 2), "TUPLE3": (tuple, 3), "LIST": (list, None),
    "DICT": (_pairs, None), "FROZENSET": (lambda items: set(map(as_key, items)), None),
    "EMPTY_LIST": (list, 0), "EMPTY_DICT": (_pairs, 0), "EMPTY_SET": (set, 0),
}  # fmt: skip
_STEPS: dict[str, Callable[[_Machine, Any], Any]] = {
    **{name: lambda m, value: m.push(value) for name in _VALUES.split()},
    **{name: lambda m, _, value=value: m.push(value) for name, value in _CONSTANTS.items()},
    **{name: lambda m, _, kept=kept: m.push(kept[0](m.several(kept[1]))) for name, kept in _KEPT.items()},
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, _: None),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, place: m.push(m.memo[place])),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda m, place: m.store(place)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda m, _: m.call(*m.several(2))),
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.several(1 if m.stack else None),
    "POP_MARK": lambda m, _: m.several(None),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    "APPEND": _fill(list, list.extend, 1),
    "APPENDS": _fill(list, list.extend, None),
    "SETITEM": _fill(dict, lambda target, items: target.update(_pairs(items)), 2),
    "SETITEMS": _fill(dict, lambda target, items: target.update(_pairs(items)), None),
    "ADDITEMS": _fill(set, lambda target, items: target.update(map(as_key, items)), None),
    "GLOBAL": lambda m, text: m.name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*m.several(2)),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.refer(),
    "INST": _inst,
    "OBJ": _obj,
}  # fmt: skip
