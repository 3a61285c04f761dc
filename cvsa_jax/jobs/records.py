"""Records of runs: versions, JSON and CSV files, the folders that jobs claim, the priors they share."""

import csv
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
from collections.abc import Iterable, Sequence

import jax

from cvsa_jax import checkpoints, writing
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


def read_json(path: pathlib.Path) -> dict:
    """A record that `write_json` wrote.

    Raises:
      InputError: if it is damaged.
    """
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); name another folder or give --overwrite") from error


def read_rows(path: pathlib.Path) -> list[dict]:
    """A CSV file's rows; none if it is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: pathlib.Path, columns: Sequence[str], rows: Iterable[dict]) -> None:
    """Write a CSV file."""
    with writing.whole(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def claim_folder(folder: pathlib.Path, settings: dict) -> None:
    """Begin or continue a run in a folder; settings.json tells which.

    Raises:
      InputError: if the folder holds something else.
    """
    path, settings = folder / "settings.json", plain(settings)
    if path.exists():
        if read_json(path).get("settings") != settings:
            raise InputError(f"--output={folder} holds a job with other settings; name another folder")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"--output={folder} is not an empty folder; name another")
    write_json(path, {"settings": settings, "versions": versions()})
