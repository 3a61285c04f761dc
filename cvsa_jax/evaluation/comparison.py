"""Every method on every task, the same images, operators, measurements and seed; figures of what came out."""

import math
import pathlib
from typing import Any, NamedTuple

import jax

from cvsa_jax import plots
from cvsa_jax.diffusion import CLD
from cvsa_jax.evaluation import report, tables
from cvsa_jax.evaluation.finished import FinishedJob
from cvsa_jax.evaluation.judge import Judge
from cvsa_jax.evaluation.rows import ROWS, SAMPLE, equal_evaluations, judged_by
from cvsa_jax.evaluation.tables import Figure, Grid, figure
from cvsa_jax.jobs import RestorationJob, check_job, command, prepare, records, resolve, selection
from cvsa_jax.jobs.baseline_constants import constants_of
from cvsa_jax.jobs.methods import CVSA, METHODS, BaselineSettings, ClassicalSettings
from cvsa_jax.measures import MEASURES, Measure
from cvsa_jax.noise import NOISES
from cvsa_jax.operators import find_task
from cvsa_jax.settings import build, fields, text_of, values
from cvsa_jax.types import InputError, UnsuitableError
from cvsa_jax.writing import write_text

MEASUREMENT = "measurement"
CHAINS = Measure("chains", None, 0, interval=False)


class Plan(NamedTuple):
    """What is compared.

    tasks. rows: names in ROWS. shared: settings of every job whose task has them. evaluations: of the network for
    each image, or None for each method's own. output: folder.
    """

    tasks: list[str]
    rows: list[str]
    shared: dict[str, Any]
    evaluations: int | None
    output: pathlib.Path


def shares(plan: Plan, task: str, row: str) -> list[dict[str, int]]:
    """The numbers of steps and chains of which the best is a cell's: one, the method's own, unless all are equal."""
    return equal_evaluations(task, row, plan.evaluations) if plan.evaluations else [{}]


def settings_of(plan: Plan, task: str, row: str, number: int = 0) -> dict[str, Any]:
    """The given values of one cell's job, the one with that number of its `shares`."""
    equal = shares(plan, task, row)[number]
    own = {f.name for f in fields(find_task(task).settings)}
    foreign = {f.name for t in plan.tasks for f in fields(find_task(t).settings)} - own
    if row not in (CVSA, SAMPLE):  # the others do not search for the kernel
        foreign.add("search_guesses")
    if not METHODS.get(row, METHODS[CVSA]).diffuses:
        foreign |= {f.name for f in fields(CLD)}
    shared = {k: v for k, v in plan.shared.items() if k not in foreign}
    return {"task": task, **shared, **ROWS[row][1], **equal, "output": str(folder_of(plan, task, row, number))}


def job_of(plan: Plan, task: str, row: str, number: int = 0) -> RestorationJob:
    """The job of one cell, the one with that number of its `shares`.

    Raises:
      UnsuitableError: if the method cannot do the task.
    """
    return resolve(settings_of(plan, task, row, number))


def check(plan: Plan) -> None:
    """Raises ValueError on a value that a job would refuse, before the first one runs."""
    for task in plan.tasks:
        for row in plan.rows:
            try:
                for number in range(len(shares(plan, task, row))):
                    check_job(job_of(plan, task, row, number))
            except UnsuitableError:
                continue


def run(plan: Plan) -> tuple[dict[tuple[str, str], FinishedJob], dict[tuple[str, str], str]]:
    """Run what is not finished yet: (each cell's best job; reasons of what cannot be done), by task and row."""
    done, refused = {}, {}
    for task in plan.tasks:
        for row in plan.rows:
            print(f"{task}, {ROWS[row][0]}", flush=True)
            jobs = []
            try:
                for number in range(len(shares(plan, task, row))):
                    prepare(job_of(plan, task, row, number)).run()
                    jax.clear_caches()
                    jobs.append(FinishedJob(folder_of(plan, task, row, number)))
            except UnsuitableError as error:
                refused[task, row] = str(error)
                print(f"  cannot: {error}")
                continue
            except ValueError as error:
                raise InputError(f"{task}, {ROWS[row][0]}: {error}") from error
            done[task, row] = best(jobs, judged_by(row))
    return done, refused


