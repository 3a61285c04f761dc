"""What a restoration job writes: pictures, metrics, the record of its settings."""

import csv
import json
import math
import pathlib
from typing import NamedTuple

import jax
import numpy as np

from cvsa_jax import data, metrics, operators, plots
from cvsa_jax.data import InputError
from experiments import common
from experiments.inputs import Measured

COLUMNS = (
    "image", "psnr_measurement", "ssim_measurement", "psnr", "ssim", "seconds", "network_evaluations",
)  # fmt: skip
# Of tasks whose answer has a trivial freedom (a shift; for phase retrieval turns and signs too).
ALIGNED_COLUMNS = ("psnr_aligned", "ssim_aligned")
KERNEL_COLUMNS = ("kernel_mse",)
GRID_IMAGES = 32


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


def columns(task: operators.Task) -> tuple[str, ...]:
    """The columns of metrics.csv."""
    aligned = ALIGNED_COLUMNS if task.blind or not task.picture else ()
    return COLUMNS + aligned + (KERNEL_COLUMNS if task.blind else ())


def upsample(measurement: np.ndarray, image_shape: tuple[int, ...], factor: int) -> np.ndarray:
    """A smaller measurement at the image's size, bicubically; one of the same size as it is."""
    if factor == 1:
        return measurement
    height, width, channels = measurement.shape
    large = jax.image.resize(measurement, (height * factor, width * factor, channels), "cubic")
    return np.asarray(large)[: image_shape[0], : image_shape[1]]


def save_operator(folder: pathlib.Path, name: str, operator) -> None:
    """An operator as `NAME.npz`, and for people a mask as `NAME.png` (white is missing), a kernel by `save_kernel`."""
    operators.save_operator(folder / f"{name}.npz", operator)
    if isinstance(operator, operators.Mask):
        data.save_image(folder / f"{name}.png", 1 - 2 * np.asarray(operator.seen))
    kernel = operators.kernel_of(operator)
    if kernel is not None:
        save_kernel(folder, name, kernel)


def save_kernel(folder: pathlib.Path, name: str, kernel: np.ndarray) -> None:
    """A kernel as `NAME.npy` and, scaled to its maximum, `NAME.png`."""
    data.save_image(folder / f"{name}.png", 2 * kernel[..., None] / max(kernel.max(), 1e-12) - 1)
    np.save(folder / f"{name}.npy", kernel)


