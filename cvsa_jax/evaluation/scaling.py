"""Images a second of whole restorations over several devices, and of several processes that share the work."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from cvsa_jax.evaluation.hardware import as_mib
from cvsa_jax.evaluation.throughput import draw_images, rounded, span
from cvsa_jax.jobs import selection
from cvsa_jax.settings import text_of
from cvsa_jax.types import InputError

VIRTUAL = (1, 2, 4, 8)
ROOT = pathlib.Path(__file__).resolve().parents[2]  # where the package lies
_FORCED = "--xla_force_host_platform_device_count"


class Job(NamedTuple):
    """One process of `cvsa restore`: its flags, what its environment has beside this one's."""

    flags: Mapping[str, Any]
    environment: dict[str, str]


def default_counts() -> tuple[int, ...]:
    """Numbers of devices: of a CPU virtual ones, else the powers of two up to the number that is there."""
    if jax.default_backend() == "cpu":
        return VIRTUAL
    count = jax.local_device_count()
    return tuple(2**i for i in range(count.bit_length()) if 2**i <= count)


def check_counts(counts: Sequence[int]) -> None:
    """Raises ValueError if processes of their own cannot have so many devices."""
    if jax.default_backend() == "tpu":
        raise ValueError("--parts=devices,processes start processes, but this one holds the TPU: give other parts")
    if jax.default_backend() != "cpu" and max(counts) > jax.local_device_count():
        raise ValueError(f"--devices={text_of(tuple(counts))}: there are {jax.local_device_count()}")


def environment_of(numbers: Sequence[int], kept: bool) -> dict[str, str]:
    """What a process is told so that it sees some devices, by their numbers; of a CPU virtual ones, as many.

    kept: whether it takes programs that were kept from earlier runs.
    """
    found = {} if kept else {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    if jax.default_backend() == "cpu":
        others = re.sub(rf"{_FORCED}=\S*", "", os.environ.get("XLA_FLAGS", ""))
        return found | {"XLA_FLAGS": f"{others} {_FORCED}={len(numbers)}".strip()}
    seen = ",".join(map(str, numbers))
    names = ("JAX_CUDA_VISIBLE_DEVICES", "JAX_ROCM_VISIBLE_DEVICES")
    return found | dict.fromkeys(names, seen) | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # this process has some


def run(jobs: Sequence[Job], folder: pathlib.Path) -> list[float | None]:
    """Run some jobs at the same time; the peak of each process's memory, MiB, None where the system does not tell.

    Raises:
      InputError: if one fails, with its last line.
    """
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    started: list[subprocess.Popen] = []
    peaks: list[float | None] = []
    try:
        for number, job in enumerate(jobs):
            flags = [f"--{name}={text_of(v)}" for name, v in job.flags.items() if v is not None]
            with (folder / f"{number}.log").open("wb") as log:
                started.append(subprocess.Popen(
                    [sys.executable, "-m", "cvsa_jax", "restore", *flags], stdout=log, stderr=log,
                    env=os.environ | {"PYTHONPATH": path.rstrip(os.pathsep)} | job.environment,
                ))  # fmt: skip
        for number, process in enumerate(started):
            peaks.append(_wait(process))
            if process.returncode:
                lines = (folder / f"{number}.log").read_text(errors="replace").strip().splitlines()
                raise InputError(f"cvsa restore failed: {lines[-1] if lines else process.returncode}")
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
                process.wait()
    return peaks


def _wait(process: subprocess.Popen) -> float | None:
    """Wait for a process; the peak of its own memory."""
    if not hasattr(os, "wait4"):
        process.wait()
        return None
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return as_mib(usage.ru_maxrss)


def device_rows(
    given: Mapping[str, Any], task: str, counts: Sequence[int], batches: int, channels: int, kept: bool
) -> Iterator[dict[str, Any]]:
    """A row for each number of devices of one process, all with the same images and the same batch."""
    for count in counts:
        yield {"task": task, "devices": count} | _measured(given, task, [range(count)], batches, channels, kept)


def process_rows(
    given: Mapping[str, Any], task: str, counts: Sequence[int], batches: int, channels: int, kept: bool
) -> Iterator[dict[str, Any]]:
    """A row for each number of processes, each with as many images; they share the devices."""
    there = 1 if jax.default_backend() == "cpu" else jax.local_device_count()
    for count in counts:
        own = [range(i, there, count) if there >= count else range(there) for i in range(count)]
        yield {"task": task, "processes": count} | _measured(given, task, own, batches, channels, kept)


def _measured(
    given: Mapping[str, Any], task: str, devices: Sequence[Sequence[int]], batches: int, channels: int, kept: bool
) -> dict[str, Any]:
    """The figures of as many processes as there are entries in `devices`, each with a share of the images.

    `images_per_s` is the sum of what the processes do behind their first batches, in which all of them have
    compiled; `together` the share of that time in which all of them did.
    """
    size, count = given["batch_size"], len(devices)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        draw_images(folder / "in", batches * size * count, given["image_size"], channels)
        names = sorted(path.name for path in (folder / "in").iterdir())
        jobs = []
        for i, own in enumerate(devices):
            selection.write_list(folder / f"{i}.txt", names[i::count])
            places = {"input": folder / "in", "list": folder / f"{i}.txt", "output": folder / f"out{i}"}
            jobs.append(Job({**given, "task": task, **places}, environment_of(own, kept)))
        began = time.time()
        peaks = run(jobs, folder)
        spans = [span(folder / f"out{i}", size) for i in range(count)]
    known = [one.rate for one in spans if one.rate is not None]
    return {
        "batch_size": size,
        "images": len(names),
        "images_per_s": rounded(sum(known)) if len(known) == count else None,
        "together": rounded(overlap([(one.begin, one.end) for one in spans])),
        "start_s": rounded(max(one.begin for one in spans) - began),
        "whole_s": rounded(max(one.end for one in spans) - began),
        "process_peak_mib": max((p for p in peaks if p is not None), default=None),
    }


def overlap(spans: Sequence[tuple[float, float]]) -> float:
    """The share of the time that some (begin, end) cover together in which all of them run."""
    begins, ends = zip(*spans, strict=True)
    covered = max(ends) - min(begins)
    return max(0.0, min(ends) - max(begins)) / covered if covered > 0 else 1.0