def best(jobs: list[FinishedJob], measure: str) -> FinishedJob:
    """The job in which fewest images failed, of those the one with the best mean of a measure, of those the first."""
    if len(jobs) == 1:
        return jobs[0]
    sign = 1 if MEASURES[measure].more else -1

    def merit(job: FinishedJob) -> tuple[int, float]:
        value = sign * mean_of(job, measure)
        return -len(job.failures), value if math.isfinite(value) else -math.inf

    return max(jobs, key=merit)


def mean_of(job: FinishedJob, measure: str) -> float:
    """A measure of a finished job as its table has it."""
    if measure == "patch_distance":
        return Judge({}).distances(*map(list, zip(*job.pairs(), strict=True)))[measure] if job.rows else math.nan
    return figure(job.figures(measure)).value


def noise_text(plan: Plan) -> str:
    """The noise of a comparison in words."""
    kind = NOISES[plan.shared["noise"]]
    return f"{plan.shared['noise']} noise " + ", ".join(
        f"{text_of(v)}" for v in values(build(kind, plan.shared)).values()
    )


def folder_of(plan: Plan, task: str, row: str, number: int = 0) -> pathlib.Path:
    """Where a job wrote; one of several chains has their number in its name."""
    several = f"_x{shares(plan, task, row)[number]['num_samples']}" if number else ""
    return plan.output / "jobs" / task / f"{row}{several}"


def collect(plan: Plan, done: dict, refused: dict, judge: Judge) -> tuple[list[dict], list[Grid]]:
    """(long table, a row for each image, method, task and measure; a grid of figures for each task)."""
    long, grids = [], []
    for task in plan.tasks:
        wanted = judge.wanted(find_task(task))
        grid = Grid(task, [MEASUREMENT, *(ROWS[row][0] for row in plan.rows)], wanted | {"chains": CHAINS})
        measured: dict[str, dict[str, float]] = {}  # by image, from whichever method has it
        for row in plan.rows:
            label = ROWS[row][0]
            if (task, row) in refused:
                grid.cells[label, "psnr"] = Figure(note=refused[task, row])
                continue
            job = done[task, row]
            values, pairs = figures_of(job, judge), job.pairs()
            for name in [n for n in MEASURES if n in values]:
                for image, value in zip(job.names, values[name], strict=True):
                    if math.isfinite(value) and MEASURES[name].in_tables:
                        long.append({"task": task, "method": row, "image": image, "metric": name, "value": value})
            for name in wanted:
                grid.cells[label, name] = figure(values.get(name, []))
            if pairs:
                for name, value in judge.distances(*map(list, zip(*pairs, strict=True))).items():
                    grid.cells[label, name] = Figure(value)
            grid.cells[label, "psnr"] = grid.cells[label, "psnr"]._replace(note=job.note)
            if METHODS.get(row, METHODS[CVSA]).settings is not ClassicalSettings:
                grid.cells[label, "chains"] = Figure(job.settings["num_samples"])
            measured |= {image: {n: values[f"{n}_measurement"][i] for n in ("psnr", "ssim")}
                         for i, image in enumerate(job.names)}  # fmt: skip
        for name in ("psnr", "ssim"):
            grid.cells[MEASUREMENT, name] = figure([of[name] for of in measured.values()])
        grids.append(grid)
    return long, grids


def figures_of(job: FinishedJob, judge: Judge) -> dict[str, list[float]]:
    """The measures of every image, by name; what is not there is not a number."""
    found = {n: job.figures(n) for n, m in MEASURES.items() if m.compute is not None}
    if "lpips" in judge.wanted(job.task):
        found["lpips"] = [judge.lpips(*pair) for pair in job.pairs()]
    return found


