"""Every method on every task, the same images, operators, measurements and seed; figures of what came out."""

import csv
import json
import math
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np

from cvsa_jax import data, frechet, operators, plots
from cvsa_jax.diffusion import SMALLEST_TIME
from cvsa_jax.importers import quality
from cvsa_jax.models.inception import Inception
from cvsa_jax.models.perceptual import Perceptual
from cvsa_jax.types import UnsuitableError
from experiments import job_flags, jobs, methods, settings
from experiments.tables import Figure, Grid, Measure, figure

PAPER, SAMPLE = "paper", "cvsa_sample"
_PAPER_FLAGS = (
    "--sampler=euler_maruyama", "--guidance=plug_in", "--time_grid=uniform", "--num_steps=1000", "--num_samples=1",
    "--start=noise", "--t_start=1", f"--t_end={SMALLEST_TIME}",
)  # fmt: skip
# A row's name and what it adds to `experiments.restore`.
ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    methods.CVSA: ("CVSA", ()),
    SAMPLE: ("CVSA, one posterior sample", (f"--aim={methods.POSTERIOR}", "--num_samples=1")),
    PAPER: ("CVSA as in the paper", _PAPER_FLAGS),
    **{name: (label, (f"--method={name}",)) for name, label in methods.METHODS.items() if name != methods.CVSA},
}
MEASUREMENT = "measurement"
MEASURES = {
    "psnr": Measure("PSNR", True, 2), "ssim": Measure("SSIM", True, 3), "lpips": Measure("LPIPS", False, 3),
    "fid": Measure("FID", False, 1), "patch_distance": Measure("patch distance", False, 3),
    "kernel_mse": Measure("kernel MSE", False, 4), "seconds": Measure("s an image", None, 1, interval=False),
    "network_evaluations": Measure("evaluations", None, 0, interval=False),
}  # fmt: skip


class Plan(NamedTuple):
    """What is compared.

    tasks. rows: names in ROWS. shared: arguments of every job. evaluations: of the network for each image, or
    None for each method's own. output: folder.
    """

    tasks: list[str]
    rows: list[str]
    shared: list[str]
    evaluations: int | None
    output: pathlib.Path


def may(row: str, task: operators.Task) -> bool:
    """Whether a row is for such tasks at all, blind or not."""
    try:
        methods.check(row if row in methods.METHODS else methods.CVSA, task)
    except UnsuitableError:
        return False
    return True


