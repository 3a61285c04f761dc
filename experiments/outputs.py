"""What a restoration job writes: pictures, metrics, the record of its settings."""

import csv
import json
import math
import pathlib

import jax
import numpy as np

from cvsa_jax import data, metrics, operators, plots
from cvsa_jax.data import InputError
from experiments import common
from experiments.inputs import Measured

COLUMNS = (
    "image", "psnr_measurement", "ssim_measurement", "psnr", "ssim", "seconds", "network_evaluations",
)  # fmt: skip
GRID_IMAGES = 32


def upsample(measurement: np.ndarray, image_shape: tuple[int, ...], factor: int) -> np.ndarray:
    """A smaller measurement at the image's size, bicubically; one of the same size as it is."""
    if factor == 1:
        return measurement
    height, width, channels = measurement.shape
    large = jax.image.resize(measurement, (height * factor, width * factor, channels), "cubic")
    return np.asarray(large)[: image_shape[0], : image_shape[1]]


def save_operator(folder: pathlib.Path, name: str, operator) -> None:
    """A mask as `NAME.png` (white is missing); a kernel as `NAME.npy` and, scaled to its maximum, `NAME.png`."""
    if isinstance(operator, operators.Mask):
        data.save_image(folder / f"{name}.png", 1 - 2 * np.asarray(operator.seen))
    kernel = operators.kernel_of(operator)
    if kernel is not None:
        data.save_image(folder / f"{name}.png", 2 * kernel[..., None] / kernel.max() - 1)
        np.save(folder / f"{name}.npy", kernel)


class Results:
    """The output folder of one job: begun, continued, or refused if it holds another job."""

    def __init__(self, folder: pathlib.Path, settings: dict, overwrite: bool):
        self.folder, self._metrics = folder, folder / "metrics.csv"
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
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(self.rows)

    def write(self, job: Measured, samples: np.ndarray, seconds: float, evaluations: int) -> None:
        """All files and the metrics of one image; samples (num_samples, H, W, C)."""
        name, estimate = job.entry.name, samples.mean(0)
        data.save_image(self.folder / "restored" / f"{name}.png", estimate)
        data.save_image(self.folder / "measurement" / f"{name}.png", job.measurement)
        save_operator(self.folder / "operator", name, job.operator)
        if len(samples) > 1:
            for i, sample in enumerate(samples):
                data.save_image(self.folder / "samples" / f"{name}_{i:02d}.png", sample)
            data.save_image(self.folder / "deviation" / f"{name}.png", 4 * samples.std(0, ddof=1) - 1)
        row = dict.fromkeys(COLUMNS, "") | {"image": name, "seconds": seconds}
        row["network_evaluations"] = evaluations
        if job.truth is not None:
            data.save_image(self.folder / "truth" / f"{name}.png", job.truth)
            shown = upsample(job.measurement, job.entry.shape, job.factor)
            for suffix, picture in (("_measurement", shown), ("", estimate)):
                row["psnr" + suffix] = metrics.psnr(job.truth, picture)
                row["ssim" + suffix] = metrics.ssim(job.truth, picture)
        self._add(row)

    def _add(self, row: dict) -> None:
        row = {c: f"{v:.4f}" if isinstance(v := row[c], float) else str(v) for c in COLUMNS}
        self.rows.append(row)
        with self._metrics.open("a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)

    def means(self) -> dict[str, float]:
        """The mean of each metric over the images that have it (infinite PSNR counts not)."""
        table = {c: [float(r[c]) for r in self.rows if r[c]] for c in COLUMNS[1:]}
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
        """Truth, measurement, restoration and, where there are several, the first sample."""
        files = {"truth": "{}", "measurement": "{}", "restored": "{}", "samples": "{}_00"}
        files = {k: f for k, f in files.items() if (self.folder / k / f"{f.format(names[0])}.png").exists()}
        kinds = ["one sample" if k == "samples" else k for k in files]
        blocks = math.ceil(len(names) / 8)
        rows = [[] for _ in range(math.ceil(len(names) / blocks))]
        for i, name in enumerate(names):
            rows[i // blocks] += [self._read(kind, form.format(name)) for kind, form in files.items()]
        side = max(max(image.shape[:2]) for row in rows for image in row)
        plots.save_grid(self.folder / "grid.png", rows, kinds * blocks, scale=max(1, 128 // side))

    def _read(self, kind: str, name: str) -> np.ndarray:
        return data.to_float(data.open_image(self.folder / kind / f"{name}.png"))