class Results:
    """The output folder of one job: begun, continued, or refused if it holds another job."""

    def __init__(self, folder: pathlib.Path, settings: dict, overwrite: bool):
        self.folder, self._metrics, self._residuals = folder, folder / "metrics.csv", folder / "residuals.csv"
        self._task, self._combine = operators.find_task(settings["task"]), settings["combine"]
        # The deviation of chains that are no samples of the posterior would only mislead.
        self._sampled = self._combine == "mean" and settings["sampler"] != "decoupled"
        self._columns = columns(self._task)
        self._record = {"settings": settings, "versions": common.versions()}
        self.rows: list[dict] = []
        summary = folder / "summary.json"
        if folder.exists() and not folder.is_dir():
            raise InputError(f"--output={folder} is a file, not a folder")
        if summary.exists() and not overwrite:
            if json.loads(summary.read_text())["settings"] != json.loads(json.dumps(settings, default=str)):
                raise InputError(
                    f"--output={folder} holds a job with other settings; name another folder or give --overwrite"
                )
            with self._metrics.open() as file:
                self.rows = list(csv.DictReader(file))
        elif folder.exists() and any(folder.iterdir()) and not overwrite:
            raise InputError(f"--output={folder} is not empty; name another folder or give --overwrite")

    @property
    def done(self) -> set[str]:
        """Names of the images that an earlier run of the same job finished."""
        return {row["image"] for row in self.rows}

    def begin(self) -> None:
        """Write the settings and the metrics so far; nothing is written before this."""
        common.write_json(self.folder / "summary.json", self._record)
        with self._metrics.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self.rows)
        kept = []
        if self._residuals.exists() and self.rows:
            with self._residuals.open() as file:
                kept = [row for row in csv.reader(file) if row and row[0] in self.done]
        with self._residuals.open("w", newline="") as file:
            csv.writer(file).writerows([("image", "sample", "residual", "chosen"), *kept])

    def write(self, job: Measured, found: Restored) -> None:
        """All files and the metrics of one image."""
        name, samples = job.entry.name, found.samples
        best = int(np.argmin(found.residuals))
        estimate = samples.mean(0) if self._combine == "mean" else samples[best]
        data.save_image(self.folder / "restored" / f"{name}.png", estimate)
        self._write_measurement(job)
        save_operator(self.folder / "operator", name, job.operator)
        if found.kernel is not None:
            save_kernel(self.folder / "kernel", name, found.kernel)
        if len(samples) > 1:
            for i, sample in enumerate(samples):
                data.save_image(self.folder / "samples" / f"{name}_{i:02d}.png", sample)
            if self._sampled:
                data.save_image(self.folder / "deviation" / f"{name}.png", 4 * samples.std(0, ddof=1) - 1)
        with self._residuals.open("a", newline="") as file:
            for i, residual in enumerate(found.residuals):
                chosen = "yes" if self._combine == "mean" or i == best else "no"
                csv.writer(file).writerow([name, i, f"{residual:.6g}", chosen])
        row = dict.fromkeys(self._columns, "") | {"image": name, "seconds": found.seconds}
        row["network_evaluations"] = found.evaluations
        if job.truth is not None:
            data.save_image(self.folder / "truth" / f"{name}.png", job.truth)
            row |= self._quality(job, estimate, found.kernel)
        self._add(row)

    def _write_measurement(self, job: Measured) -> None:
        """As a picture, of measurements that are none on a logarithmic scale; those as an array too."""
        path, y = self.folder / "measurement" / f"{job.entry.name}.png", job.measurement
        if not self._task.picture:
            level = np.log(np.maximum(np.abs(y), 1e-3))
            data.save_image(path, 2 * (level - level.min()) / max(np.ptp(level), 1e-6) - 1)
            np.save(path.with_suffix(".npy"), y)
            return
        data.save_image(path, y)

    def _quality(self, job: Measured, estimate: np.ndarray, kernel: np.ndarray | None) -> dict:
        """The metrics of one image whose truth is known."""
        row = {"psnr": metrics.psnr(job.truth, estimate), "ssim": metrics.ssim(job.truth, estimate)}
        if self._task.picture:
            shown = upsample(job.measurement, job.entry.shape, job.factor)
            row["psnr_measurement"] = metrics.psnr(job.truth, shown)
            row["ssim_measurement"] = metrics.ssim(job.truth, shown)
        if "psnr_aligned" in self._columns:
            freedom = operators.aligned if not self._task.picture else operators.shifted
            estimate = freedom(estimate, job.truth)
            data.save_image(self.folder / "aligned" / f"{job.entry.name}.png", estimate)
            row["psnr_aligned"] = metrics.psnr(job.truth, estimate)
            row["ssim_aligned"] = metrics.ssim(job.truth, estimate)
        if kernel is not None:
            row["kernel_mse"] = metrics.kernel_mse(operators.kernel_of(job.operator), kernel)
        return row

    def _add(self, row: dict) -> None:
        row = {c: f"{v:.4f}" if isinstance(v := row[c], float) else str(v) for c in self._columns}
        self.rows.append(row)
        with self._metrics.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def means(self) -> dict[str, float]:
        """The mean of each metric over the images that have it (infinite PSNR counts not)."""
        table = {c: [float(r[c]) for r in self.rows if r[c]] for c in self._columns[1:]}
        finite = {c: [v for v in values if math.isfinite(v)] for c, values in table.items()}
        return {c: float(np.mean(values)) for c, values in finite.items() if values}

    def finish(self, failures: dict[str, str]) -> None:
        """Complete summary.json and draw grid.png from the files."""
        record = self._record | {"images": len(self.rows), "means": self.means(), "failures": failures}
        common.write_json(self.folder / "summary.json", record)
        names = [row["image"] for row in self.rows][:GRID_IMAGES]
        if names:
            self._grid(names)

    def _grid(self, names: list[str]) -> None:
        """Truth, measurement, restoration and what else there is of each image, side by side."""
        files = {"truth": "{}", "measurement": "{}", "restored": "{}", "aligned": "{}", "samples": "{}_00"}
        files |= {"operator": "{}", "kernel": "{}"} if self._task.blind else {}
        files = {k: f for k, f in files.items() if (self.folder / k / f"{f.format(names[0])}.png").exists()}
        titles = {"samples": "one chain", "operator": "its kernel", "kernel": "kernel found"}
        kinds = [titles.get(k, k) for k in files]
        blocks = math.ceil(len(names) / 8)
        rows = [[] for _ in range(math.ceil(len(names) / blocks))]
        for i, name in enumerate(names):
            images = [self._read(kind, form.format(name)) for kind, form in files.items()]
            side = max(image.shape[0] for image in images)
            rows[i // blocks] += [plots.magnified(x, side) for x in images]
        side = max(max(image.shape[:2]) for row in rows for image in row)
        plots.save_grid(self.folder / "grid.png", rows, kinds * blocks, scale=max(1, 128 // side))

    def _read(self, kind: str, name: str) -> np.ndarray:
        return data.read_image(self.folder / kind / f"{name}.png")
