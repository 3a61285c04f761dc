"""What is timed: a guided step against the bare network, whole restorations, and how they scale."""

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from cvsa_jax import checkpoints, operators, plots
from cvsa_jax.batch import guided_loops
from cvsa_jax.diffusion import CLD
from cvsa_jax.evaluation import scaling
from cvsa_jax.evaluation.hardware import device_peak_mib, peak, process_peak_mib
from cvsa_jax.evaluation.step import compiling_anew, step_rows
from cvsa_jax.evaluation.throughput import throughput_rows
from cvsa_jax.importers.published import STRUCTURES
from cvsa_jax.jobs import records
from cvsa_jax.jobs.settings import JobSettings
from cvsa_jax.jobs.training_settings import whole_numbers
from cvsa_jax.networks import build_prior
from cvsa_jax.noise import GaussianSettings
from cvsa_jax.priors import Prior
from cvsa_jax.sampler_settings import SamplerSettings
from cvsa_jax.settings import Settings, like, setting, values
from cvsa_jax.types import InputError

# Those that need no file, and whose operator is of an image alone.
TIMED = tuple(t.name for t in operators.TASKS.values() if not t.requires and not t.blind)
STEP, THROUGHPUT, DEVICES, PROCESSES = PARTS = "step", "throughput", "devices", "processes"
WHOLE = "motion_deblur"  # of whole restorations, unless tasks are named
REPEATS, REPEATS_VERSUS = 9, 3
RECORD, PICTURE = "benchmark.json", "benchmark.png"
_LISTS = "batch_sizes", "devices", "processes"


