"""Vary one constant at a time and see what it does.

    python -m experiments.ablate --task=motion_deblur --input=FOLDER --limit=8 --image_size=64 \
      --sweep=mass=.1,.25,1 --sweep=num_steps=20,50,100 --output=results/ablation

--sweep takes any flag of experiments.restore (mass, friction, beta, gamma, num_steps, num_samples, guidance, sampler,
time_grid, noise_std, ...), and every flag of that program may be given for all the jobs. Each value of each sweep is a
job in OUTPUT/NAME=VALUE; a run that was stopped goes on with the same command. Writes ablation.csv
(each image), ablation.md (means and their 95 % intervals) and NAME.png for each sweep
(PSNR, SSIM and residual), and report.html.
"""

import csv
import math
import pathlib
from typing import NamedTuple

import jax
import matplotlib
from absl import flags

from experiments import common, comparison, job_flags, jobs, report
from experiments.tables import Figure, Grid, Measure, figure

FLAGS = flags.FLAGS
MEASURES = {
    "psnr": Measure("PSNR", True, 2), "ssim": Measure("SSIM", True, 3), "residual": Measure("residual", None, 4),
    **{name: comparison.MEASURES[name] for name in ("seconds", "network_evaluations")},
}  # fmt: skip
OWN = ("sweep", "output", "list_tasks", "report")


class Sweep(NamedTuple):
    """A flag of experiments.restore and the values that it takes in turn."""

    name: str
    values: list[str]


def read_sweeps(texts: list[str], shared: list[str]) -> list[Sweep]:
    """From 'NAME=VALUE,VALUE,...'; every job's flags are parsed once, so that a bad value is found at once.

    Raises:
      ValueError, absl.flags.Error: on an unknown flag or a value that it does not take.
    """
    sweeps, known = [], job_flags.parse(["--task=denoise"])
    for text in texts:
        name, _, values = text.partition("=")
        if name not in known or name in OWN:
            raise ValueError(f"--sweep={text}: {name!r} is no flag of experiments.restore")
        parts = [v for v in values.split(",") if v]
        if not parts or len(set(parts)) < len(parts):
            raise ValueError(f"--sweep={text}: give different values, as in --sweep=mass=.1,.25,1")
        for value in parts:
            job_flags.parse([*shared, f"--{name}={value}"])
        sweeps.append(Sweep(name, parts))
    if len({s.name for s in sweeps}) < len(sweeps):
        raise ValueError("a flag may be swept once")
    return sweeps


def shared_arguments() -> list[str]:
    """The flags of experiments.restore that were given for all jobs."""
    names = job_flags.values(FLAGS)
    return [f"--{n}={FLAGS[n].value}" for n in names if FLAGS[n].present and n not in OWN]


def residuals(folder: pathlib.Path) -> dict[str, float]:
    """Of each image: the mean over the samples that its restoration is made of."""
    found: dict[str, list[float]] = {}
    for row in comparison.read_rows(folder / "residuals.csv"):
        if row["chosen"] == "yes":
            found.setdefault(row["image"], []).append(float(row["residual"]))
    return {name: sum(values) / len(values) for name, values in found.items()}


def folder_of(output: pathlib.Path, name: str, value: str) -> pathlib.Path:
    """Where the job of one value writes; with the name in front, as `.1` alone would be hidden."""
    return output / f"{name}={value}"


def run(sweeps: list[Sweep], shared: list[str], output: pathlib.Path) -> list[dict]:
    """Every job; a row for each image and metric."""
    rows = []
    for sweep in sweeps:
        for value in sweep.values:
            folder = folder_of(output, sweep.name, value)
            print(f"{sweep.name} = {value}", flush=True)
            job = jobs.prepare(job_flags.parse([*shared, f"--{sweep.name}={value}", f"--output={folder}"]))
            job.run()
            jax.clear_caches()
            left = residuals(folder)
            for r in comparison.read_rows(folder / "metrics.csv"):
                for name in MEASURES:
                    number = left[r["image"]] if name == "residual" else float(r.get(name) or "nan")
                    key = {"sweep": sweep.name, "value": value, "image": r["image"]}
                    rows.append(key | {"metric": name, "figure": number})
    return rows


