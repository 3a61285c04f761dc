"""Compare methods as the paper's tables do, or judge the posterior samples of a finished job.

    python -m experiments.evaluate --preset=table1 --data=FOLDER --output=results/table1

runs every method on every task of the paper's table 1 (linear tasks), 2 (nonlinear) or 3 (blind): the same
prior, images, operators, measurements and seed. A job that was stopped goes on with the same command.
Writes jobs/ (each a folder of experiments.restore), per_image.csv, table.md, table.tex, figures/,
report.html and comparison.json, where every setting and every job's command stands.

    python -m experiments.restore --task=sr4 --input=FOLDER --output=results/sr4 --aim=posterior
    python -m experiments.evaluate --results=results/sr4

reports, for each image and in the mean: PSNR of the samples' mean and of a single sample, the root
mean square error of the mean and what the samples' deviation lets expect, and the coverage:
the share of the pixels whose truth lies in the 90 % interval (`cvsa_jax.metrics.interval`).
A posterior that is right has a coverage of 90 and equal error and deviation. Writes
uncertainty.csv beside the pictures and prints the means as JSON.
"""

import csv
import json
import pathlib

from absl import flags

from cvsa_jax import operators
from experiments import common, comparison, datasets, report, tables, uncertainty

LINEAR = ["sr4", "box_inpaint", "random_inpaint", "gaussian_deblur", "motion_deblur"]
PRESETS = {
    "table1": LINEAR,
    "table2": ["phase_retrieval", "nonlinear_deblur"],
    "table3": ["blind_motion_deblur", "blind_gaussian_deblur"],
}
flags.DEFINE_string("results", None, "Judge the samples of this job of experiments.restore.")
flags.DEFINE_float("level", 0.9, "--results: probability of the intervals.", lower_bound=0.01, upper_bound=0.999)
flags.DEFINE_enum("preset", None, list(PRESETS), "The paper's table.")
flags.DEFINE_list("tasks", None, "The tasks, in place of --preset.")
flags.DEFINE_list("methods", None, f"Of {', '.join(comparison.ROWS)}; by default all that can do the tasks.")
flags.DEFINE_string("data", None, "Folder of images; those of FFHQ, CelebA-HQ, AFHQ and Products-6k are known.")
flags.DEFINE_string("list", None, "Text file with the images to take, a path a line, relative to the set's folder.")
flags.DEFINE_integer("limit", 32, "The first N images.", lower_bound=1)
flags.DEFINE_integer("image_size", 256, "Cut the centre square and resize it to this.", lower_bound=8)
flags.DEFINE_string("output", None, "Folder of the results.")
flags.DEFINE_string("checkpoint", str(common.DEFAULT_CHECKPOINT), "Folder of the prior.")
flags.DEFINE_string("kernel_checkpoint", str(common.KERNEL_CHECKPOINT), "Folder of the prior of kernels.")
flags.DEFINE_integer("evaluations", None, "Network evaluations an image; by default each method's own.", lower_bound=2)
flags.DEFINE_float("noise_std", 0.05, "Standard deviation of the noise, for images in [-1, 1].")
flags.DEFINE_enum("boundary", "reflect", list(operators.BOUNDARIES), "Blurs by a kernel: beyond the border.")
flags.DEFINE_string(
    "bkse_weights", None, "Take the paper's own nonlinear blur in place of the camera's, by these weights."
)
flags.DEFINE_string("inception_weights", None, "FID: the published weights (.pth, or .npz of import_weights).")
flags.DEFINE_string("lpips_weights", None, "LPIPS: CLASSIFIER.pth,LINEAR.pth, or an .npz of import_weights.")
flags.DEFINE_integer("seed", 0, "Seed of masks, kernels, noise and samples.")
flags.DEFINE_integer("batch_size", 16, "Samples restored together.", lower_bound=1)
flags.DEFINE_integer("figure_images", 4, "Images in each figure and in the report.", lower_bound=1)
FLAGS = flags.FLAGS


