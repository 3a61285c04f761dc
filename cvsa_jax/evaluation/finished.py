"""A finished restoration job, read back from its folder once."""

import functools
import pathlib

import numpy as np

from cvsa_jax.jobs.records import read_json, read_rows
from cvsa_jax.measures import column_of
from cvsa_jax.operators import Task, find_task
from cvsa_jax.pictures import formats
from cvsa_jax.types import InputError


class FinishedJob:
    """What a job of `cvsa restore` wrote.

    Args:
      folder: its output.

    Raises:
      InputError: if it holds no job.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        try:
            self.record = read_json(folder / "summary.json", "give the job's command again, with --overwrite")
            self.settings: dict = self.record["settings"]
            self.task: Task = find_task(self.settings["task"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{folder} holds no finished job of cvsa restore: {error}") from error

    @functools.cached_property
    def rows(self) -> list[dict]:
        """Of metrics.csv, one for each image."""
        return read_rows(self.folder / "metrics.csv")

    @property
    def names(self) -> list[str]:
        """Of its images."""
        return [row["image"] for row in self.rows]

    @property
    def failures(self) -> dict[str, str]:
        """The reason by name of the images that failed."""
        return self.record.get("failures", {})

    @property
    def note(self) -> str:
        """How many images failed, and why the first did; empty if none did."""
        if not self.failures:
            return ""
        why = next(iter(self.failures.values())).split(";")[0]
        return f"{len(self.failures)} of {len(self.failures) + len(self.rows)} images failed: {why}"

    def figures(self, measure: str) -> list[float]:
        """A measure of every image, by the column that judges the task; what is not there is not a number."""
        column = column_of(measure, self.task)
        return [float(row.get(column) or "nan") for row in self.rows]

    @property
    def kind(self) -> str:
        """Which pictures it is judged by: aligned ones where the task leaves a trivial freedom of the image itself."""
        return "aligned" if self.task.ambiguous else "restored"

    def picture(self, kind: str, name: str) -> pathlib.Path:
        """The file of one picture, of any form."""
        return formats.find_picture(self.folder / kind, name)

    def image(self, kind: str, name: str, channels: int | None = None) -> np.ndarray:
        """One picture in [-1, 1]; channels: the number to have, if not that of the file."""
        return formats.read_back(self.picture(kind, name), channels)

    def pairs(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """(truth, restoration) of every image."""
        truths = {name: self.image("truth", name) for name in self.names}
        return [(truth, self.image(self.kind, name, truth.shape[-1])) for name, truth in truths.items()]
