"""Figures of one image, as the paper's.

    python -m experiments.figures --kind=tasks --input=IMAGE --output=figures
    python -m experiments.figures --kind=path --task=motion_deblur --input=IMAGE --output=figures
    python -m experiments.figures --kind=checkout --input=FOLDER --output=figures

`tasks` (its figure 1) has every task on one sheet, `checkout` (6) goods held in a hand. `path` (2)
shows position, velocity and the denoised image on the way, as a film strip (path.png) and
animated (path.webp). Figures 3 to 5, methods side by side, are written by experiments.evaluate.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from PIL import Image

from cvsa_jax import checkpoints, data, diffusion, guided_sampler, operators, plots
from cvsa_jax.operators import View
from cvsa_jax.operators.base import canvas_shape
from experiments import common, comparison, inputs, job_flags, jobs, methods, settings

KINDS = ("tasks", "path", "checkout")
flags.DEFINE_enum("kind", None, KINDS, "Which figure.", required=True)
flags.DEFINE_string("input", None, "An image; of --kind=checkout a folder of them too.", required=True)
flags.DEFINE_string("output", None, "Folder of the figures.", required=True)
flags.DEFINE_string("task", "motion_deblur", "--kind=path: what is undone.")
flags.DEFINE_list("tasks", None, "--kind=tasks: which; by default all that need no file.")
flags.DEFINE_string("checkpoint", str(common.DEFAULT_CHECKPOINT), "Folder of the prior.")
flags.DEFINE_integer("image_size", 64, "Cut the centre square and resize it to this.", lower_bound=8)
flags.DEFINE_integer("num_steps", 50, "--kind=path: reverse steps.", lower_bound=2)
flags.DEFINE_integer("num_frames", 8, "--kind=path: pictures of the film strip.", lower_bound=2)
flags.DEFINE_integer("limit", 4, "--kind=checkout: the first N images.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of masks, kernels, noise and samples.")
FLAGS = flags.FLAGS
NEEDS_FILE = ("mask_inpaint", "bkse_deblur")


def restored(task: str, folder: pathlib.Path, limit: int) -> list[tuple]:
    """(measurement, restoration, truth) of the first images, by a job in that folder."""
    job = jobs.prepare(job_flags.parse([
        f"--task={task}", f"--input={FLAGS.input}", f"--limit={limit}", f"--image_size={FLAGS.image_size}",
        f"--checkpoint={FLAGS.checkpoint}", f"--seed={FLAGS.seed}", f"--output={folder}",
    ]))  # fmt: skip
    job.run()
    kind, out = comparison.estimates(folder), []
    for row in comparison.read_rows(folder / "metrics.csv"):
        out.append(tuple(data.read_image(folder / k / f"{row['image']}.png") for k in ("measurement", kind, "truth")))
    return out


def tasks_sheet(output: pathlib.Path) -> pathlib.Path:
    """Every task on one image: measurements above, restorations below."""
    tasks = FLAGS.tasks or [t for t in operators.TASKS if t not in NEEDS_FILE]
    for task in tasks:
        operators.find_task(task)
    columns = []
    for task in tasks:
        for measurement, image, _ in restored(task, output / "jobs" / task, 1):
            columns.append((task, plots.magnified(measurement, image.shape[0]), image))
    path, half = output / "tasks.png", -(-len(columns) // 2)
    blocks = [tuple(zip(*block, strict=True)) for block in (columns[:half], columns[half:]) if block]
    scale = max(1, 128 // FLAGS.image_size)
    plots.save_blocks(path, [(titles, rows) for titles, *rows in blocks], scale)
    return path


def path_figure(output: pathlib.Path) -> pathlib.Path:
    """Position, velocity and denoised image along one reverse path."""
    task = operators.find_task(FLAGS.task)
    if task.blind:
        raise ValueError("--kind=path is for tasks whose kernel is known")
    preset = settings.preset_of(FLAGS.task)
    if preset.start == "noise":  # a sample goes a way; noise drawn afresh has none
        preset = settings.preset_of(FLAGS.task, methods.POSTERIOR)
    loaded = checkpoints.load_prior(FLAGS.checkpoint)
    options = operators.OperatorOptions()
    file = inputs.list_inputs(FLAGS.input, False)[0]
    image = data.to_float(data.centre_square(data.open_image(file).convert("RGB"), FLAGS.image_size))
    operator = operators.make_operator(FLAGS.task, np.random.default_rng(FLAGS.seed), *image.shape[:2], options)
    noise_key, chain_key = jax.random.split(jax.random.key(FLAGS.seed))
    y = operators.simulate(noise_key, operator, jnp.asarray(image), 0.05)
    canvas = canvas_shape(*image.shape[:2], loaded.spec.build().stride, loaded.spec.image_channels)
    chain = guided_sampler(
        y, View(operator, *image.shape[:2]), loaded.prior, noise_std=0.05, num_steps=FLAGS.num_steps,
        sampler=preset.sampler, guidance=preset.guidance, time_grid_name=preset.time_grid, start=preset.start,
        t_start=preset.t_start, t_end=preset.t_end,
    )  # fmt: skip

    def step(state, index):
        new, _ = chain.step(state, index)
        return new, (state.x, state.v)

    run = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(FLAGS.num_steps)))
    last, (x, v) = run(chain.init(chain_key, canvas))
    times = diffusion.time_grid(preset.time_grid, FLAGS.num_steps, loaded.prior.cld, preset.t_start, preset.t_end)
    chosen = np.unique(np.linspace(0, FLAGS.num_steps - 1, FLAGS.num_frames).round().astype(int))
    height, width = image.shape[:2]

    def frame(x, v, mean):
        """The velocity is shown in units of its own deviation, a third of the range each."""
        return [np.asarray(a)[:height, :width] for a in (x, v / (3 * loaded.prior.cld.mass**0.5), mean)]

    frames = [frame(x[i], v[i], loaded.prior.posterior_mean(x[i], v[i], t)) for i, t in enumerate(times[:-1])]
    frames.append(frame(last.x, last.v, last.x))
    titles = [*(f"t = {times[i]:.3g}" for i in chosen), "restored"]
    strip = [[frames[i][row] for i in (*chosen, -1)] for row in range(3)]
    scale = max(1, 128 // FLAGS.image_size)
    plots.save_grid(output / "path.png", strip, titles, scale)
    shown = np.asarray(y) if task.picture and y.shape == image.shape else image
    pictures = [plots.image_grid([[shown, *frame]], scale) for frame in frames]
    animation = [Image.fromarray(p) for p in pictures]
    animation[0].save(
        output / "path.webp",
        save_all=True,
        append_images=animation[1:],
        duration=[80] * (len(frames) - 1) + [1500],
        loop=0,
    )
    return output / "path.png"


def checkout_figure(output: pathlib.Path) -> pathlib.Path:
    """Goods held in a hand before a shaken camera: truth, measurement, restoration."""
    found = restored("checkout", output / "jobs" / "checkout", FLAGS.limit)
    rows = [[f[2] for f in found], [f[0] for f in found], [f[1] for f in found]]
    plots.save_grid(output / "checkout.png", rows, (), max(1, 128 // FLAGS.image_size))
    return output / "checkout.png"


def main() -> None:
    with common.user_errors():
        output = pathlib.Path(FLAGS.output)
        output.mkdir(parents=True, exist_ok=True)
        path = {"tasks": tasks_sheet, "path": path_figure, "checkout": checkout_figure}[FLAGS.kind](output)
    print(f"figure: {path}")


if __name__ == "__main__":
    common.run(main)