def make_plan() -> tuple[comparison.Plan, dict]:
    """What to run, and facts for the record.

    Raises:
      ValueError: on a flag that is missing or wrong.
    """
    for name in ("data", "output"):
        if FLAGS[name].value is None:
            raise ValueError(f"--{name} is required")
    if (FLAGS.preset is None) == (FLAGS.tasks is None):
        raise ValueError("give --preset or --tasks, or --results to judge the samples of a job")
    tasks = FLAGS.tasks or list(PRESETS[FLAGS.preset])
    if FLAGS.bkse_weights:
        tasks = ["bkse_deblur" if task == "nonlinear_deblur" else task for task in tasks]
    found = [operators.find_task(task) for task in tasks]
    unknown = [m for m in FLAGS.methods or [] if m not in comparison.ROWS]
    if unknown:
        raise ValueError(f"--methods must be of {', '.join(comparison.ROWS)}, got {unknown[0]!r}")
    rows = FLAGS.methods or [row for row in comparison.ROWS if any(comparison.may(row, task) for task in found)]
    name, folder = datasets.locate(FLAGS.data)
    if FLAGS.list:
        files = [str(f.relative_to(folder)) for f in datasets.read_list(FLAGS.list, folder)][: FLAGS.limit]
    else:
        files = datasets.first_images(folder, FLAGS.limit)
    output = pathlib.Path(FLAGS.output)
    shared = [f"--input={folder}", f"--list={output / 'images.txt'}"]
    same = "image_size", "checkpoint", "kernel_checkpoint", "noise_std", "boundary", "seed", "batch_size"
    shared += [f"--{n}={FLAGS[n].value}" for n in same]
    shared += [f"--bkse_weights={FLAGS.bkse_weights}"] if FLAGS.bkse_weights else []
    plan = comparison.Plan(tasks, rows, shared, FLAGS.evaluations, output)
    return plan, {"set": name, "files": files}


def compare(plan: comparison.Plan, facts: dict, judge: comparison.Judge) -> None:
    """Run the jobs and write what came out."""
    (plan.output / "images.txt").write_text("\n".join(facts["files"]) + "\n")
    refused = comparison.run(plan)
    long, grids = comparison.collect(plan, refused, judge)
    with (plan.output / "per_image.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("task", "method", "image", "metric", "value"))
        writer.writeheader()
        writer.writerows(long)
    shown = ("psnr", "ssim", "fid" if FLAGS.inception_weights else "patch_distance", "kernel_mse")
    overview = tables.Overview(grids, shown)
    text = "\n".join([overview.markdown(), *(grid.markdown() for grid in grids)])
    (plan.output / "table.md").write_text(f"{caption(plan, facts)}\n\n{text}")
    (plan.output / "table.tex").write_text(overview.latex(caption(plan, facts)))
    commands = {f"{t}, {r}": comparison.arguments(plan, t, r) for t in plan.tasks for r in plan.rows}
    record = {"settings": common.flag_values(), "versions": common.versions(), "files": facts["files"],
              "commands": commands, "refused": {f"{t}, {r}": why for (t, r), why in refused.items()}}  # fmt: skip
    common.write_json(plan.output / "comparison.json", record)
    for task in plan.tasks:
        comparison.draw(plan, refused, task, FLAGS.figure_images)
    report.comparison_report(plan, refused, grids, caption(plan, facts), FLAGS.figure_images)
    print(text)
    print(f"figures and the report: {plan.output / 'figures'}, {plan.output / 'report.html'}")


def caption(plan: comparison.Plan, facts: dict) -> str:
    """What the table shows."""
    work = f"{plan.evaluations} network evaluations an image" if plan.evaluations else "each method's own steps"
    size = f"{FLAGS.image_size}x{FLAGS.image_size}"
    return (
        f"{len(facts['files'])} images of {facts['set']} at {size}, noise {FLAGS.noise_std:g}, {work}; mean ± half of "
        "the 95 % interval over the images; the best in bold."
    )


def main() -> None:
    with common.user_errors():
        if FLAGS.results:
            print(json.dumps(uncertainty.report(pathlib.Path(FLAGS.results), FLAGS.level), indent=1))
            return
        plan, facts = make_plan()
        judge = comparison.Judge(FLAGS.inception_weights, FLAGS.lpips_weights)
        free = (
            "output",
            "batch_size",
            "figure_images",
            "methods",
            "inception_weights",
            "lpips_weights",
            "results",
            "level",
        )
        claimed = {k: v for k, v in common.flag_values().items() if k not in free}
        common.claim_folder(plan.output, claimed)
    compare(plan, facts, judge)


if __name__ == "__main__":
    common.run(main)