@dataclasses.dataclass(frozen=True)
class BenchmarkSettings(Settings):
    """What is timed."""

    output: str | None = setting(None, f"Folder of {RECORD} and {PICTURE}.", otherwise="none is written", path=True)
    parts: tuple[str, ...] = setting(
        (STEP,), "What is timed: a step against the bare network, whole restorations by the batch, those over "
        "several devices of one process (of a CPU virtual ones), those by several processes.", choices=PARTS,
    )  # fmt: skip
    checkpoint: str = like(JobSettings, "checkpoint")
    random_weights: str | None = setting(
        None, "A public model's structure without its weights, in place of --checkpoint.", choices=STRUCTURES,
        replaces=("checkpoint",),
    )  # fmt: skip
    dtype: str | None = like(JobSettings, "dtype")
    remat: bool = like(JobSettings, "remat")
    task: tuple[str, ...] = setting(
        (), "Task to time; may be repeated.", choices=TIMED, otherwise=f"all, and of whole restorations {WHOLE}",
        several=True,
    )  # fmt: skip
    image_size: int = setting(64, "Side of the images.", "pixels", low=8)
    batch_size: int = setting(8, "Images in a step.", low=1)
    batch_sizes: tuple[int, ...] = setting(
        (), "Several numbers of images in a step, of --parts=step,throughput.", otherwise="--batch_size"
    )
    steps_per_call: int = setting(8, "Steps of one timed call, and of a whole restoration.", low=2)
    repeats: int | None = setting(
        None, "Timed pairs of calls for each task.", low=1, otherwise=f"{REPEATS}, with --vs {REPEATS_VERSUS} runs"
    )
    batches: int = setting(4, "Batches of a whole restoration; the first is not in its images a second.", low=2)
    devices: tuple[int, ...] = setting(
        (),
        "Numbers of devices of --parts=devices.",
        otherwise="1,2,4,8 virtual ones on a CPU, else up to those there are",
    )
    processes: tuple[int, ...] = setting((1, 2), "Numbers of processes of --parts=processes.")
    fresh: bool = setting(False, "Compile anew what is kept from earlier runs; the time of that is told then alone.")
    sampler: str = like(SamplerSettings, "sampler", "ancestral")
    guidance: str = like(SamplerSettings, "guidance")
    time_grid: str = like(SamplerSettings, "time_grid")

    def __post_init__(self):
        super().__post_init__()
        for name in _LISTS:
            if getattr(self, name):
                object.__setattr__(self, name, whole_numbers(name, getattr(self, name)))
        refuse_finished(self.output)
        if self.random_weights is not None and set(self.parts) != {STEP}:
            raise ValueError("--random_weights has no checkpoint to restore with: it goes with --parts=step alone")
        if DEVICES in self.parts or PROCESSES in self.parts:
            scaling.check_counts(self.devices or (1,))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes of a step and of whole restorations."""
        return self.batch_sizes or (self.batch_size,)


def refuse_finished(output: str | None, record: str = RECORD) -> None:
    """Raises ValueError if a folder holds the record of an earlier run."""
    if output is not None and (pathlib.Path(output) / record).exists():
        raise ValueError(f"--output={output} holds {record} of an earlier run; name another folder")


def timed_prior(own: BenchmarkSettings, cld: CLD) -> Prior:
    """The prior of --checkpoint, or one of --random_weights, whose weights are all alike.

    Raises:
      InputError: if the images do not fit its network.
    """
    if own.random_weights is None:
        prior = checkpoints.load_prior(own.checkpoint, cld, own.dtype, own.remat).prior
    else:
        spec = STRUCTURES[own.random_weights]
        shapes = jax.eval_shape(spec.init, jax.random.key(0))
        params = jax.tree.map(lambda a: jnp.full(a.shape, 0.01, a.dtype), shapes)
        prior = build_prior(spec, params, cld, dtype=own.dtype, remat=own.remat)
    if own.image_size % prior.stride:
        raise InputError(f"--image_size must be a multiple of {prior.stride} for this network, got {own.image_size}")
    return prior


def job_values(own: BenchmarkSettings, cld: CLD) -> dict[str, Any]:
    """What `cvsa restore` is given for a whole restoration, but its task and its files."""
    names = ("checkpoint", "dtype", "remat", "image_size", "batch_size", "sampler", "guidance", "time_grid")
    given = {name: getattr(own, name) for name in names} | values(cld)
    return given | {"num_steps": own.steps_per_call, "num_samples": 1}


def _steps(own: BenchmarkSettings, cld: CLD, prior: Prior) -> Iterator[dict]:
    settings = SamplerSettings(own.sampler, own.guidance, own.steps_per_call, time_grid=own.time_grid)
    loops, side = guided_loops(prior, GaussianSettings().model(), settings, None), own.image_size
    for size in own.sizes:
        shape = (size, side, side, prior.channels or 3)
        yield from step_rows(prior, shape, _tasks(own, TIMED), own.steps_per_call, own.repeats or REPEATS, loops)


def _throughput(own: BenchmarkSettings, cld: CLD, prior: Prior) -> Iterator[dict]:
    given, channels = job_values(own, cld), prior.channels or 3
    yield from throughput_rows(given, _tasks(own, (WHOLE,)), own.sizes, own.batches, channels)


def _scaling(rows: Callable[..., Iterator[dict]], counts: Callable[[BenchmarkSettings], tuple[int, ...]]):
    def timed(own: BenchmarkSettings, cld: CLD, prior: Prior) -> Iterator[dict]:
        for task in _tasks(own, (WHOLE,)):
            channels = prior.channels or 3
            yield from rows(job_values(own, cld), task, counts(own), own.batches, channels, not own.fresh)

    return timed


def _tasks(own: BenchmarkSettings, usual: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(own.task or usual))


_ROWS = {
    STEP: _steps,
    THROUGHPUT: _throughput,
    DEVICES: _scaling(scaling.device_rows, lambda own: own.devices or scaling.default_counts()),
    PROCESSES: _scaling(scaling.process_rows, lambda own: own.processes),
}


def benchmark(own: BenchmarkSettings, cld: CLD) -> dict[str, Any]:
    """The record of the parts, each a list of rows; each row is also told on stderr as it comes.

    Raises:
      InputError: if the images do not fit the network, or a restoration fails.
    """
    prior, found = timed_prior(own, cld), {}
    with compiling_anew(own.fresh):
        for part in dict.fromkeys(own.parts):
            found[part] = []
            for row in _ROWS[part](own, cld, prior):
                found[part].append(row)
                print(f"{part}: {', '.join(f'{k} {v}' for k, v in row.items() if v is not None)}", file=sys.stderr)
    known = peak(jax.local_devices()[0].device_kind)
    most = {} if known is None else {"peak_flop_per_s": known[0], "peak_source": known[1]}
    memory = {"process_peak_mib": process_peak_mib(), "device_peak_mib": device_peak_mib()}
    return {"settings": values(own) | values(cld), "versions": records.versions(), **most, **memory, **found}


def panels(record: dict[str, Any]) -> list[plots.Panel]:
    """The plots of a record: one for each part."""
    found = []
    if rows := record.get(STEP):
        sizes = dict.fromkeys(row["batch_size"] for row in rows)
        curves = [_named(f"batch {size}", rows, size) for size in sizes]
        found.append(plots.Panel("A guided step", "bare value-and-vjp of the network = 1", "", curves, mark=1.0))
    for part, x, label in (
        (THROUGHPUT, "batch_size", "images in a batch"),
        (DEVICES, DEVICES, "devices of one process"),
        (PROCESSES, PROCESSES, "processes"),
    ):
        if rows := [row for row in record.get(part, []) if row["images_per_s"] is not None]:
            curves = [_over(x, task, rows) for task in dict.fromkeys(row["task"] for row in rows)]
            steps = record["settings"]["steps_per_call"]
            title = f"Whole restorations of {steps} steps"
            found.append(plots.Panel(title, label, "images/s", curves, "x", doubling=True, from_zero=True))
    return found


def _over(x: str, task: str, rows: list[dict]) -> plots.Curve:
    own = [row for row in rows if row["task"] == task]
    return plots.Curve(task, [row[x] for row in own], [row["images_per_s"] for row in own])


def _named(label: str, rows: list[dict], size: int) -> plots.Curve:
    own = [row for row in rows if row["batch_size"] == size]
    return plots.Curve(label, [row["task"] for row in own], [row["ratio"] for row in own], "o")


def save(folder: pathlib.Path, record: dict[str, Any]) -> None:
    """Write the record and its plots."""
    folder.mkdir(parents=True, exist_ok=True)
    if drawn := panels(record):
        plots.save_panels(folder / PICTURE, drawn, columns=2 if len(drawn) > 3 else 3)
    records.write_json(folder / RECORD, record)