def grid_of(sweep: Sweep, rows: list[dict]) -> Grid:
    """Means by value."""
    labels = {v: f"{sweep.name} = {v}" for v in sweep.values}
    grid = Grid(sweep.name, list(labels.values()), MEASURES)
    for value, label in labels.items():
        for name in MEASURES:
            mine = [r["figure"] for r in rows if (r["sweep"], r["value"], r["metric"]) == (sweep.name, value, name)]
            grid.cells[label, name] = figure(mine)
        if not any(math.isfinite(grid.cells[label, name].value) for name in MEASURES):
            grid.cells[label, "psnr"] = Figure(note="no image was restored")
    return grid


def plot(path: pathlib.Path, sweep: Sweep, grid: Grid) -> None:
    """PSNR, SSIM and residual against the constant, with the 95 % intervals of the means."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    try:
        places, numeric = [float(v) for v in sweep.values], True
    except ValueError:
        places, numeric = list(range(len(sweep.values))), False
    shown = [(n, m) for n, m in MEASURES.items() if n in ("psnr", "ssim", "residual")]
    canvas, axes = pyplot.subplots(1, len(shown), figsize=(3.2 * len(shown), 2.6))
    for axis, (name, measure) in zip(axes, shown, strict=True):
        cells = [grid.cells[row, name] for row in grid.rows]
        halves = [0 if math.isnan(c.half) else c.half for c in cells]
        order = sorted(range(len(places)), key=places.__getitem__)
        x, y, e = ([a[i] for i in order] for a in (places, [c.value for c in cells], halves))
        axis.errorbar(x, y, yerr=e, fmt="o-" if numeric else "o", color="tab:green", capsize=3)
        if numeric and min(places) > 0 and max(places) >= 8 * min(places):
            axis.set_xscale("log")
        axis.set_xticks(places, sweep.values, rotation=0 if numeric else 30, ha="center" if numeric else "right")
        axis.minorticks_off()
        axis.set(title=f"{measure.heading}{', dB' if name == 'psnr' else ''}", xlabel=sweep.name)
        axis.grid(alpha=0.3)
    canvas.tight_layout()
    canvas.savefig(path, dpi=110)
    pyplot.close(canvas)


def main() -> None:
    with common.user_errors():
        if not FLAGS.sweep or not FLAGS.output:
            raise ValueError("--sweep and --output are required")
        shared, output = shared_arguments(), pathlib.Path(FLAGS.output)
        sweeps = read_sweeps(FLAGS.sweep, shared)
        for name in ("task", "input"):
            if FLAGS[name].value is None and name not in [s.name for s in sweeps]:
                raise ValueError(f"--{name} is required")
        common.claim_folder(output, {"shared": shared})
        rows = run(sweeps, shared, output)
    with (output / "ablation.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("sweep", "value", "image", "metric", "figure"))
        writer.writeheader()
        writer.writerows(rows)
    grids = [grid_of(sweep, rows) for sweep in sweeps]
    text = "\n".join(grid.markdown() for grid in grids)
    (output / "ablation.md").write_text(text)
    for sweep, grid in zip(sweeps, grids, strict=True):
        plot(output / f"{sweep.name}.png", sweep, grid)
    jobs_by_label = {f"{s.name} = {v}": folder_of(output, s.name, v) for s in sweeps for v in s.values}
    report.ablation_report(output, grids, jobs_by_label, {"shared flags": " ".join(shared)} | common.versions())
    print(text)
    print(f"plots and the report: {output}/*.png, {output / 'report.html'}")


if __name__ == "__main__":
    job_flags.define(FLAGS)
    flags.DEFINE_multi_string("sweep", [], "NAME=VALUE,VALUE,... of a flag of experiments.restore; may be repeated.")
    common.run(main)
