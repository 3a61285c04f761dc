"""Settings: each field of a dataclass states its default, range, unit, help and reader, once.

Flags, `--help`, the checks and the record of a job are all derived from these fields.
"""

import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax.core import Tracer

from cvsa_jax import remote

_KEY = "setting"


class Setting(NamedTuple):
    """What is known of one field beside its name and its default.

    help: one sentence for people. unit: of its number. low, high: the least and the largest value allowed.
    above, below: bounds that are themselves excluded. odd: whether it must be an odd number. choices: the
    names allowed, a live registry. otherwise: the default in words, where it is None. reads: turns the
    file that a flag names into what the code works on. replaces: settings that have no effect beside this
    one. flag: whether programs offer it. free: whether a job may go on with another value of it.
    several: whether the flag may be repeated. words: what may stand in place of a number. path: whether it names a file
    or a folder, as what `reads` does; listed: several of them, joined by commas; remote: it may be on a bucket.
    """

    help: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    below: float | None = None
    odd: bool = False
    choices: Collection[str] | None = None
    otherwise: str = ""
    reads: Callable[[str], Any] | None = None
    replaces: tuple[str, ...] = ()
    flag: bool = True
    free: bool = False
    several: bool = False
    path: bool = False
    listed: bool = False
    remote: bool = False
    words: tuple[str, ...] = ()

    def describe(self) -> str:
        """The range or the choices in words; empty if everything is allowed."""
        if self.choices is not None:
            return f"one of {', '.join(self.choices)}"
        bounds = (
            (self.low, "at least"),
            (self.above, "above"),
            (self.high, "at most"),
            (self.below, "below"),
        )
        parts = [
            "positive" if word == "above" and bound == 0 else f"{word} {bound if _long(bound) else f'{bound:g}'}"
            for bound, word in bounds
            if bound is not None
        ]
        return " or ".join((" and ".join(([] if not self.odd else ["odd"]) + parts), *self.words))


def _long(bound: float) -> bool:
    return isinstance(bound, int) and abs(bound) >= 10**6


class Field(NamedTuple):
    """A field of a settings class as programs see it."""

    name: str
    kind: type
    default: Any
    setting: Setting


def setting(default: Any, help: str, unit: str = "", **facts) -> Any:
    """A dataclass field with the facts of `Setting`."""
    return dataclasses.field(default=default, metadata={_KEY: Setting(help, unit, **facts)})


def like(owner: type, name: str, default: Any = dataclasses.MISSING, **facts) -> Any:
    """The same field as another class has, perhaps with another default, which is told as it is, or other facts."""
    field = next(f for f in fields(owner) if f.name == name)
    kept = field.default if default is dataclasses.MISSING else default
    words = {} if default is dataclasses.MISSING else {"otherwise": ""}
    return dataclasses.field(default=kept, metadata={_KEY: field.setting._replace(**words, **facts)})


@functools.cache
def fields(owner: type) -> tuple[Field, ...]:
    """The settings of a class, in order."""
    hints = typing.get_type_hints(owner)
    return tuple(
        Field(f.name, _kind(hints[f.name]), f.default, f.metadata[_KEY])
        for f in dataclasses.fields(owner)
        if _KEY in f.metadata
    )


def _kind(hint: Any) -> type:
    """The type that a flag's text is read as: the first of bool, int, float, str, tuple in the annotation."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    plain = [typing.get_origin(option) or option for option in options]
    return next(kind for kind in (bool, int, float, str, tuple) if kind in plain)


class Settings:
    """Base of the settings classes: values are checked when an object is made."""

    def __post_init__(self):
        for field in fields(type(self)):
            check_value(field, getattr(self, field.name))


def check_value(field: Field, value: Any) -> None:
    """Raises ValueError unless a value is in its field's range; one that is not known yet, as under jit, passes."""
    rule, name = field.setting, field.name
    if (
        isinstance(value, Tracer)
        or (callable(value) and field.kind is str)
        or (value is None and field.default is None)
        or (isinstance(value, str) and value in rule.words)
    ):
        return
    if (rule.path or rule.reads) and not rule.remote and isinstance(value, str):
        remote.refuse(name, value)
    if rule.choices is not None:
        for one in value if isinstance(value, tuple) else (value,):
            if not isinstance(one, str) or one not in rule.choices:
                raise ValueError(f"{name} must be {rule.describe()}, got {one!r}{nearest(one, rule.choices)}")
        return
    if field.kind not in (int, float):
        return
    if isinstance(value, str) or value is None:
        raise ValueError(f"{name} must be {' or '.join(('a number', *rule.words))}, got {value!r}")
    try:  # whole numbers of Python are compared as they are: a float64 has 53 bits
        number: Any = value if type(value) is int else np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a number, got {value!r}") from error
    if field.kind is int and np.asarray(value).dtype.kind not in "iuO":
        raise ValueError(f"{name} must be a whole number, got {value}")
    sound = [
        type(value) is int or np.isfinite(number),
        rule.low is None or number >= rule.low,
        rule.high is None or number <= rule.high,
        rule.above is None or number > rule.above,
        rule.below is None or number < rule.below,
        not rule.odd or number % 2 == 1,
    ]
    if not all(np.all(part) for part in sound):
        unit = f" {rule.unit}" if rule.unit else ""
        raise ValueError(f"{name} must be {rule.describe() or 'finite'}{unit}, got {value}")


