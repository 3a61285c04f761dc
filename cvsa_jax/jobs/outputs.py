"""What a restoration job writes: pictures, metrics, the record of its settings."""

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from cvsa_jax import measures
from cvsa_jax.jobs import buckets, grid, origins, pairing, places, records
from cvsa_jax.jobs.bundle import Bundle
from cvsa_jax.jobs.inputs import Measured
from cvsa_jax.jobs.ledger import Ledger
from cvsa_jax.jobs.settings import RestorationJob, command
from cvsa_jax.jobs.shards import Writer, writer_of
from cvsa_jax.measures import Case
from cvsa_jax.operators import known_pixels
from cvsa_jax.presets import MEAN

# The folders of pictures that a job writes.
KINDS = ("restored", "measurement", "truth", "operator", "kernel", "samples", "deviation", "aligned")


class Restored(NamedTuple):
    """What the loop found for one image.

    samples: (N, H, W, C). residuals: (N,). kernel: (K, K) of a blind task, else None. seconds: of the
    loop. evaluations: of the network.
    """

    samples: np.ndarray
    residuals: np.ndarray
    kernel: np.ndarray | None
    seconds: float
    evaluations: int


def upsample(measurement: np.ndarray, image_shape: tuple[int, ...], factor: int) -> np.ndarray:
    """A smaller measurement at the image's size, bicubically; one of the same size as it is."""
    if factor == 1:
        return measurement
    height, width, channels = measurement.shape
    large = jax.image.resize(measurement, (height * factor, width * factor, channels), "cubic")
    return np.asarray(large)[: image_shape[0], : image_shape[1]]


