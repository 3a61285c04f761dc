"""Files and folders that appear whole or not at all, if the program is killed while it writes them."""

import contextlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A place beside a path to write a file or a folder to; what is there at the end becomes the path."""
    part = path.with_name(f"{path.name}.part")
    if part.is_dir():  # of a run that was killed
        shutil.rmtree(part)
    part.unlink(missing_ok=True)
    yield part
    os.replace(part, path)


def write_json(path: pathlib.Path, record: dict[str, Any]) -> None:
    """Write plain JSON values for people and programs to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_text(json.dumps(record, indent=1) + "\n")