def require_known(settings: Any, *names: str) -> None:
    """Raises ValueError if one of these is traced: the program itself, or a table on the host, is made from it."""
    for name in names:
        if isinstance(getattr(settings, name), Tracer):
            raise ValueError(f"{name} must be a plain number, it cannot be an argument of a jitted function")


def nearest(name: object, known: Iterable[str]) -> str:
    """'; did you mean X?' if a known name is close to a wrong one."""
    close = difflib.get_close_matches(str(name), list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def values(settings: Any) -> dict[str, Any]:
    """The flags of a settings object with their values, in order."""
    return {f.name: getattr(settings, f.name) for f in fields(type(settings)) if f.setting.flag}


def files_of(settings: Any) -> dict[str, str]:
    """The path that each setting `reads`, by the setting's name."""
    found = {f.name: getattr(settings, f.name) for f in fields(type(settings)) if f.setting.reads is not None}
    return {name: path for name, path in found.items() if isinstance(path, str)}


def read_files(settings: Any) -> Any:
    """The same settings with every file read; raises ValueError if one cannot be."""
    read = {f.name: f.setting.reads for f in fields(type(settings)) if f.setting.reads is not None}
    found = {name: read[name](path) for name, path in files_of(settings).items()}
    return dataclasses.replace(settings, **found) if found else settings


def require(given: Mapping[str, Any], *names: str) -> None:
    """Raises ValueError unless each of the values is given."""
    for name in names:
        if given.get(name) is None:
            raise ValueError(f"--{name} is required")


def replaced(owners: Iterable[type], given: Mapping[str, Any]) -> dict[str, str]:
    """Of settings classes: why a setting has no effect, by its name, where one that is given replaces it."""
    found: dict[str, str] = {}
    for field in (f for owner in owners for f in fields(owner) if f.name in given):
        found |= dict.fromkeys(field.setting.replaces, f"beside --{field.name}")
    return found


def refuse(idle: Mapping[str, str], given: Mapping[str, Any]) -> None:
    """Raises ValueError on a given value that is idle; idle: why, by name."""
    for name, why in idle.items():
        if name in given:
            raise ValueError(f"--{name} has no effect {why}")


def build(owner: type, given: Mapping[str, Any], **defaults) -> Any:
    """A settings object from the given values that it has a field for, over other defaults."""
    names = {f.name for f in fields(owner)}
    return owner(**{**defaults, **{k: v for k, v in given.items() if k in names}})


def join(name: str, owners: Iterable[type]) -> type:
    """One settings class with the fields of several; those of the same name must be the same.

    Raises:
      ValueError: if two classes mean different things by a name.
    """
    found: dict[str, tuple[Any, Any]] = {}
    for owner in owners:
        hints = typing.get_type_hints(owner)
        for field in dataclasses.fields(owner):
            entry = hints[field.name], field
            before = found.setdefault(field.name, entry)
            if (before[1].default, before[1].metadata) != (field.default, field.metadata):
                raise ValueError(f"two different settings are called {field.name}")
    made = [(n, hint, dataclasses.field(default=f.default, metadata=f.metadata)) for n, (hint, f) in found.items()]
    return dataclasses.make_dataclass(name, made, bases=(Settings,), frozen=True)


def text_of(value: Any) -> str:
    """A value as a flag takes it."""
    if isinstance(value, tuple | list):
        return ",".join(map(text_of, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and math.isfinite(value):
        return repr(float(value)).removesuffix(".0")
    return str(value)
