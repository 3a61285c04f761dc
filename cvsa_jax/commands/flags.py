"""Settings as flags: absl reads them, `--help` prints them in groups. The only module that imports absl."""

import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from cvsa_jax.settings import Field, text_of

Groups = Mapping[str, tuple[str, Sequence[Field]]]  # by heading: (remark, fields)
_DEFINE = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
    tuple: flags.DEFINE_list,
}
HELP = ("--help", "-h", "-help", "--helpfull", "--helpshort")


def parse(arguments: Sequence[str], groups: Groups) -> dict[str, Any]:
    """The values that some arguments give, by name; what is not given is not in it.

    Raises:
      ValueError: on an unknown flag, a value that cannot be read, or an argument that is no flag.
    """
    values = flags.FlagValues()
    for field in _all(groups):
        if field.setting.several:
            flags.DEFINE_multi_string(field.name, None, field.setting.help, flag_values=values)
        elif field.setting.words:
            flags.DEFINE(_Number(field), field.name, None, field.setting.help, values)
        else:
            _DEFINE[field.kind](field.name, None, field.setting.help, flag_values=values)
    try:
        rest = values(["cvsa", *map(str, arguments)])
    except flags.Error as error:
        raise ValueError(str(error)) from error
    if len(rest) > 1:
        raise ValueError(f"unexpected argument {rest[1]!r}; flags start with --")
    given = {f.name: values[f.name].value for f in _all(groups) if values[f.name].present}
    paths = {f.name: f for f in _all(groups) if f.setting.path or f.setting.reads}
    given = {name: expanded(paths[name], v) if name in paths else v for name, v in given.items()}
    return {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}


def expanded(field: Field, text: str) -> str:
    """A path as it is meant: `~`, $NAME and ${NAME} replaced, unless there is a file of that very name.

    Raises:
      ValueError: if it is empty, or names a variable that is not set or a user that is not there.
    """
    if not text.strip():
        raise ValueError(f"--{field.name} is empty; was a variable of the shell not set?")
    if field.setting.listed and "," in text:
        return ",".join(expanded(field, part) for part in text.split(","))
    if os.path.lexists(text):
        return text
    missing = [a or b for a, b in re.findall(r"\$(?:([A-Za-z_]\w*)|\{(\w+)\})", text) if (a or b) not in os.environ]
    if missing:
        raise ValueError(f"--{field.name}={text}: the environment has no variable {missing[0]}")
    found = os.path.expanduser(os.path.expandvars(text))
    if found.startswith("~"):
        raise ValueError(f"--{field.name}={text}: there is no such user; write ./{text} for a file of that name")
    return found


class _Number(flags.ArgumentParser):
    """Reads a number, or one of the words that a setting takes in its place."""

    def __init__(self, field: Field):
        self._field = field

    def parse(self, argument: Any) -> Any:
        if argument in self._field.setting.words:
            return argument
        try:
            return self._field.kind(argument)
        except ValueError:
            raise ValueError(f"must be a number or {' or '.join(self._field.setting.words)}") from None


def _all(groups: Groups) -> list[Field]:
    found = {f.name: f for _, fields in groups.values() for f in fields if f.setting.flag}
    return list(found.values())


def help_text(summary: str, groups: Groups, belongs: Mapping[str, str] | None = None) -> str:
    """The page of `--help`: every flag under its heading; belongs: what a flag is for, behind its help."""
    lines, seen = [summary.strip(), ""], set()
    for heading, (remark, fields) in groups.items():
        lines += [f"{heading}.{f' {remark}' if remark else ''}", ""]
        for field in fields:
            if not field.setting.flag or field.name in seen:
                continue
            seen.add(field.name)
            place = (belongs or {}).get(field.name, "")
            lines += textwrap.wrap(f"--{field.name}: {describe(field)}{place}", 110, subsequent_indent="      ",
                                   initial_indent="  ", break_on_hyphens=False)  # fmt: skip
        lines.append("")
    return "\n".join(lines).rstrip()


def describe(field: Field) -> str:
    """The help of a flag with its unit, range and default."""
    rule = field.setting
    facts = [rule.describe()] if rule.describe() else []
    if rule.remote:
        facts.append("also on a bucket, as gs://BUCKET/FOLDER")
    if rule.unit:
        facts.append(f"in {rule.unit}" if not rule.unit.startswith("for") else rule.unit)
    if rule.otherwise:
        facts.append(f"by default {rule.otherwise}")
    elif field.default not in (None, (), "") and field.default is not False:
        facts.append(f"by default {text_of(field.default)}")
    return rule.help + (f" ({'; '.join(facts)})" if facts else "")