def equal_evaluations(task: str, row: str, evaluations: int) -> tuple[str, ...]:
    """The arguments with which a method takes at most about so many evaluations an image.

    Ours changes the number of samples, of about as many steps as its preset has; the others change their
    steps. A search for a kernel has a fixed number.
    """
    preset = settings.preset_of(task)
    if row == methods.CLASSICAL:
        return ()
    if row == PAPER:
        return (f"--num_steps={evaluations}",)
    if row == SAMPLE:
        each = 1 + settings.preset_of(task, methods.POSTERIOR).num_corrections
        return (f"--num_steps={max(2, evaluations // each)}",)
    if row == methods.CVSA:
        if operators.find_task(task).blind:
            return ()
        each = 1 + preset.num_corrections
        samples = max(1, evaluations // (preset.num_steps * each))
        return f"--num_samples={samples}", f"--num_steps={max(2, evaluations // (samples * each))}"
    steps = evaluations // methods.preset(row, task, preset).num_samples
    return (f"--num_steps={min(max(2, steps // 2 * 2), 1000)}",)  # even, as two evaluations a level need


def arguments(plan: Plan, task: str, row: str) -> list[str]:
    """Of `experiments.restore` for one cell."""
    equal = equal_evaluations(task, row, plan.evaluations) if plan.evaluations else ()
    return [f"--task={task}", *plan.shared, *ROWS[row][1], *equal, f"--output={folder_of(plan, task, row)}"]


def run(plan: Plan) -> dict[tuple[str, str], str]:
    """Run what is not finished yet; the reason, by task and row, of what cannot be done."""
    refused = {}
    for task in plan.tasks:
        for row in plan.rows:
            command = arguments(plan, task, row)
            print(f"{task}, {ROWS[row][0]}", flush=True)
            try:
                job = jobs.prepare(job_flags.parse(command))
            except UnsuitableError as error:
                refused[task, row] = str(error)
                print(f"  cannot: {error}")
                continue
            job.run()
            jax.clear_caches()
    return refused


def folder_of(plan: Plan, task: str, row: str) -> pathlib.Path:
    """Where a job wrote."""
    return plan.output / "jobs" / task / row


def read_rows(path: pathlib.Path) -> list[dict]:
    """A CSV file's rows; none if it is not there."""
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def estimates(folder: pathlib.Path) -> str:
    """Which pictures a job is judged by: aligned ones where the task leaves a trivial freedom of the image itself."""
    record = json.loads((folder / "summary.json").read_text())["settings"]
    return "restored" if operators.find_task(record["task"]).picture else "aligned"


class Judge:
    """Perceptual and set-level figures from the files; networks are used if their weights are given.

    Args:
      inception, perceptual: weights' files, as `quality.load_inception` and `quality.load_perceptual` take them.
    """

    def __init__(self, inception: str | None, perceptual: str | None):
        self._inception = self._lpips = None
        if inception:
            params = quality.load_inception(inception)
            self._inception = jax.jit(lambda x: Inception().apply({"params": params}, x))
        if perceptual:
            backbone, weights = quality.load_perceptual(perceptual)
            self._lpips = jax.jit(lambda a, b: Perceptual(backbone).apply({"params": weights}, a, b))

    def lpips(self, truth: np.ndarray, estimate: np.ndarray) -> float:
        """Of one pair; not a number without weights."""
        if self._lpips is None:
            return math.nan
        a, b = (np.repeat(x, 3 // x.shape[-1], -1)[None] for x in (truth, estimate))
        return float(self._lpips(a, b)[0])

    def distances(self, truths: list[np.ndarray], images: list[np.ndarray]) -> dict[str, float]:
        """Fréchet distances of two sets: of patches, and of Inception's features with weights."""
        out = {"patch_distance": self._distance(map(frechet.patches, truths), map(frechet.patches, images))}
        if self._inception is not None and len(images) > 1:
            features = lambda xs: (np.asarray(self._inception(np.repeat(x, 3 // x.shape[-1], -1)[None])) for x in xs)  # noqa: E731
            out["fid"] = self._distance(features(truths), features(images))
        return out

    @staticmethod
    def _distance(a: Iterable[np.ndarray], b: Iterable[np.ndarray]) -> float:
        return frechet.frechet_distance(frechet.moments(a), frechet.moments(b))


def collect(plan: Plan, refused: dict, judge: Judge) -> tuple[list[dict], list[Grid]]:
    """(long table, a row for each image, method, task and metric; a grid of figures for each task)."""
    long, grids = [], []
    for task in plan.tasks:
        names = [MEASUREMENT, *(ROWS[row][0] for row in plan.rows)]
        wanted = {k: m for k, m in MEASURES.items() if wants(task, k, judge)}
        grid = Grid(task, names, wanted)
        for row in plan.rows:
            label, folder = ROWS[row][0], folder_of(plan, task, row)
            if (task, row) in refused:
                grid.cells[label, "psnr"] = Figure(note=refused[task, row])
                continue
            table, values = read_rows(folder / "metrics.csv"), {}
            kind = estimates(folder)
            pairs = [
                (
                    data.read_image(folder / "truth" / f"{r['image']}.png"),
                    data.read_image(folder / kind / f"{r['image']}.png"),
                )
                for r in table
            ]
            for r, pair in zip(table, pairs, strict=True):
                found = {k: float(r.get(column_of(k, kind)) or "nan") for k in MEASURES} | {"lpips": judge.lpips(*pair)}
                for name, value in found.items():
                    values.setdefault(name, []).append(value)
                    if math.isfinite(value):
                        long.append({"task": task, "method": row, "image": r["image"], "metric": name, "value": value})
                for name in ("psnr", "ssim"):
                    before = float(r.get(f"{name}_measurement") or "nan")
                    values.setdefault(f"{name}_measurement", []).append(before)
            for name in wanted:
                grid.cells[label, name] = figure(values.get(name, []))
            for name in ("psnr", "ssim"):
                grid.cells[MEASUREMENT, name] = figure(values.get(f"{name}_measurement", []))
            if pairs:
                for name, value in judge.distances(*map(list, zip(*pairs, strict=True))).items():
                    grid.cells[label, name] = Figure(value)
        grids.append(grid)
    return long, grids


def wants(task: str, measure: str, judge: Judge) -> bool:
    """Whether a task's table has the measure."""
    if measure == "kernel_mse":
        return operators.find_task(task).blind
    return {"lpips": judge._lpips, "fid": judge._inception}.get(measure, True) is not None


def column_of(measure: str, kind: str) -> str:
    """The column of metrics.csv."""
    return f"{measure}_aligned" if kind == "aligned" and measure in ("psnr", "ssim") else measure


def draw(plan: Plan, refused: dict, task: str, count: int) -> pathlib.Path | None:
    """The first images under every method side by side, as in the paper's figures 3 to 5."""
    rows = [row for row in plan.rows if (task, row) not in refused]
    folders = [folder_of(plan, task, row) for row in rows]
    done = [[r["image"] for r in read_rows(f / "metrics.csv")] for f in folders]
    names = [name for name in (done[0] if done else []) if all(name in d for d in done)][:count]
    if not names:
        return None
    pictures, kind = [], estimates(folders[0])
    for name in names:
        truth = data.read_image(folders[0] / "truth" / f"{name}.png")
        shown = plots.magnified(data.read_image(folders[0] / "measurement" / f"{name}.png"), truth.shape[0])
        pictures.append([shown, truth, *(data.read_image(f / kind / f"{name}.png") for f in folders)])
    path = plan.output / "figures" / f"{task}.png"
    titles = [MEASUREMENT, "truth", *(ROWS[row][0] for row in rows)]
    plots.save_grid(path, pictures, titles, scale=max(1, 128 // pictures[0][1].shape[0]))
    return path
