"""Compare methods as the paper's tables do, or judge the posterior samples of a finished job.

    cvsa evaluate --preset=table1 --data=FOLDER --output=results/table1

runs every method on every task of the paper's table 1 (linear tasks), 2 (nonlinear) or 3 (blind): the same
prior, images, operators, measurements and seed. A comparison that was stopped goes on with the same command.
It writes jobs/ (each a folder of cvsa restore), per_image.csv, table.md, table.tex, figures/, report.html,
constants.csv, which says where each constant of a baseline comes from, and comparison.json, which has every setting
and every job's command. With --evaluations every method runs as one chain, and as the mean of two of half the length
and of four of a quarter; the tables show the best and say which. A chain of another method has at most 1000 steps.

    cvsa restore --task=sr4 --input=FOLDER --output=results/sr4 --aim=posterior
    cvsa evaluate --results=results/sr4

reports, for each image and in the mean: PSNR of the samples' mean and of a single sample, the root mean square
error of the mean and the one that the samples' deviation promises, and the coverage: the share of the pixels
whose truth lies in the interval of --level, .9 (cvsa_jax.posterior.interval). A posterior that is right has a coverage
of .9 and equal error and deviation. It writes uncertainty.csv beside the pictures and prints the means as JSON.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

from cvsa_jax.commands import require_images
from cvsa_jax.commands.flags import Groups
from cvsa_jax.evaluation import comparison, datasets, uncertainty
from cvsa_jax.evaluation.judge import Judge
from cvsa_jax.evaluation.rows import CHAINS, ROWS, may
from cvsa_jax.jobs import records, selection
from cvsa_jax.jobs.methods import PHASE_STARTS
from cvsa_jax.jobs.settings import JobSettings, belongs, known, owners
from cvsa_jax.operators import find_task
from cvsa_jax.presets import RESIDUAL, preset_of
from cvsa_jax.settings import Settings, build, fields, like, require, setting, values

__all__ = ["belongs", "check", "groups"]

FIRST = 32  # images that a comparison takes
LINEAR = ("sr4", "box_inpaint", "random_inpaint", "gaussian_deblur", "motion_deblur")
PRESETS = {
    "table1": LINEAR,
    "table2": ("phase_retrieval", "nonlinear_deblur"),
    "table3": ("blind_motion_deblur", "blind_gaussian_deblur"),
}


@dataclasses.dataclass(frozen=True)
class EvaluateSettings(Settings):
    """A comparison, or a judgement of samples."""

    results: str | None = setting(None, "Judge the samples of this folder of cvsa restore.", free=True, path=True)
    level: float = setting(0.9, "--results: the probability of the intervals.", low=0.01, high=0.999, free=True)
    preset: str | None = setting(None, "The paper's table.", choices=PRESETS)
    tasks: tuple[str, ...] = setting((), "The tasks, in place of --preset.")
    methods: tuple[str, ...] = setting((), "The rows.", choices=ROWS, otherwise="all that can do the tasks", free=True)
    data: str | None = setting(
        None, "Folder of images; those of FFHQ, CelebA-HQ, AFHQ and Products-6k are known.", free=True, path=True
    )
    list: str | None = setting(
        None, "Text file that names the images to take, a path a line, relative to the set.", free=True, path=True
    )
    output: str | None = setting(None, "Folder of the results.", free=True, path=True)
    limit: int | None = setting(
        None, "The first N images.", low=1, otherwise=f"{FIRST}, and all that --list names", free=True
    )
    image_size: int = setting(256, "Cut the centre square and resize it to this side.", "pixels", low=8)
    evaluations: int | None = setting(
        None, "Network evaluations of an image.", low=2, otherwise="each method's own number"
    )
    inception_weights: str | None = setting(
        None, "For FID: the published weights (.pth, or .npz of cvsa import).", free=True, path=True
    )
    lpips_weights: str | None = setting(
        None, "For LPIPS: CLASSIFIER.pth,LINEAR.pth, or an .npz of cvsa import.", free=True, path=True, listed=True
    )
    figure_images: int = setting(4, "Images in each figure and in the report.", low=1, free=True)
    checkpoint: str = like(JobSettings, "checkpoint")
    noise: str = like(JobSettings, "noise")
    seed: int = like(JobSettings, "seed")
    batch_size: int = like(JobSettings, "batch_size")


def groups() -> Groups:
    """The verb's flags."""
    shared = {heading: group for heading, group in known().items() if heading in ("Degradation", "Noise", "Diffusion")}
    return {"Comparison": ("", fields(EvaluateSettings)), **shared}


