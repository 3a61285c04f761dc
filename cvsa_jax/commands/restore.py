"""Restore photographs: degrade clean ones and restore them, or restore measured ones.

    cvsa restore --task=motion_deblur --input=FOLDER --output=results/motion
    cvsa restore --task=sr4 --measured --input=small.png --output=results/mine

The same command given again continues a job that was stopped. A flag that the task, the noise or the method
does not use is refused.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from cvsa_jax import measures, remote
from cvsa_jax.commands import require_images
from cvsa_jax.commands.flags import Groups
from cvsa_jax.evaluation import report
from cvsa_jax.jobs import prepare, resolve
from cvsa_jax.jobs.listing import listing
from cvsa_jax.jobs.methods import METHODS
from cvsa_jax.jobs.run import Runnable
from cvsa_jax.jobs.settings import JobSettings, belongs, known
from cvsa_jax.processes import PROCESSES, ProcessSettings
from cvsa_jax.settings import Settings, fields, setting
from cvsa_jax.types import Stopped, UnsuitableError

__all__ = ["belongs", "check", "groups"]


@dataclasses.dataclass(frozen=True)
class ListSettings(Settings):
    """What is no job."""

    list_tasks: bool = setting(False, "Print the tasks with their settings and presets, and stop.")


def groups() -> Groups:
    """The verb's flags."""
    return known() | {"Processes": (PROCESSES, fields(ProcessSettings)), "Help": ("", fields(ListSettings))}


def check(given: dict[str, Any]) -> Callable[[], None]:
    """The job, which exits with 1 if an image failed."""
    if given.pop("list_tasks", False):
        return lambda: print(listing())
    try:
        prepared = prepare(resolve(given))
    except UnsuitableError as error:
        method = METHODS[given.get("method", JobSettings.method)].label
        raise ValueError(f"{method} cannot do {given.get('task')}: {error}") from error

    def work() -> None:
        try:
            prepared.run(lambda: make_report(prepared))
        except Stopped as stop:
            print(stop)
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(prepared.command) from stop
        close(prepared)

    return work


def make_report(prepared: Runnable) -> None:
    """Write the page of all that is done, if it is asked for."""
    if prepared.job.job.report and prepared.results.rows:
        report.job_report(prepared.results.folder)


def close(prepared: Runnable) -> None:
    """The closing lines, and exit code 1 if an image failed."""
    results, failures, job = prepared.results, prepared.failures, prepared.job
    lines = measures.closing_lines(job.task, results.means())
    count = f"{len(results.rows)} image{'' if len(results.rows) == 1 else 's'}"
    for i, line in enumerate(lines):
        print(line if i else f"{job.job.task}: {count}, {line}")
    if results.rows:  # else there is none
        print(remote.shown(f"pictures: {results.folder / 'grid.png'}, {results.folder / 'restored'}"))
    if job.job.report and results.rows:
        print(remote.shown(f"report: {results.folder / 'report.html'}"))
    require_images({remote.shown(str(results.folder)): len(failures)})
