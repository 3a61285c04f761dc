"""Which files a job takes, and what it calls them."""

import json
import os
import pathlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from cvsa_jax import folders
from cvsa_jax.operators.array_files import SUFFIXES as ARRAYS
from cvsa_jax.types import InputError

# Of the pictures and arrays that a job writes: a file called so may not meet a folder of that name.
_ENDINGS = (".png", ".npy", ".npz", ".tif", ".tiff", ".webp", ".jpg", ".jpeg")


class Chosen(NamedTuple):
    """A file of a job. name: of its output. file: its path below the input. stem: that without its suffix."""

    path: pathlib.Path
    name: str
    file: str
    stem: str


def choose(
    files: list[pathlib.Path], root: pathlib.Path, before: Mapping[str, str], done: Iterable[str] = ()
) -> list[Chosen]:
    """Name the outputs of some files: no two alike, also where case or the composition of letters is not told apart.

    A file's output is called by its path below the folder, without the suffix. Where several would be called so
    (a.png, a.jpg, a.png.png), the one that was done under that name keeps it; of new ones the .png file gets it, and
    the others keep their suffix. Randomness goes by `stem` alone: what comes out of a file is the same in any company.

    Args:
      files: below root, or root itself. before: file by name, of what the job named earlier.
      done: names of what is done, perhaps without a record in `before`.

    Raises:
      InputError: if two files would be one in tables.
    """
    relative = [_text(f.relative_to(root) if root.is_dir() else pathlib.Path(f.name)) for f in files]
    if twice := next((name for name, count in Counter(relative).items() if count > 1), None):
        raise InputError(f"{root} has two files {twice}, as a byte that is no UTF-8 is written %E9: rename one")
    stems = {r: str(pathlib.PurePath(r).with_suffix("")) for r in relative}
    order = sorted(stems, key=lambda r: (pathlib.PurePath(r).suffix.lower() != ".png", r))
    names = {file: name for name, file in before.items()}
    claims = {r: r for r in order} | {stems[r]: r for r in reversed(order)}
    for name in done:  # by an earlier version, which kept no record
        if name not in before and name in claims:
            names.setdefault(claims[name], name)
    taken = {_folded(name) for name in (*before, *done)}
    inside = {_folded(str(parent)) for stem in stems.values() for parent in pathlib.PurePath(stem).parents}
    for file in order:
        if file in names:
            continue
        tries = (stems[file], file, *(f"{file}_{n}" for n in range(2, len(files) + len(before) + 3)))
        names[file] = next(t for t in tries if _free(_folded(t), taken, inside))
        taken.add(_folded(names[file]))
    return [Chosen(f, names[r], r, stems[r]) for f, r in zip(files, relative, strict=True)]


def _free(name: str, taken: set[str], inside: set[str]) -> bool:
    return name not in taken and not any(name + ending in inside for ending in _ENDINGS)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _text(path: pathlib.PurePath) -> str:
    """A path that can be written to a table: bytes that are no UTF-8 as %E9."""
    return re.sub("[\udc80-\udcff]", lambda m: f"%{ord(m[0]) - 0xDC00:02X}", path.as_posix())


def list_inputs(
    path: str, measured: bool, output: str | None = None,
    less: Callable[[list[pathlib.Path]], list[pathlib.Path]] = lambda files: files,
) -> list[pathlib.Path]:  # fmt: skip
    """The images, and of measurements the arrays, below a path; where a name has both, the array.

    Args:
      path: of a file or a folder. measured: whether they are measurements. output: a folder that is left out.
      less: takes out the job's own masks and kernels, which supersede no image.

    Raises:
      InputError: as `folders.list_images` and `less`, if the input is the output, or if no image is left.
    """
    if output is not None and os.path.isdir(path) and os.path.isdir(output) and os.path.samefile(path, output):
        raise InputError(f"--output={output} is --input itself; name another folder")
    files = folders.list_images(path, ARRAYS if measured else (), [] if output is None else [output], folders.note)
    if not (files := less(files)):
        raise InputError(f"no image in {path} beside the masks, the kernels and the operator that this job names")
    arrays = {f.with_suffix("") for f in files if f.suffix.lower() in ARRAYS}
    return [f for f in files if f.suffix.lower() in ARRAYS or f.with_suffix("") not in arrays]


def refuse_removed(files: Iterable[pathlib.Path], output: pathlib.Path, kinds: Iterable[str]) -> None:
    """Raises InputError if an input lies in a folder of pictures that --overwrite removes."""
    going = [(output / kind).resolve() for kind in kinds if (output / kind).is_dir()]
    for file in files if going else ():
        if any(folder in file.resolve().parents for folder in going):
            raise InputError(f"--overwrite would remove {file}, which is to be read; name another --output")


def read_list(path: str, folder: pathlib.Path) -> list[pathlib.Path]:
    """The images that a text file names, a path a line, below a folder; each once.

    The file is UTF-8, or UTF-16 with its mark. Empty lines and comments behind # are passed over, unless there is a
    file of that very name. What begins or ends in a blank, or holds a newline, may be written in quotes, as JSON.

    Raises:
      InputError: if the file cannot be read, names nothing, or names what is not there.
    """
    found = (_named(line, folder) for line in _lines(path))
    names = list(dict.fromkeys(_below(name, folder) for name in found if name is not None))
    if not names:
        raise InputError(f"the list {path} names no image")
    for name in names:
        if name.is_absolute() or ".." in name.parts:
            raise InputError(f"the list {path} names {name}, which is not below {folder}")
        if not os.path.isfile(folder / name):
            raise InputError(f"the list {path} names {folder / name}, which is not there")
    return [folder / name for name in names]


def _below(name: str, folder: pathlib.Path) -> pathlib.Path:
    """A path relative to the folder, if it lies below."""
    path, whole = pathlib.Path(name), folder.absolute()
    return path.relative_to(whole) if whole in path.parents else path


def write_list(path: pathlib.Path, names: Iterable[str]) -> None:
    """Write a list that `read_list` reads back."""
    quoted = lambda n: n != n.strip() or n[:1] in ("#", '"') or " #" in n or len(n.splitlines()) > 1  # noqa: E731
    lines = [json.dumps(n) if quoted(n) else n for n in names]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", errors="surrogateescape")


def _lines(path: str) -> list[str]:
    try:
        data = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the list {path}: {error.strerror}") from error
    marked = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    if b"\0" in data and not marked:
        raise InputError(f"the list {path} is no UTF-8 text; save it as UTF-8, a path a line")
    try:
        text = data.decode("utf-16") if marked else data.decode("utf-8-sig", "surrogateescape")
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read the list {path}: {error}; save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _named(line: str, folder: pathlib.Path) -> str | None:
    """The name that a line stands for; None of a comment or an empty line."""
    text = line.strip()
    if not text:
        return None
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            return json.loads(text)
        except ValueError:
            pass
    meant = (line, text, re.sub(r"\s+#.*$", "", text), text.replace("\\", "/"), text.strip('"'))
    forms = (unicodedata.normalize(form, name) for form in ("NFC", "NFD") for name in meant)
    ansi = text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")  # as Windows wrote texts
    for name in (*meant, *forms, ansi):
        if os.path.isfile(folder / name):
            return name
    return None if text.startswith("#") else text
