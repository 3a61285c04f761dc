"""Records of runs: versions, JSON and CSV files, the folders that jobs claim, the priors they share."""

import contextlib
import csv
import functools
import importlib.metadata
import io
import json
import os
import pathlib
import platform
from collections.abc import Iterable, Sequence

import jax

from cvsa_jax import checkpoints, writing
from cvsa_jax.jobs.folder_lock import NAME as LOCK
from cvsa_jax.jobs.folder_lock import FolderLock
from cvsa_jax.types import InputError
from cvsa_jax.version import __version__

# A comparison of finished jobs would spend its time on reading the same priors, of images and kernels, for each.
load_prior = functools.lru_cache(maxsize=3)(checkpoints.load_prior)


def versions() -> dict[str, str]:
    """Versions and hardware, for the record of a run."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    devices = jax.local_devices()
    hardware = f"{len(devices)} x {devices[0].device_kind}"
    if devices[0].platform == "cpu":
        hardware += f" ({os.cpu_count()} cores)"
    return {"cvsa_jax": __version__, "python": platform.python_version(), "hardware": hardware} | {
        name: importlib.metadata.version(name) for name in names
    }


def plain(record: dict) -> dict:
    """A record as JSON gives it back."""
    return json.loads(json.dumps(record, default=str))


def write_json(path: pathlib.Path, record: dict) -> None:
    """Write a record for people and programs to read."""
    writing.write_json(path, plain(record))


def read_json(path: pathlib.Path, way_out: str = "name another folder") -> dict:
    """A record that `write_json` wrote.

    Raises:
      InputError: if it is damaged; it says the way out.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError(f"it holds {record!r:.20}")
        return record
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); {way_out}") from error


def read_rows(path: pathlib.Path) -> list[dict]:
    """A CSV file's rows; none if it is not there. A row that was cut, as by a kill or a full disk, is none.

    Raises:
      InputError: if it is no text.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            text = file.read()
        whole = text[: text.rfind("\n") + 1]  # a last value without its newline may be a part of one
        return [row for row in csv.DictReader(io.StringIO(whole, "")) if None not in (*row, *row.values())]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is damaged ({error}); remove it, and its images are done again") from error


def write_rows(path: pathlib.Path, columns: Sequence[str], rows: Iterable[dict]) -> None:
    """Write a CSV file."""
    with writing.whole(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def claim_folder(folder: pathlib.Path, settings: dict) -> FolderLock:
    """Begin or continue a run in a folder; settings.json tells which. Release what it gives at the end.

    Raises:
      InputError: if the folder holds something else, cannot be written to, or another process writes to it.
    """
    path, settings = folder / "settings.json", plain(settings)
    if path.exists():
        if read_json(path).get("settings") != settings:
            raise InputError(f"--output={folder} holds a job with other settings; name another folder")
    elif folder.exists() and (not folder.is_dir() or any(p.name != LOCK for p in folder.iterdir())):
        raise InputError(f"--output={folder} is not an empty folder; name another")
    record = {"settings": settings, "versions": versions()}
    with writable(folder):
        lock = FolderLock(folder)
        write_json(path, record)
    return lock


@contextlib.contextmanager
def writable(folder: pathlib.Path):
    """Say by its flag that a folder cannot be written to."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot write to --output={folder}: {error.strerror or error}") from error
