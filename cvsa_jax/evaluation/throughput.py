"""Images a second of whole restorations: reading, measuring, restoring and writing, as `cvsa restore` does."""

import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.fft

from cvsa_jax.evaluation.hardware import device_peak_mib, process_peak_mib
from cvsa_jax.images import save_image
from cvsa_jax.jobs import prepare, records, resolve
from cvsa_jax.types import InputError


def draw_images(folder: pathlib.Path, count: int, side: int, channels: int) -> None:
    """Write 0000.png, 0001.png, ...: fields whose amplitude falls as one over the frequency, as that of photographs.

    Their content does not matter to the time of a step; it does to that of compressing them.
    """
    generator = np.random.default_rng(0)
    frequency = 1 + np.add.outer(np.arange(side), np.arange(side))[..., None]
    for number in range(count):
        coefficients = generator.normal(size=(side, side, channels)) / frequency
        field = np.asarray(scipy.fft.idctn(coefficients, axes=(0, 1), norm="ortho"))
        save_image(folder / f"{number:04d}.png", np.clip(field / (3 * field.std()), -1, 1))


class Span(NamedTuple):
    """A job from its first restored batch, by when its programs are compiled, to its last file.

    begin, end: seconds since the epoch. images: of the job. behind: of them, those behind the first batch.
    """

    begin: float
    end: float
    images: int
    behind: int

    @property
    def rate(self) -> float | None:
        """Images a second behind the first batch; None where nothing comes behind it."""
        return self.behind / (self.end - self.begin) if self.behind and self.end > self.begin else None


def span(output: pathlib.Path, batch_size: int) -> Span:
    """That of a job's only run, of what its summary says.

    When a picture is written would not do for the beginning: the thread that writes may wait for the devices.
    """
    took = records.read_json(output / "summary.json", "restore anew")["performance"]
    end = max(path.stat().st_mtime_ns / 1e9 for path in (output / "restored").iterdir())
    begin = end - (took["seconds"] - took["first_batch_seconds"])
    return Span(begin, end, took["images"], max(0, took["images"] - batch_size))


def rounded(value: float | None, digits: int = 3) -> float | None:
    """A figure as records have it."""
    return None if value is None else round(value, digits)


def throughput_rows(
    given: Mapping[str, Any], tasks: Sequence[str], batch_sizes: Sequence[int], batches: int, channels: int
) -> Iterator[dict[str, Any]]:
    """A row for each task and batch size.

    Args:
      given: what all jobs are given, as `cvsa restore` takes it. batches: in each job. channels: of the images.

    `start_s` is until the first batch is restored. The peaks of memory are those of the process until then.

    Raises:
      InputError: if an image is not restored.
    """
    for task in tasks:
        for size in batch_sizes:
            with tempfile.TemporaryDirectory() as name:
                folder = pathlib.Path(name)
                draw_images(folder / "in", batches * size, given["image_size"], channels)
                own = {"task": task, "input": str(folder / "in"), "output": str(folder / "out"), "batch_size": size}
                began = time.time()
                prepared = prepare(resolve({**given, **own}))
                prepared.run()
                for failed, why in prepared.failures.items():
                    raise InputError(f"{task}: {failed} was not restored: {why}")
                found = span(folder / "out", size)
            yield {
                "task": task,
                "batch_size": size,
                "images": found.images,
                "images_per_s": rounded(found.rate),
                "start_s": rounded(found.begin - began),
                "whole_s": rounded(found.end - began),
                "process_peak_mib": process_peak_mib(),
                "device_peak_mib": device_peak_mib(),
            }
