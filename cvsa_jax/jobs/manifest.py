"""The manifests of a folder of results: what happened to its images, a line of JSON each, of which all else is made.

Every process appends to a file of its own. Each line has `event`, `image` and `time`, in seconds since 1970:

    done    the image has all its files: `file` of the input, `kind` of images that share a program, `files` with their
            checksums (SHA-256), their `sizes` in bytes, `row` of metrics.csv, `residuals` of its samples and which
            were taken (`chosen`), `settings`, a digest of the job's, `warning`, what was known by then to look at,
            `origin`, digests of the files that it was made of, as `origins.of_image` has them
    failed  it could not be restored: `why`
    warned  its answer should be looked at: `text`
    again   what came before does not count: it failed, or its files are missing or damaged

A line that was cut, as by a kill, does not count.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cvsa_jax import writing
from cvsa_jax.jobs import records

DONE, FAILED, WARNED, AGAIN = "done", "failed", "warned", "again"
NAMES = re.compile(r"manifest(\.\d+-of-\d+)?\.jsonl")
# What is made of all images, beside the manifests.
SUMMARY, TABLES = "summary.json", ("metrics.csv", "residuals.csv", "files.csv")
ACCOUNT = (SUMMARY, *TABLES)
RESIDUALS, FILES = ("image", "sample", "residual", "chosen"), ("image", "file")
# A disk answers several questions at once, and checksums are computed outside Python's lock.
THREADS = 16


@dataclasses.dataclass
class Account:
    """What the manifests say of the images now, by name: the line of each that is done; failures; warnings."""

    done: dict[str, dict] = dataclasses.field(default_factory=dict)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    warnings: dict[str, str] = dataclasses.field(default_factory=dict)
    last: float = 0.0  # time of the last line

    def take(self, line: dict[str, Any]) -> None:
        """Count one more line."""
        event, name = line["event"], line["image"]
        self.last = max(self.last, line["time"])
        if event == AGAIN:
            for table in (self.done, self.failures, self.warnings):
                table.pop(name, None)
        elif event == DONE:
            self.done[name] = line
            self.failures.pop(name, None)
            self._warn(name, line["warning"])
        elif event == FAILED and name not in self.done:
            self.failures[name] = line["why"]
        elif event == WARNED:
            self._warn(name, line["text"])

    def _warn(self, name: str, text: str | None) -> None:
        if (all_of := joined(self.warnings.get(name), text)) is not None:
            self.warnings[name] = all_of

    def line(self, event: str, name: str, **facts) -> dict[str, Any]:
        """A line that comes after all that are known, whatever the clocks of other machines say."""
        return {"event": event, "image": name, "time": max(time.time(), self.last + 1e-3), **facts}


def joined(*warnings: str | None) -> str | None:
    """The warnings of one image as one text, none said twice; None of none."""
    found = ""
    for text in filter(None, warnings):
        if text not in found:
            found = text if found in text else f"{found}; {text}"
    return found or None


def files(folder: pathlib.Path) -> list[pathlib.Path]:
    """The manifests of a folder."""
    return sorted(path for path in folder.glob("manifest*.jsonl") if NAMES.fullmatch(path.name))


def read(folder: pathlib.Path) -> Account:
    """What all manifests of a folder say."""
    lines = [line for path in files(folder) for line in map(_parsed, path.read_bytes().split(b"\n")[:-1]) if line]
    account = Account()
    for line in sorted(lines, key=lambda line: line["time"]):
        account.take(line)
    return account


def named(folder: pathlib.Path, account: Account) -> dict[str, str]:
    """The input file of each name: as files.csv has it and, before it, the lines of what is done."""
    told = {row["image"]: row["file"] for row in records.read_rows(folder / "files.csv") if {*row} == {*FILES}}
    return told | {name: line["file"] for name, line in account.done.items() if line["file"]}


def _parsed(text: bytes) -> dict | None:
    """A line, if it is whole."""
    try:
        line = json.loads(text)
        needed = {
            DONE: ("file", "files", "row", "residuals", "settings", "warning"),
            FAILED: ("why",),
            WARNED: ("text",),
        }
        names = ("image", "time", *needed.get(line["event"], ()))
        return line if all(name in line for name in names) else None
    except (ValueError, TypeError, KeyError):
        return None


class Manifest:
    """The manifest of one writer, which appends to it.

    Args:
      path: of the file, made if it is not there; a last line that was cut is removed. first: lines that it begins
        with if it is new: all of them or none.
    """

    def __init__(self, path: pathlib.Path, first: Iterable[dict] = ()):
        if not path.exists():
            writing.write_text(path, _text(first))
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)
        self._file = path.open("ab", buffering=0)

    def append(self, *lines: dict) -> None:
        """Write some lines, to the disk itself; where that fails, none of them.

        Raises:
          OSError: if they cannot be written.
        """
        size, rest = os.fstat(self._file.fileno()).st_size, memoryview(_text(lines).encode())
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except BaseException:
            os.truncate(self._file.fileno(), size)
            raise

    def close(self) -> None:
        """Write no more."""
        self._file.close()


def _text(lines: Iterable[dict]) -> str:
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def digest_of(settings: Mapping[str, Any]) -> str:
    """Of the settings of a job: the same if and only if they are, but for the tile, which is settled later."""
    text = json.dumps({name: value for name, value in settings.items() if name != "tile"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def checksum(path: pathlib.Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damaged(folder: pathlib.Path, lines: Iterable[dict]) -> dict[str, str]:
    """Of images that are done: a file of each that is missing, or is not what was written."""
    checks = [(line["image"], file, found) for line in lines for file, found in line["files"].items()]

    def sound(check: tuple[str, str, str]) -> bool:
        try:
            return checksum(folder / check[1]) == check[2]
        except OSError:
            return False

    with ThreadPoolExecutor(THREADS) as pool:
        return {name: file for (name, file, _), good in zip(checks, pool.map(sound, checks), strict=True) if not good}


def adopted(
    folder: pathlib.Path, columns: Iterable[str], named: Mapping[str, str], warnings: Mapping[str, str], settings: str
) -> list[dict]:
    """The lines of what a version without manifests did, of its tables; it took no checksums.

    Args:
      columns: of metrics.csv. named: the input file by name. warnings: by name. settings: their digest.
    """
    columns, residuals = [*columns], defaultdict(list)
    for row in records.read_rows(folder / "residuals.csv"):
        if {*row} == {*RESIDUALS} and _sound(row["residual"]):
            residuals[row["image"]].append([float(row["residual"]), row["chosen"] == "yes"])
    lines = []
    for row in records.read_rows(folder / "metrics.csv"):
        if {*row} == {*columns} and all(_sound(row[name]) for name in columns[1:]):
            name = row.pop("image")
            facts = {"file": named.get(name, ""), "files": {}, "row": row, "residuals": residuals[name]}
            facts |= {"warning": warnings.get(name), "settings": settings}
            lines.append({"event": DONE, "image": name, "time": 0.0, **facts})
    return lines


def _sound(text: str) -> bool:
    """Whether a cell of a table is a number, or empty."""
    try:
        float(text or 0)
    except ValueError:
        return False
    return True
