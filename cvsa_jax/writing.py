"""Files and folders that appear whole or not at all, if the program is killed while it writes them."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

PART = ".part"  # what the names of unfinished files and folders end in


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A place beside a path to write a file or a folder to; what is there at the end becomes the path."""
    part = path.with_name(f"{path.name}{PART}")
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


def clear(folder: pathlib.Path, below: Iterable[str]) -> None:
    """Remove the files that killed programs left half written in a folder, and anywhere below some of its folders."""
    for part in [*folder.glob(f"*{PART}"), *(p for name in below for p in (folder / name).rglob(f"*{PART}"))]:
        if part.is_file():  # a folder may be called so
            part.unlink()


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text file, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def write_npy(path: pathlib.Path, array: np.ndarray) -> None:
    """Write an array as a .npy file, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part, part.open("wb") as file:
        np.save(file, array)


def write_json(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Write plain JSON values for people and programs to read."""
    write_text(path, json.dumps(record, indent=1) + "\n")
