"""How well noise is estimated: each estimator's answer over the true deviation, on the shipped photographs.

    python -m experiments.noise_estimates --image_size=64 --limit=4

prints a table in Markdown. The measurements of pictures are rounded to 8 bits, as those of files are.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax import TASKS, images, load_prior, make_operator, simulate
from cvsa_jax.commands import run
from cvsa_jax.data import load_squares
from cvsa_jax.folders import list_images
from cvsa_jax.jobs.settings import JobSettings
from cvsa_jax.noise_estimation import NoiseEstimator, denoised_std, spectral_std, wavelet_std
from cvsa_jax.settings import Settings, build, fields, like, setting

PHOTOGRAPHS = pathlib.Path(__file__).parent / "samples"
TRUE = (0.01, 0.02, 0.05, 0.1, 0.2)


@dataclasses.dataclass(frozen=True)
class EstimateSettings(Settings):
    """What is measured, and how often."""

    tasks: tuple[str, ...] = setting(
        ("denoise", "mask_inpaint", "gaussian_deblur", "motion_deblur", "sr4"), "The tasks.", choices=TASKS
    )
    image_size: int = setting(64, "Side of the photographs.", "pixels", low=16)
    checkpoint: str = like(JobSettings, "checkpoint")
    limit: int = setting(4, "Photographs, evenly spaced in the folder.", low=1)


def groups():
    """The program's flags."""
    return {"Estimates": ("", fields(EstimateSettings))}


def answers(task, operator, y, image_shape, prior) -> dict[str, float | None]:
    """What every estimator that can answer says of one measurement."""
    estimator = NoiseEstimator(TASKS[task], prior)
    found = {"auto": estimator(y, operator, image_shape)}
    if TASKS[task].picture:
        seen = np.asarray(operator.restrict(jnp.ones_like(y)))[..., 0] != 0
        found["wavelet"] = wavelet_std(y, seen)
        found["denoised"] = denoised_std(y, seen, prior, np.nan_to_num(found["wavelet"], nan=0.1))
        kernel = operator.blur_kernel()
        if seen.all():
            found["spectral"] = spectral_std(y, np.ones((1, 1)) if kernel is None else kernel, prior)
    return found


def row(task: str, std: float, batch: np.ndarray, prior) -> str:
    """The median, the least and the largest of each estimate over the truth."""
    ratios: dict[str, list[float]] = {}
    for number, x in enumerate(batch):
        changes = {} if task != "mask_inpaint" else {"mask": hole(x.shape[0])}
        operator = make_operator(task, np.random.default_rng(number), *x.shape[:2], **changes)
        y = np.asarray(simulate(jax.random.key(number), operator, jnp.asarray(x), std))
        if TASKS[task].picture:
            y = np.asarray(operator.restrict(images.to_bytes(y) / np.float32(127.5) - 1))
        for name, found in answers(task, operator, y, x.shape, prior).items():
            ratios.setdefault(name, []).append(np.nan if found is None else found / std)
    cells = []
    for name in ("wavelet", "spectral", "denoised", "auto"):
        own = ratios.get(name)
        cells.append("-" if own is None else f"{np.median(own):.2f} ({np.min(own):.2f} to {np.max(own):.2f})")
    return f"| `{task}` | {std:g} | " + " | ".join(cells) + " |"


def hole(side: int) -> np.ndarray:
    """The shipped mask, as large as the photographs."""
    seen = images.read_grey(PHOTOGRAPHS.parent / "masks" / "hand64.png") < 128
    index = np.arange(side) * len(seen) // side
    return seen[index][:, index]


def check(given: dict) -> Callable[[], None]:
    """The work: it prints the table."""
    own = build(EstimateSettings, given)
    prior, files = load_prior(own.checkpoint).prior, list_images(str(PHOTOGRAPHS))
    batch = load_squares(files[:: max(1, len(files) // own.limit)][: own.limit], own.image_size, 3)

    def work() -> None:
        print("| task | true | wavelet | spectral | denoised | auto |\n|---|---|---|---|---|---|")
        for task in own.tasks:
            for std in TRUE:
                print(row(task, std, batch, prior), flush=True)

    return work


if __name__ == "__main__":
    run("experiments.noise_estimates")
