"""The formats of public weights: how each is recognised, what may be told of it, and its conversion."""

import types
from collections.abc import Mapping
from typing import Any

from cvsa_jax.importers import adm, cld_sgm, ddpm, diffusers, dncnn, drunet, edm, ffdnet, own
from cvsa_jax.importers.source import Source
from cvsa_jax.settings import Field, fields, nearest

FORMATS: dict[str, types.ModuleType] = {
    "adm": adm, "ddpm": ddpm, "diffusers": diffusers, "edm": edm, "cld_sgm": cld_sgm,
    own.KEY: own, "ffdnet": ffdnet,
    "drunet": drunet, "dncnn": dncnn,
}  # fmt: skip


def find_format(source: Source) -> str:
    """The name of the format that a source is in, by its keys and files.

    Raises:
      ValueError: if it is none of FORMATS, or more than one.
    """
    found = [name for name, module in FORMATS.items() if module.matches(source)]
    if not found:
        raise ValueError(f"{source.path} is in none of the known formats ({', '.join(FORMATS)})")
    if len(found) > 1:
        raise ValueError(f"{source.path} may be {' or '.join(found)}: give --format")
    return found[0]


def parse_options(text: str) -> dict[str, str]:
    """'a=1,b=8,4' as {'a': '1', 'b': '8,4'}: a part without '=' belongs to the value before it.

    Raises:
      ValueError: if the first has no '=', or a name comes twice.
    """
    found: dict[str, str] = {}
    name = None
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        if "=" in part:
            name, value = (side.strip() for side in part.split("=", 1))
            if name in found:
                raise ValueError(f"--options gives {name} twice")
            found[name] = value
        elif name is None:
            raise ValueError(f"--options must be name=value,name=value, got {part!r}")
        else:
            found[name] += f",{part}"
    return found


def make_options(format_name: str, texts: dict[str, str], known: Mapping[str, Any]) -> Any:
    """The options of a format: those that are known of a public model, and those given.

    Raises:
      ValueError: on an unknown name, a value that cannot be read or is out of range, or one that contradicts what is
        known.
    """
    owner = FORMATS[format_name].Options
    own = {f.name: f for f in fields(owner)}
    given = {}
    for name, text in texts.items():
        if name not in own:
            options = ", ".join(own) or "none"
            raise ValueError(f"{format_name} has no option {name}{nearest(name, own)}; it has {options}")
        given[name] = _value(own[name], text)
        if name in known and known[name] != given[name]:
            raise ValueError(f"--options={name}={text} contradicts --model, of which it is {known[name]}")
    return owner(**{**known, **given})


def _value(field: Field, text: str) -> Any:
    """A text as the field's kind."""
    try:
        if field.kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if field.kind is tuple:
            return tuple(float(part) if "." in part else int(part) for part in text.split(","))
        return field.kind(text)
    except (KeyError, ValueError) as error:
        kind = {bool: "true or false", int: "a whole number", float: "a number", tuple: "numbers"}.get(field.kind)
        raise ValueError(f"--options={field.name} must be {kind or 'text'}, got {text!r}") from error


def describe(format_name: str) -> list[str]:
    """A line for each option of a format."""
    lines = []
    for field in fields(FORMATS[format_name].Options):
        facts = [field.setting.help, field.setting.describe()]
        facts += [f"by default {field.setting.otherwise}"] if field.setting.otherwise else []
        lines.append(f"{field.name}: {' '.join(filter(None, facts))}")
    return lines
