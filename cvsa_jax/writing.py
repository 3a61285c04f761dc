"""Files and folders that appear whole or not at all, if the program is killed while it writes them."""

import contextlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Sequence
from typing import Any


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A place beside a path to write a file or a folder to; what is there at the end becomes the path."""
    part = path.with_name(f"{path.name}.part")
    _remove(part)  # of a run that was killed
    try:
        yield part
        os.replace(part, path)
    except BaseException as error:
        _remove(part)
        if isinstance(error, OSError) and error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error  # which a full disk does not say
        raise


def _remove(part: pathlib.Path) -> None:
    if part.is_dir():
        shutil.rmtree(part)
    part.unlink(missing_ok=True)


@contextlib.contextmanager
def all_or_none(folder: pathlib.Path, name: str, tables: Sequence[pathlib.Path]) -> Iterator[None]:
    """Write the files `folder/KIND/NAME.*` and rows of tables; if that fails, the files go and the tables are cut back.

    Args:
      folder: of them all. name: of the files, perhaps with folders; those in `samples` have a number behind it.
      tables: files that rows are appended to.
    """
    sizes = {table: table.stat().st_size for table in tables}
    try:
        yield
    except BaseException:
        for table, size in sizes.items():
            os.truncate(table, size)
        for kind in (k for k in folder.iterdir() if k.is_dir()):
            place = (kind / name).parent
            for file in place.iterdir() if place.is_dir() else ():
                rest = file.name.removeprefix(pathlib.PurePath(name).name)
                if re.fullmatch(r"(_\d+)?\.\w+(\.part)?" if kind.name == "samples" else r"\.\w+(\.part)?", rest):
                    file.unlink()
        raise


def write_json(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Write plain JSON values for people and programs to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