def draw(plan: Plan, done: dict, task: str, count: int) -> pathlib.Path | None:
    """The first images under every method side by side, as in the paper's figures 3 to 5."""
    jobs = {row: done[task, row] for row in plan.rows if (task, row) in done}
    if not jobs:
        return None
    first = next(iter(jobs.values()))
    names = [name for name in first.names if all(name in job.names for job in jobs.values())][:count]
    if not names:
        return None
    pictures = []
    for name in names:
        truth = first.image("truth", name)
        shown = plots.magnified(first.image("measurement", name), truth.shape[0])
        pictures.append([shown, truth, *(job.image(job.kind, name) for job in jobs.values())])
    path = plan.output / "figures" / f"{task}.png"
    titles = [MEASUREMENT, "truth", *(ROWS[row][0] for row in jobs)]
    plots.save_grid(path, pictures, titles, scale=max(1, 128 // pictures[0][1].shape[0]))
    return path


def _numbers(plan: Plan, task: str, row: str) -> list[pathlib.Path]:
    """The folders of a cell's jobs."""
    return [folder_of(plan, task, row, number) for number in range(len(shares(plan, task, row)))]


def _constants(task: str, row: str, job: FinishedJob) -> list[dict]:
    """The constants of a baseline in a finished job, each with its source."""
    if METHODS.get(row, METHODS[CVSA]).settings is not BaselineSettings:
        return []
    found = constants_of(row, task, job.settings["num_steps"])
    return [{"constant": name, "value": value, "source": source} for name, (value, source) in found.items()]


def compare(
    plan: Plan, files: list[str], judge: Judge, caption: str, settings: dict, count: int
) -> tuple[str, list[FinishedJob]]:
    """Run the jobs and write what came out; (the tables as text, the jobs in them in which images failed).

    Args:
      plan: of the jobs. files: names of the images, relative to the input folder. judge: of the figures.
      caption: of the tables. settings: for the record. count: images in each figure and in the report.
    """
    selection.write_list(plan.output / "images.txt", files)
    done, refused = run(plan)
    long, grids = collect(plan, done, refused, judge)
    records.write_rows(plan.output / "per_image.csv", ("task", "method", "image", "metric", "value"), long)
    shown = ("psnr", "ssim", "fid" if any("fid" in g.columns for g in grids) else "patch_distance", "kernel_mse")
    overview = tables.Overview(grids, shown)
    text = "\n".join([overview.markdown(), *(grid.markdown() for grid in grids)])
    write_text(plan.output / "table.md", f"{caption}\n\n{text}")
    write_text(plan.output / "table.tex", overview.latex(caption))
    chosen = {(t, r): _numbers(plan, t, r).index(job.folder) for (t, r), job in done.items()}
    commands = {f"{t}, {r}": ["cvsa", "restore", *command(job_of(plan, t, r, n))] for (t, r), n in chosen.items()}
    tried = {f"{t}, {r}": {f.name: mean_of(FinishedJob(f), judged_by(r)) for f in _numbers(plan, t, r)}
             for t, r in done if len(_numbers(plan, t, r)) > 1}  # fmt: skip
    record = {"settings": settings, "versions": records.versions(), "files": files, "commands": commands,
              "chains": tried, "refused": {f"{t}, {r}": why for (t, r), why in refused.items()}}  # fmt: skip
    records.write_json(plan.output / "comparison.json", record)
    sources = [{"task": t, "method": r, **row} for (t, r), job in done.items() for row in _constants(t, r, job)]
    records.write_rows(plan.output / "constants.csv", ("task", "method", "constant", "value", "source"), sources)
    rows = []
    names = [n for n, m in MEASURES.items() if m.compute is not None and m.in_tables]
    for (task, row), job in done.items():
        rows += report.job_rows(job, ROWS[row][0], {"task": task, "method": ROWS[row][0]}, count, names)
    for task in plan.tasks:
        draw(plan, done, task, count)
    facts = settings | record["versions"]
    report.write_report(plan.output / "report.html", "Comparison", caption, grids, rows, facts)
    return text, [job for job in done.values() if job.failures]
