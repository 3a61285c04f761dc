"""Vary one setting at a time and see what it does."""

import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import matplotlib

from cvsa_jax.evaluation import report
from cvsa_jax.evaluation.finished import FinishedJob
from cvsa_jax.evaluation.tables import Grid, figure
from cvsa_jax.jobs import RestorationJob, prepare, records, resolve
from cvsa_jax.jobs.settings import known
from cvsa_jax.measures import MEASURES
from cvsa_jax.types import InputError
from cvsa_jax.writing import whole, write_text

SHOWN = ("psnr", "ssim", "kernel_mse", "residual", "seconds", "network_evaluations")
PLOTTED = ("psnr", "ssim", "residual")
ALWAYS = ("overwrite", "report")  # what the ablation decides: it goes on, and writes a report of its own
OWN = ("output", *ALWAYS)  # what cannot be swept


class Sweep(NamedTuple):
    """A setting of a job, the values that it takes in turn as they were given, and their jobs."""

    name: str
    values: list[str]
    jobs: list[RestorationJob]


def read_sweeps(
    texts: Sequence[str], shared: dict[str, Any], output: pathlib.Path, parse: Callable[[str], dict[str, Any]]
) -> list[Sweep]:
    """From 'NAME=VALUE,VALUE,...'; every job is resolved, so that a bad value is found at once.

    Args:
      texts: of the sweeps. shared: given values of every job. output: folder of all.
      parse: '--NAME=VALUE' -> the given values that it stands for.

    Raises:
      ValueError: on an unknown setting, one that is a list, or a value that it does not take.
    """
    sweeps, lists = [], {f.name for _, some in known().values() for f in some if f.kind is tuple}
    for text in texts:
        name, _, listed = text.partition("=")
        parts = [v for v in listed.split(",") if v]
        if name in OWN:
            raise ValueError(f"--sweep={text}: {name} is the same for all jobs")
        if name in lists:
            raise ValueError(f"--sweep={text}: {name} is a list, which has commas of its own, and cannot be swept")
        if not parts or len(set(parts)) < len(parts):
            raise ValueError(f"--sweep={text}: give different values, as in --sweep=mass=.1,.25,1")
        jobs = []
        for value in parts:
            given = {**shared, **parse(f"--{name}={value}"), "output": str(output / f"{name}={value}")}
            jobs.append(resolve(given))
        sweeps.append(Sweep(name, parts, jobs))
    if len({s.name for s in sweeps}) < len(sweeps):
        raise ValueError("a setting may be swept once")
    return sweeps


def run(sweeps: list[Sweep]) -> dict[tuple[str, str], FinishedJob]:
    """Every job, by setting and value."""
    done = {}
    for sweep in sweeps:
        for value, job in zip(sweep.values, sweep.jobs, strict=True):
            print(f"{sweep.name} = {value}", flush=True)
            try:
                prepared = prepare(job)
            except ValueError as error:
                raise InputError(f"{sweep.name} = {value}: {error}") from error
            prepared.run()
            jax.clear_caches()
            done[sweep.name, value] = FinishedJob(pathlib.Path(str(job.job.output)))
    return done


def grid_of(sweep: Sweep, done: dict) -> Grid:
    """Means by value."""
    labels = {v: f"{sweep.name} = {v}" for v in sweep.values}
    blind = any(done[sweep.name, value].task.blind for value in sweep.values)
    shown = [name for name in SHOWN if name != "kernel_mse" or blind]
    grid = Grid(sweep.name, list(labels.values()), {name: MEASURES[name] for name in shown}, "setting")
    for value, label in labels.items():
        job = done[sweep.name, value]
        for name in shown:
            grid.cells[label, name] = figure(job.figures(name))
        grid.cells[label, "psnr"] = grid.cells[label, "psnr"]._replace(note=job.note)
    return grid


def plot(path: pathlib.Path, sweep: Sweep, grid: Grid) -> None:
    """PSNR, SSIM and residual against the setting, with the 95 % intervals of the means."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    try:
        places, numeric = [float(v) for v in sweep.values], True
    except ValueError:
        places, numeric = [float(i) for i in range(len(sweep.values))], False
    canvas, axes = pyplot.subplots(1, len(PLOTTED), figsize=(3.2 * len(PLOTTED), 2.6))
    for axis, name in zip(axes, PLOTTED, strict=True):
        measure, cells = MEASURES[name], [grid.cells[row, name] for row in grid.rows]
        halves = [0 if math.isnan(c.half) else c.half for c in cells]
        order = sorted(range(len(places)), key=places.__getitem__)
        x, y, e = ([a[i] for i in order] for a in (places, [c.value for c in cells], halves))
        axis.errorbar(x, y, yerr=e, fmt="o-" if numeric else "o", color="tab:green", capsize=3)
        if numeric and min(places) > 0 and max(places) >= 8 * min(places):
            axis.set_xscale("log")
        axis.set_xticks(places, sweep.values, rotation=0 if numeric else 30, ha="center" if numeric else "right")
        axis.minorticks_off()
        axis.set(title=f"{measure.heading}{f', {measure.unit}' if measure.unit else ''}", xlabel=sweep.name)
        axis.grid(alpha=0.3)
    canvas.tight_layout()
    with whole(path) as part:
        canvas.savefig(part, dpi=110, format="png")
    pyplot.close(canvas)


def ablate(sweeps: list[Sweep], output: pathlib.Path, settings: dict, count: int = 4) -> tuple[str, list[FinishedJob]]:
    """Run the jobs and write ablation.csv, ablation.md, a plot of each sweep and report.html.

    Returns: the tables as text, and the jobs in which images failed.
    """
    done = run(sweeps)
    long = [
        {"sweep": sweep, "value": value, "image": image, "metric": name, "figure": number}
        for (sweep, value), job in done.items()
        for image, numbers in zip(job.names, zip(*map(job.figures, SHOWN), strict=True), strict=True)
        for name, number in zip(SHOWN, numbers, strict=True)
    ]
    records.write_rows(output / "ablation.csv", ("sweep", "value", "image", "metric", "figure"), long)
    grids = [grid_of(sweep, done) for sweep in sweeps]
    text = "\n".join(grid.markdown() for grid in grids)
    write_text(output / "ablation.md", text)
    plots = {sweep.name: output / f"{sweep.name}.png" for sweep in sweeps}
    for sweep, grid in zip(sweeps, grids, strict=True):
        plot(plots[sweep.name], sweep, grid)
    rows = []
    for (name, value), job in done.items():
        label = f"{name} = {value}"
        rows += report.job_rows(job, label, {"value": label}, count, ("psnr", "ssim"))
    report.write_report(output / "report.html", "Ablation", "One setting at a time.", grids, rows, settings, plots)
    return text, [job for job in done.values() if job.failures]
