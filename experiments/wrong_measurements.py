"""What a job sees of measurements that were read wrongly: residual over noise, values out of range, a warning or none.

    python -m experiments.wrong_measurements --image_size=64 --limit=4

restores the shipped photographs by the presets, of at most --num_steps steps, and prints a table in Markdown. The
noise is estimated, as it is of measured files.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax import TASKS, load_prior, make_operator, preset_of, simulate
from cvsa_jax.batch import BatchRestorer, guided_loops
from cvsa_jax.commands import run
from cvsa_jax.data import load_squares
from cvsa_jax.folders import list_images
from cvsa_jax.jobs import cautions
from cvsa_jax.jobs.inputs import Entry, Measured
from cvsa_jax.jobs.settings import JobSettings
from cvsa_jax.noise import GaussianNoise
from cvsa_jax.noise_estimation import NoiseEstimator
from cvsa_jax.operators import Operator
from cvsa_jax.settings import Settings, build, fields, like, setting

PHOTOGRAPHS = pathlib.Path(__file__).parent / "samples"
STARTS = 4  # of a task whose answer is the start of least residual
UNKNOWN = 0.05  # the noise where it cannot be told
MISSED = 50  # a seed apart from those of the photographs


class Case(NamedTuple):
    """One fault. true, taken: (task, seed, side) -> the operator that measured, and that is taken for it.

    change: of the measurement, as the file has it.
    """

    task: str
    name: str
    true: Callable[[str, int, int], Operator]
    taken: Callable[[str, int, int], Operator]
    change: Callable[[np.ndarray], np.ndarray] = lambda y: y


def drawn(task: str, seed: int, side: int, **changes: Any) -> Operator:
    """The operator of a task."""
    return make_operator(task, np.random.default_rng(seed), side, side, **changes)


def wide(_: str, seed: int, side: int) -> Operator:
    """A Gaussian blur of 2.5 pixels."""
    return drawn("gaussian_deblur", seed, side, kernel_std=2.5)


def narrow(_: str, seed: int, side: int) -> Operator:
    """A Gaussian blur of .8 pixels."""
    return drawn("gaussian_deblur", seed, side, kernel_std=0.8)


def other(task: str, seed: int, side: int) -> Operator:
    """The operator of another photograph."""
    return drawn(task, seed + MISSED, side)


def double(y: np.ndarray) -> np.ndarray:
    """Values twice as large."""
    return 2 * y


CASES = (
    Case("phase_retrieval", "nothing", drawn, drawn),
    Case("phase_retrieval", "squared magnitudes", drawn, drawn, lambda y: y**2),
    Case("phase_retrieval", "frequency zero in the corner", drawn, drawn, lambda y: np.fft.ifftshift(y, (0, 1))),
    Case("phase_retrieval", "twice the values", drawn, drawn, double),
    Case("motion_deblur", "nothing", drawn, drawn),
    Case("motion_deblur", "another path of the camera", drawn, other),
    Case("motion_deblur", "a kernel that is too wide", narrow, wide),
    Case("motion_deblur", "a kernel that is too narrow", wide, narrow),
    Case("motion_deblur", "twice the values", drawn, drawn, double),
    Case("motion_deblur", "half the values", drawn, drawn, lambda y: y / 2),
    Case("box_inpaint", "nothing", drawn, drawn),
    Case("box_inpaint", "another hole", drawn, other),
    Case("box_inpaint", "twice the values", drawn, drawn, double),
    Case("mri", "nothing", drawn, drawn),
    Case("mri", "twice the values", drawn, drawn, double),
    Case("mri", "half the values", drawn, drawn, lambda y: y / 2),
)


@dataclasses.dataclass(frozen=True)
class WrongSettings(Settings):
    """What is measured."""

    tasks: tuple[str, ...] = setting(tuple(dict.fromkeys(case.task for case in CASES)), "The tasks.", choices=TASKS)
    image_size: int = setting(64, "Side of the photographs.", "pixels", low=16)
    checkpoint: str = like(JobSettings, "checkpoint")
    limit: int = setting(4, "Photographs, evenly spaced in the folder.", low=1)
    num_steps: int = setting(60, "Steps of a chain at most.", low=2)


def groups():
    """The program's flags."""
    return {"Wrong measurements": ("", fields(WrongSettings))}


def row(case: Case, std: float, batch: np.ndarray, prior, restorer: BatchRestorer) -> str:
    """The least and the largest of each figure over the photographs, and of how many a job warns."""
    task, side = TASKS[case.task], batch.shape[1]
    starts, estimator = (STARTS if task.ambiguous else 1), NoiseEstimator(task, prior)
    known: list[Measured] = []
    for number, x in enumerate(batch):
        clean = case.true(case.task, number, side)
        y = case.change(np.asarray(simulate(jax.random.key(number), clean, jnp.asarray(x), std)))
        taken = case.taken(case.task, number, side)
        told = estimator(y.astype(np.result_type(y, np.float32)), taken, x.shape) or UNKNOWN
        entry = Entry(pathlib.Path(str(number)), str(number), x.shape, str(number))
        known.append(Measured(entry, None, y, taken, noise_std=told))
    each = [one for one in known for _ in range(starts)]
    keys = jax.random.split(jax.random.key(3), len(each))
    noises = [GaussianNoise(one.noise_std) for one in each]
    ys, operators = np.stack([one.measurement for one in each]), [one.operator for one in each]
    found = restorer(keys, ys, operators, batch.shape[1:], lambda _: None, noises)
    figures, warned = [], 0
    for number, one in enumerate(known):
        own = slice(starts * number, starts * (number + 1))
        images, residual = found.images[own], float(found.residuals[own].min())
        noise, told = GaussianNoise(one.noise_std), float(one.noise_std or UNKNOWN)
        texts = cautions.misfit(residual, noise, one, task), cautions.out_of_range(images, task)
        warned += any(texts) or not np.isfinite(images).all() or cautions.much_noise(told, task) is not None
        figures.append((told, residual / told, 100 * float((np.abs(images) > cautions.LEVEL).mean())))
    spans = [f"{min(column):.2g} to {max(column):.2g}" for column in zip(*figures, strict=True)]
    return f"| `{case.task}` | {case.name} | {std:g} | " + " | ".join(spans) + f" | {warned} of {len(known)} |"


def check(given: dict) -> Callable[[], None]:
    """The work: it prints the table."""
    own = build(WrongSettings, given)
    prior, files = load_prior(own.checkpoint).prior, list_images(str(PHOTOGRAPHS))
    batch = load_squares(files[:: max(1, len(files) // own.limit)][: own.limit], own.image_size, 3)

    def work() -> None:
        print("| task | what was wrong | noise | noise told | residual over it | % beyond 1.2 | warned |")
        print("|---|---|---|---|---|---|---|")
        for name in own.tasks:
            usual = preset_of(name).sampler
            loop = dataclasses.replace(usual, num_steps=min(usual.num_steps, own.num_steps))
            restorer = BatchRestorer(prior, guided_loops(prior, GaussianNoise(UNKNOWN), loop, None), loop.num_steps)
            for case in (c for c in CASES if c.task == name):
                for std in (0.05, 0.01):
                    print(row(case, std, batch, prior, restorer), flush=True)

    return work


if __name__ == "__main__":
    run("experiments.wrong_measurements")
