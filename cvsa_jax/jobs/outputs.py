"""What a restoration job writes: pictures, metrics, the record of its settings."""

import math
import pathlib
from typing import NamedTuple

import jax
import numpy as np

from cvsa_jax import images, measures, operators, plots
from cvsa_jax.jobs import pairing, records
from cvsa_jax.jobs.inputs import Measured
from cvsa_jax.jobs.ledger import Ledger
from cvsa_jax.jobs.settings import RestorationJob, command
from cvsa_jax.measures import Case
from cvsa_jax.operators import known_pixels
from cvsa_jax.operators.base import kernel_picture
from cvsa_jax.pictures import formats
from cvsa_jax.presets import MEAN

GRID_IMAGES, GRID_SIDE = 32, 512
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


def save_operator(folder: pathlib.Path, name: str, operator: operators.Operator) -> None:
    """An operator as `NAME.npz`, its picture as `NAME.png`, and a kernel as `NAME.npy`."""
    operators.save_operator(folder / f"{name}.npz", operator)
    picture, kernel = operator.picture(), operator.blur_kernel()
    if picture is not None:
        images.save_image(folder / f"{name}.png", picture)
    if kernel is not None:
        np.save(folder / f"{name}.npy", kernel)


def save_kernel(folder: pathlib.Path, name: str, kernel: np.ndarray) -> None:
    """A kernel as `NAME.npy` and, scaled to its maximum, `NAME.png`."""
    images.save_image(folder / f"{name}.png", kernel_picture(kernel))
    np.save(folder / f"{name}.npy", kernel)


