"""How far the posterior samples of a finished restoration job can be trusted, with its truths."""

import pathlib

import numpy as np

from cvsa_jax import images, metrics, posterior
from cvsa_jax.jobs.records import read_rows, write_rows
from cvsa_jax.pictures import formats
from cvsa_jax.types import InputError

COLUMNS = ("image", "num_samples", "psnr_mean", "psnr_sample", "error", "expected_error", "coverage")


def sample_files(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    """NAME_00, NAME_01, ..., of any form, in order."""
    files = []
    while (path := formats.find_picture(folder / "samples", f"{name}_{len(files):02d}")).exists():
        files.append(path)
    return files


def judge(truth: np.ndarray, samples: np.ndarray, level: float) -> dict:
    """The figures of one image; samples (N, H, W, C). Half a grey level is allowed for rounding."""
    mean = samples.mean(0)
    return {
        "num_samples": len(samples),
        "psnr_mean": metrics.psnr(truth, mean),
        "psnr_sample": float(np.mean([metrics.psnr(truth, s) for s in samples])),
        "error": float(np.sqrt(np.mean((mean - truth) ** 2))),
        "expected_error": posterior.expected_error(samples),
        "coverage": posterior.coverage(samples, truth, level, slack=0.5 / 127.5),
    }


def report(folder: pathlib.Path, level: float) -> dict:
    """Write uncertainty.csv beside the pictures; the means over the images, of finite figures, None where none is.

    Raises:
      InputError: if the folder is no finished job with truths and at least two posterior samples an image.
    """
    if not (folder / "metrics.csv").exists():
        raise InputError(f"--results={folder} holds no metrics.csv of cvsa restore")
    names = [row["image"] for row in read_rows(folder / "metrics.csv")]
    if not (folder / "truth").exists():
        raise InputError(f"--results={folder} has no truths: its inputs were measured")
    files = {name: sample_files(folder, name) for name in names}
    few = [name for name, paths in files.items() if len(paths) < 2]
    if few or not names:
        raise InputError(f"--results={folder} has less than two samples an image; restore with --aim=posterior")
    if not (folder / "deviation").exists():  # which a job writes of posterior samples alone
        raise InputError(
            f"--results={folder} has no deviation/: its chains are no posterior samples, whose mean is restored; "
            "restore with --aim=posterior"
        )
    rows = []
    for name, paths in files.items():
        truth = images.read_image(folder / "truth" / f"{name}.png")
        samples = np.stack([formats.read_back(path, truth.shape[-1]) for path in paths])
        rows.append({"image": name} | judge(truth, samples, level))
    shown = [{k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    write_rows(folder / "uncertainty.csv", COLUMNS, shown)
    means = {c: _mean([row[c] for row in rows]) for c in COLUMNS[1:]}
    return {"level": level, "images": len(rows), "means": means}


def _mean(values: list[float]) -> float | None:
    """Of the finite ones, as JSON knows no others: a sample that is the truth has an infinite PSNR."""
    finite = [v for v in values if np.isfinite(v)]
    return round(float(np.mean(finite)), 4) if finite else None