def check(given: dict[str, Any]) -> Callable[[], None]:
    """The comparison, or the judgement."""
    own = build(EvaluateSettings, given)
    if "level" in given and own.results is None:
        raise ValueError("--level belongs to --results")
    if own.results is not None:
        extra = [name for name in given if name not in ("results", "level")]
        if extra:
            raise ValueError(f"--{extra[0]} has no effect beside --results")
        return lambda: print(json.dumps(uncertainty.report(pathlib.Path(str(own.results)), own.level), indent=1))
    plan, files, name = make_plan(own, given)
    judge = Judge({"inception_weights": own.inception_weights, "lpips_weights": own.lpips_weights})
    free = {f.name for f in fields(EvaluateSettings) if f.setting.free}
    settings = {**values(own), **given}
    comparison.check(plan)
    facts = {"images": name, "files": files}
    lock = records.claim_folder(plan.output, {k: v for k, v in settings.items() if k not in free} | facts)

    def work() -> None:
        shown = caption(plan, own, len(files), name)
        text, failed = comparison.compare(plan, files, judge, shown, settings, own.figure_images)
        print(text)
        print(f"figures and the report: {plan.output / 'figures'}, {plan.output / 'report.html'}")
        lock.release()
        require_images({str(job.folder): len(job.failures) for job in failed})

    return work


def make_plan(own: EvaluateSettings, given: dict[str, Any]) -> tuple[comparison.Plan, list[str], str]:
    """(what to run, the images relative to their folder, the set's name).

    Raises:
      ValueError: on a value that is missing, wrong or of no effect.
    """
    require(given, "data", "output")
    if (own.preset is None) == (not own.tasks):
        raise ValueError("give --preset or --tasks, or --results to judge the samples of a job")
    tasks = list(own.tasks or PRESETS[str(own.preset)])
    if given.get("bkse_weights") and own.preset:  # the paper's own nonlinear blur in place of the camera's
        tasks = ["bkse_deblur" if task == "nonlinear_deblur" else task for task in tasks]
    found = [find_task(task) for task in tasks]
    operator_flags = {f.name for f in known()["Degradation"][1]}
    for name in operator_flags & given.keys():
        if not any(name in [f.name for f in fields(task.settings)] for task in found):
            places = ", ".join(some for flag, names in owners(name) if flag == "task" for some in names)
            raise ValueError(f"--{name} belongs to --tasks={places}, not to {', '.join(tasks)}")
    rows = list(own.methods or [row for row in ROWS if any(may(row, task) for task in found)])
    name, folder = datasets.locate(str(own.data))
    if own.list:
        files = [str(f.relative_to(folder)) for f in selection.read_list(own.list, folder)][: own.limit]
    else:
        files = datasets.first_images(folder, own.limit or FIRST, own.output)
    output = pathlib.Path(str(own.output))
    forwarded = operator_flags | {f.name for heading in ("Noise", "Diffusion") for f in known()[heading][1]}
    shared = {"input": str(folder), "list": str(output / "images.txt"), "image_size": own.image_size}
    shared |= {n: getattr(own, n) for n in ("checkpoint", "noise", "seed", "batch_size")}
    shared |= {n: v for n, v in given.items() if n in forwarded}
    plan = comparison.Plan(tasks, rows, shared, own.evaluations, output)
    return plan, files, name


def caption(plan: comparison.Plan, own: EvaluateSettings, count: int, name: str) -> str:
    """What the tables show."""
    work = "each method's own steps"
    if plan.evaluations:
        starts = [preset_of(task).combine == RESIDUAL for task in plan.tasks]
        means = f"the means of {' and '.join(map(str, CHAINS[1:]))}"
        several = [means] * (not all(starts)) + [f"{PHASE_STARTS} starts"] * any(starts)
        work = f"{plan.evaluations} network evaluations an image, the best of one chain and {' or '.join(several)}"
    size, job = f"{own.image_size}x{own.image_size}", comparison.noise_text(plan)
    return (
        f"{count} images of {name} at {size}, {job}, {work}; mean ± half of the 95 % interval over the images; "
        "the best in bold."
    )