class Results:
    """The output folder of one job: begun, continued, or refused if it holds another job.

    Args:
      job: its settings. sampled: whether the samples are posterior samples, whose deviation means something.

    Raises:
      InputError: if the folder holds something else.
    """

    def __init__(self, job: RestorationJob, sampled: bool):
        self.folder = folder = pathlib.Path(str(job.job.output))
        self._task, self._mean = job.task, job.method.combine == MEAN
        self._form = job.job.format
        self._keeps = pairing.keeps(self._task, job.job.keep_known, job.job.measured)
        # The deviation of chains that are no samples of the posterior would only mislead.
        self._sampled = self._mean and sampled
        self._measures = measures.columns(self._task, job.job.measured)
        settings = records.plain(job.record())
        self._ledger = Ledger(folder, self._measures, settings, job.job.overwrite)
        self.tile: int | None = self._ledger.settings["tile"]  # that of an earlier run, where this one gives none
        self._record = {"settings": self._ledger.settings, "command": command(job), "versions": records.versions()}

    @property
    def rows(self) -> list[dict]:
        """Of metrics.csv, one for each image that is done."""
        return self._ledger.rows

    @property
    def files(self) -> dict[str, str]:
        """The input of each name; it grows with the images of the job."""
        return self._ledger.files

    def settle(self, job: RestorationJob) -> None:
        """Record the job as it runs: with the tile that was found for its images."""
        self._record |= {"settings": records.plain(job.record()), "command": command(job)}

    @property
    def done(self) -> set[str]:
        """Names of the images that an earlier run of the same job finished."""
        return self._ledger.done

    def begin(self) -> None:
        """Write the settings and the metrics so far; nothing is written before this.

        Raises:
          InputError: if the folder cannot be written to, or another job writes to it.
        """
        self._ledger.begin(self._record, KINDS)

    def warn(self, name: str, text: str) -> None:
        """Keep what an image's answer should be looked at for, in summary.json at once: a job may be stopped."""
        self._ledger.warn(name, text, self._record)

    def residual(self, residuals: np.ndarray) -> float:
        """Of the answer: the mean over the samples (N,) that it is made of, or that of the chosen one."""
        return float(residuals.mean() if self._mean else residuals.min())

    def write(self, measured: Measured, found: Restored) -> None:
        """All files and the metrics of one image, or none of them.

        Raises:
          OSError: if one cannot be written.
        """
        with self._ledger.all_or_none(measured.entry.name):
            self._write(measured, found)

    def _write(self, measured: Measured, found: Restored) -> None:
        name, samples = measured.entry.name, found.samples
        best = int(np.argmin(found.residuals))
        estimate = samples.mean(0) if self._mean else samples[best]
        if self._keeps:
            estimate = known_pixels.put_back(
                estimate, measured.measurement, known_pixels.seen_pixels(measured.operator)
            )
        formats.write_picture(self.folder / "restored", name, estimate, self._form, measured.carried)
        self._write_measurement(measured)
        if measured.truth is not None or not self._task.blind:  # else nobody knows it, and it was drawn for nothing
            save_operator(self.folder / "operator", name, measured.operator)
        if found.kernel is not None:
            save_kernel(self.folder / "kernel", name, found.kernel)
        if len(samples) > 1:
            for i, sample in enumerate(samples):
                formats.write_picture(self.folder / "samples", f"{name}_{i:02d}", sample, self._form, measured.carried)
            if self._sampled:
                images.save_image(self.folder / "deviation" / f"{name}.png", 4 * samples.std(0, ddof=1) - 1)
        self._ledger.add_residuals(name, found.residuals, [self._mean or i == best for i in range(len(samples))])
        if measured.truth is not None:
            images.save_image(self.folder / "truth" / f"{name}.png", measured.truth)
        self._add(name, self._case(measured, found, estimate))

    def _case(self, measured: Measured, found: Restored, estimate: np.ndarray) -> Case:
        shown = None
        if self._task.picture and measured.truth is not None:
            shown = upsample(measured.measurement, measured.entry.shape, self._task.factor)
        return Case(
            self._task, measured.truth, estimate, shown, found.kernel,
            None if found.kernel is None else measured.operator.blur_kernel(), self.residual(found.residuals),
            found.seconds, found.evaluations, measured.noise_std,
        )  # fmt: skip

    def _write_measurement(self, measured: Measured) -> None:
        """As a picture; of measurements that are none scaled, of transforms on a logarithmic scale, and as an array."""
        path, y = self.folder / "measurement" / f"{measured.entry.name}.png", measured.measurement
        if self._task.picture:
            images.save_image(path, y)
            return
        transformed = np.iscomplexobj(y) or not self._task.linear
        level = np.log(np.maximum(np.abs(y), 1e-3)) if transformed else y
        images.save_image(path, 2 * (level - level.min()) / max(np.ptp(level), 1e-6) - 1)
        np.save(path.with_suffix(".npy"), y)

    def _add(self, name: str, case: Case) -> None:
        found = measures.compute(case, self._measures)
        if case.truth is not None and measures.has_freedom(self._task):
            images.save_image(self.folder / "aligned" / f"{name}.png", case.aligned)
        figures = {k: f"{v:.4f}" if isinstance(v, float) else str(v) for k, v in found.items()}
        self._ledger.add({"image": name} | figures)

    def means(self) -> dict[str, float]:
        """The mean of each measure over the images that have it (infinite PSNR counts not)."""
        table = {c: [float(r[c]) for r in self.rows if r.get(c)] for c in self._measures}
        finite = {c: [v for v in values if math.isfinite(v)] for c, values in table.items()}
        return {c: float(np.mean(values)) for c, values in finite.items() if values}

    def finish(self, failures: dict[str, str], performance: dict | None = None) -> None:
        """Complete summary.json and draw grid.png from the files; performance: what the last run took."""
        record = self._record | {"images": len(self.rows), "means": self.means(), "failures": failures}
        record |= {} if performance is None else {"performance": performance}
        if "noise_std" in self._measures:
            record["noise_std"] = {r["image"]: float(r["noise_std"]) for r in self.rows if r["noise_std"]}
        self._ledger.finish(record)
        names = [row["image"] for row in self.rows][:GRID_IMAGES]
        if names:
            self._grid(names)
        self._ledger.release()

    def _grid(self, names: list[str]) -> None:
        """Truth, measurement, restoration and what else there is of each image, side by side."""
        files = {"truth": "{}", "measurement": "{}", "restored": "{}", "aligned": "{}", "samples": "{}_00"}
        files |= {"operator": "{}", "kernel": "{}"} if self._task.blind else {}
        files = {k: f for k, f in files.items() if formats.find_picture(self.folder / k, f.format(names[0])).exists()}
        titles = {"samples": "one chain", "operator": "its kernel", "kernel": "kernel found"}
        kinds = [titles.get(k, k) for k in files]
        blocks = math.ceil(len(names) / 8)
        rows = [[] for _ in range(math.ceil(len(names) / blocks))]
        for i, name in enumerate(names):
            pictures = [self._read(kind, form.format(name)) for kind, form in files.items()]
            side = max(picture.shape[0] for picture in pictures)
            rows[i // blocks] += [plots.magnified(x, side) for x in pictures]
        side = max(max(picture.shape[:2]) for row in rows for picture in row)
        plots.save_grid(self.folder / "grid.png", rows, kinds * blocks, scale=max(1, 128 // side))

    def _read(self, kind: str, name: str) -> np.ndarray:
        """A picture for the grid, photographs reduced."""
        picture = formats.read_back(formats.find_picture(self.folder / kind, name))
        return images.reduced(picture, GRID_SIDE)