class Results:
    """The output folder of one job: begun, continued, or refused if it holds another job.

    One thread may write images while others warn.

    Args:
      job: its settings. sampled: whether the samples are posterior samples, whose deviation means something.
      writer: which part of the folder this process writes; by default that of `--shard` and of this process.

    Raises:
      InputError: if the folder holds something else.
    """

    def __init__(self, job: RestorationJob, sampled: bool, writer: Writer | None = None):
        self.place = place = places.place_of(str(job.job.output), job.job.overwrite)
        self.folder = folder = place.folder
        self.writer = writer or writer_of(job.job.shard)
        self._task, self._mean = job.task, job.method.combine == MEAN
        self._form, self._bucket = job.job.format, job.job.bucket
        self._keeps = pairing.keeps(self._task, job.job.keep_known, job.job.measured)
        self._sampled = self._mean and sampled  # of other chains a deviation would only mislead
        self._measures = measures.columns(self._task, job.job.measured)
        self._report, new = job.job.report, job.job.overwrite
        settings = records.plain(job.record())
        self._ledger = Ledger(folder, self._measures, settings, new, self.writer, KINDS, place.damaged)
        self._names: list[str] = []
        self.tile: int | None = self._ledger.settings["tile"]  # that of an earlier run, where this one gives none
        self._agreed = functools.partial(origins.agreed, folder, job, origins.of_job(job))
        self._record = {"versions": records.versions(), "made_of": self._agreed()}
        self.settle(job)

    @property
    def kinds(self) -> Counter[str]:
        """How many images of each kind, as `buckets.kind_of` has it, this process's part of the job has done."""
        return self._ledger.kinds

    @property
    def rows(self) -> list[dict]:
        """Of metrics.csv, one for each image that is done."""
        return self._ledger.rows

    @property
    def files(self) -> Mapping[str, str]:
        """The input of each name that is known."""
        return self._ledger.files

    @property
    def done(self) -> set[str]:
        """Names of the images that are done, and whose files are whole where they are of this shard."""
        return self._ledger.done

    @property
    def damaged(self) -> dict[str, str]:
        """By the name of an image of this shard that was done: a file that is missing, or not what was written."""
        return self._ledger.damaged

    def expect(self, files: Mapping[str, str]) -> None:
        """Tell all images of the job, of every shard: the input of each name."""
        self._names = [*files]
        self._ledger.files.update(files)

    def settle(self, job: RestorationJob) -> None:
        """Record the job as it runs: with the tile that was found for its images."""
        whole = dataclasses.replace(job, job=dataclasses.replace(job.job, shard=None))
        settings = records.plain(job.record())
        if settings["tile"] is None:
            settings["tile"] = self.tile
        self._record |= {"settings": settings, "command": command(whole)}

    def begin(self) -> None:
        """Write the settings and the tables so far; nothing is written before this.

        Raises:
          InputError: if the folder cannot be written to, or another job writes to it.
        """
        if self.writer.makes_tables:
            self._record["made_of"] = self._agreed()  # another shard may have begun meanwhile
            self._ledger.begin(self._record)
            self.place.begin(self.writer.manifest, KINDS)
        self.writer.meet("begins")
        if not self.writer.makes_tables:
            self.place.gather()
            self._ledger.join()

    def warn(self, name: str, text: str) -> None:
        """Keep what an image's answer should be looked at for, at once: a job may be stopped."""
        self._ledger.warn(name, text)
        self.place.note()

    def residual(self, residuals: np.ndarray) -> float:
        """Of the answer: the mean over the samples (N,) that it is made of, or that of the chosen one."""
        return float(residuals.mean() if self._mean else residuals.min())

    def write(self, measured: Measured, found: Restored, warning: str | None = None) -> None:
        """All files and the metrics of one image, or none of them.

        Args:
          measured, found: of the image. warning: what its answer should be looked at for; what is given to `warn`
            later may be lost by a kill in between.

        Raises:
          OSError: if one cannot be written.
        """
        best = int(np.argmin(found.residuals))
        residuals = [(float(f"{r:.6g}"), self._mean or i == best) for i, r in enumerate(found.residuals)]
        with Bundle(self.folder, measured.entry.name) as bundle:
            row = self._write(bundle, measured, found, best)
            kind = str(buckets.kind_of(measured.entry, self._bucket))
            files, sizes = bundle.checksums(), bundle.sizes()
            self.place.keep(files)
            self._ledger.add(measured.entry.name, kind, files, row, residuals, warning, sizes, measured.origin)
        self.place.note()

    def _write(self, bundle: Bundle, measured: Measured, found: Restored, best: int) -> dict[str, str]:
        """Its files; the row of metrics.csv."""
        samples, carried = found.samples, measured.carried
        estimate = samples.mean(0) if self._mean else samples[best]
        if self._keeps:
            estimate = known_pixels.put_back(
                estimate, measured.measurement, known_pixels.seen_pixels(measured.operator)
            )
        bundle.picture("restored", estimate, self._form, carried)
        self._write_measurement(bundle, measured.measurement)
        if measured.truth is not None or not self._task.blind:  # else nobody knows it, and it was drawn for nothing
            bundle.operator("operator", measured.operator)
        if found.kernel is not None:
            bundle.kernel("kernel", found.kernel)
        if len(samples) > 1:
            for i, sample in enumerate(samples):
                bundle.picture("samples", sample, self._form, carried, f"_{i:02d}")
            if self._sampled:
                bundle.picture("deviation", 4 * samples.std(0, ddof=1) - 1)
        if measured.truth is not None:
            bundle.picture("truth", measured.truth)
        case = self._case(measured, found, estimate)
        if measured.truth is not None and measures.has_freedom(self._task):
            bundle.picture("aligned", case.aligned)
        figures = measures.compute(case, self._measures)
        return {k: f"{v:.4f}" if isinstance(v, float) else str(v) for k, v in figures.items()}

    def _case(self, measured: Measured, found: Restored, estimate: np.ndarray) -> Case:
        shown = None
        if self._task.picture and measured.truth is not None:
            shown = upsample(measured.measurement, measured.entry.shape, self._task.factor)
        return Case(
            self._task, measured.truth, estimate, shown, found.kernel,
            None if found.kernel is None else measured.operator.blur_kernel(), self.residual(found.residuals),
            found.seconds, found.evaluations, measured.noise_std,
        )  # fmt: skip

    def _write_measurement(self, bundle: Bundle, y: np.ndarray) -> None:
        """As a picture; of measurements that are none scaled, of transforms on a logarithmic scale, and as an array."""
        if self._task.picture:
            bundle.picture("measurement", y)
            return
        transformed = np.iscomplexobj(y) or not self._task.linear
        level = np.log(np.maximum(np.abs(y), 1e-3)) if transformed else y
        bundle.picture("measurement", 2 * (level - level.min()) / max(np.ptp(level), 1e-6) - 1)
        bundle.array("measurement", y)

    def means(self) -> dict[str, float]:
        """The mean of each measure over the images that have it (infinite PSNR counts not)."""
        table = {c: [float(r[c]) for r in self.rows if r.get(c)] for c in self._measures}
        finite = {c: [v for v in values if math.isfinite(v)] for c, values in table.items()}
        return {c: float(np.mean(values)) for c, values in finite.items() if values}

    def finish(
        self, failures: Mapping[str, str], performance: Mapping[str, Any] | None = None,
        last: Callable[[], object] = lambda: None,
    ) -> None:  # fmt: skip
        """Make the tables, summary.json and grid.png of all that is done in the folder, by whatever shard.

        Args:
          failures: why images of this process could not be restored, by name. performance: what this run took.
          last: what else to make of the files; no other shard does so while it runs.
        """
        self._ledger.close(failures)
        self.place.flush(self.writer.manifest)
        self.writer.meet("ends")
        self.place.gather()
        if not self.writer.makes_tables:
            self._ledger.read_again()
        else:
            with self._ledger.tables():
                self._summarise({} if performance is None else {"performance": dict(performance)})
                self.place.open_pictures(self._report)
                grid.draw(self.folder, [row["image"] for row in self.rows], self._task.blind)
                last()
                self.place.end()
        self._ledger.release()

    def _summarise(self, more: Mapping[str, Any]) -> None:
        rows, failures = self.rows, self._ledger.failures(self._names)
        gone = {row["image"] for row in rows} | failures.keys()
        missing = [name for name in self._names if name not in gone]
        record = self._record | {"images": len(rows), "means": self.means(), "failures": failures}
        record["missing"] = {"count": len(missing), "names": missing}
        if "noise_std" in self._measures:
            record["noise_std"] = {r["image"]: float(r["noise_std"]) for r in rows if r["noise_std"]}
        self._ledger.summarise(record | dict(more))
