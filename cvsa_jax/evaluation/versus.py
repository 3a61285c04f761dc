"""PSNR against seconds of CVSA and of another library: settings, plots, record."""

import dataclasses
import pathlib
import sys
from typing import Any

from cvsa_jax import data, plots
from cvsa_jax.checkpoints import find_prior, read_prior
from cvsa_jax.diffusion import CLD
from cvsa_jax.evaluation import against_deepinv
from cvsa_jax.evaluation.benchmark import REPEATS_VERSUS, BenchmarkSettings, refuse_finished
from cvsa_jax.jobs import records, selection
from cvsa_jax.jobs.settings import JobSettings
from cvsa_jax.jobs.training_settings import whole_numbers
from cvsa_jax.noise import GaussianSettings
from cvsa_jax.settings import Settings, fields, like, require, setting, values

RECORD, PICTURE = "deepinv.json", "deepinv.png"
# Settings of the benchmark that a comparison has too.
SHARED = ("output", "checkpoint", "task", "image_size", "repeats")


@dataclasses.dataclass(frozen=True)
class VersusSettings(Settings):
    """A comparison with another library."""

    vs: str | None = setting(
        None, f"Another library to compare with, in place of the parts; it must be there: {against_deepinv.EXTRA}.",
        choices=("deepinv",), replaces=tuple(f.name for f in fields(BenchmarkSettings) if f.name not in SHARED),
    )  # fmt: skip
    input: str | None = like(JobSettings, "input", remote=False)
    limit: int = like(JobSettings, "limit", 8)
    evaluations: tuple[int, ...] = setting((28, 100), "Evaluations of the network for an image by the others' methods.")
    own_evaluations: tuple[int, ...] = setting((10, 28), "Those by CVSA, over all its chains.")
    clock: str = setting(
        against_deepinv.WALL, "What the plots and the leads are over: seconds, or those of the processors, which "
        "a busy machine changes less.", choices=against_deepinv.CLOCKS,
    )  # fmt: skip
    noise_std: float = setting(GaussianSettings().noise_std, "Noise of the measurements.", above=0)
    seed: int = like(JobSettings, "seed")

    def __post_init__(self):
        super().__post_init__()
        for name in ("evaluations", "own_evaluations"):
            object.__setattr__(self, name, whole_numbers(name, getattr(self, name)))
            if min(getattr(self, name)) < 2:
                raise ValueError(f"--{name} must be at least 2 each")


def check(own: VersusSettings, shared: BenchmarkSettings) -> None:
    """What can be checked before anything is computed.

    Raises:
      ValueError: on a task that the other library does not have, or no input. InputError: if the library is not there.
    """
    require({"input": own.input, "output": shared.output}, "input", "output")
    for task in shared.task:
        if task not in against_deepinv.SHARED:
            raise ValueError(f"--vs=deepinv has --task={', '.join(against_deepinv.SHARED)}, not {task}")
    refuse_finished(shared.output, RECORD)
    selection.list_inputs(str(own.input), False)
    against_deepinv.require()


def compare(own: VersusSettings, shared: BenchmarkSettings, cld: CLD) -> dict[str, Any]:
    """The record of the comparison; each row is also told on stderr as it comes."""
    files = selection.list_inputs(str(own.input), False)[: own.limit]
    channels = read_prior(find_prior(shared.checkpoint))[1][0].image_channels
    truths = data.load_squares(files, shared.image_size, channels)
    tasks = list(dict.fromkeys(shared.task or against_deepinv.USUAL))
    counts = dict.fromkeys(against_deepinv.THEIRS, own.evaluations) | {against_deepinv.OURS: own.own_evaluations}
    found, repeats = [], shared.repeats or REPEATS_VERSUS
    for row in against_deepinv.rows(shared.checkpoint, cld, truths, tasks, counts, own.noise_std, repeats, own.seed):
        found.append(row)
        print(", ".join(f"{k} {v}" for k, v in row.items() if k != "tried"), file=sys.stderr)
    settings = values(own) | {name: getattr(shared, name) for name in SHARED} | values(cld)
    facts = {"settings": settings, "versions": records.versions() | against_deepinv.versions(), "images": len(truths)}
    return facts | {"cores": against_deepinv.cores(), "rows": found, "lead": leads(found, own.clock)}


def leads(rows: list[dict[str, Any]], clock: str) -> list[dict[str, Any]]:
    """For each of our rows the best of the others' that takes no longer, and how many dB we are ahead of it."""
    found = []
    for row in (r for r in rows if r["method"] == against_deepinv.OURS):
        others = [r for r in rows if r["task"] == row["task"] and r["method"] != against_deepinv.OURS]
        within = [r for r in others if r[clock] <= row[clock]]
        best = max(within, key=lambda r: r["psnr"], default=None)
        found.append({
            "task": row["task"], clock: row[clock], "psnr": row["psnr"],
            "best_other": best and best["method"], "psnr_other": best and best["psnr"],
            "lead_db": best and round(row["psnr"] - best["psnr"], 3),
        })  # fmt: skip
    return found


def panels(rows: list[dict[str, Any]], clock: str) -> list[plots.Panel]:
    """A plot for each task."""
    found = []
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row for row in rows if row["task"] == task]
        curves = []
        for name in dict.fromkeys(row["method"] for row in own):
            points = sorted((r[clock], r["psnr"]) for r in own if r["method"] == name)
            style = "o-" if name == against_deepinv.OURS else "s--"
            curves.append(plots.Curve(name, [x for x, _ in points], [y for _, y in points], style))
        found.append(plots.Panel(task, f"{clock.replace('_', ' ')} an image", "PSNR, dB", curves, "x"))
    return found


def save(folder: pathlib.Path, record: dict[str, Any]) -> None:
    """Write the record and its plots."""
    folder.mkdir(parents=True, exist_ok=True)
    plots.save_panels(folder / PICTURE, panels(record["rows"], record["settings"]["clock"]))
    records.write_json(folder / RECORD, record)


def table(rows: list[dict[str, Any]]) -> str:
    """As Markdown, a line for each row."""
    lines = ["| task | method | evaluations | PSNR, dB | seconds an image | processor seconds |", "|---" * 6 + "|"]
    for row in rows:
        times = " | ".join(f"{row[clock]:.2f}" for clock in against_deepinv.CLOCKS)
        lines.append(f"| `{row['task']}` | {row['method']} | {row['evaluations']} | {row['psnr']:.2f} | {times} |")
    return "\n".join(lines)
