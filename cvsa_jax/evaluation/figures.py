"""Figures of one image, as the paper's."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from cvsa_jax import checkpoints, diffusion, images, operators, plots
from cvsa_jax.evaluation.finished import FinishedJob
from cvsa_jax.jobs import prepare, resolve, selection
from cvsa_jax.jobs.settings import JobSettings
from cvsa_jax.noise import GaussianSettings
from cvsa_jax.presets import POSTERIOR, preset_of
from cvsa_jax.restoration import guided_sampler, view
from cvsa_jax.sampler_settings import COARSE, NOISE
from cvsa_jax.seeds import key_of_seed
from cvsa_jax.settings import Settings, like, setting
from cvsa_jax.types import InputError

KINDS = ("tasks", "path", "checkout")


@dataclasses.dataclass(frozen=True)
class FigureSettings(Settings):
    """A figure."""

    kind: str | None = setting(None, "Which figure.", choices=KINDS)
    input: str | None = setting(None, "An image; of --kind=checkout a folder of them too.", path=True)
    output: str | None = setting(None, "Folder of the figures.", path=True)
    task: str = setting("motion_deblur", "--kind=path: what is undone.")
    tasks: tuple[str, ...] = setting((), "--kind=tasks: which.", otherwise="all that need no file")
    checkpoint: str = like(JobSettings, "checkpoint")
    image_size: int = setting(64, "Cut the centre square and resize it to this side.", "pixels", low=8)
    num_steps: int = setting(50, "--kind=path: reverse steps.", low=2)
    num_frames: int = setting(8, "--kind=path: pictures of the film strip.", low=2)
    limit: int = setting(4, "--kind=checkout: the first N images.", low=1)
    seed: int = like(JobSettings, "seed")


def restored(own: FigureSettings, task: str, folder: pathlib.Path, limit: int) -> list[tuple]:
    """(measurement, restoration, truth) of the first images, by a job in that folder.

    Raises:
      InputError: if the job cannot be run.
    """
    given = {"task": task, "input": own.input, "limit": limit, "image_size": own.image_size,
             "checkpoint": own.checkpoint, "seed": own.seed, "output": str(folder)}  # fmt: skip
    try:
        prepare(resolve(given)).run()
    except ValueError as error:
        raise InputError(f"{task}: {error}") from error
    done = FinishedJob(folder)
    return [tuple(done.image(k, name) for k in ("measurement", done.kind, "truth")) for name in done.names]


def tasks_sheet(own: FigureSettings, output: pathlib.Path) -> pathlib.Path:
    """Every task on one image: measurements above, restorations below."""
    columns = []
    for task in own.tasks or [t.name for t in operators.TASKS.values() if not t.requires]:
        for measurement, image, _ in restored(own, task, output / "jobs" / task, 1):
            columns.append((task, plots.magnified(measurement, image.shape[0]), image))
    path, half = output / "tasks.png", -(-len(columns) // 2)
    blocks = [tuple(zip(*block, strict=True)) for block in (columns[:half], columns[half:]) if block]
    plots.save_blocks(path, [(titles, rows) for titles, *rows in blocks], max(1, 128 // own.image_size))
    return path


def path_figure(own: FigureSettings, output: pathlib.Path) -> pathlib.Path:
    """Position, velocity and denoised image along one reverse path."""
    task = operators.find_task(own.task)
    loop = preset_of(own.task).sampler
    if loop.start in (NOISE, COARSE):  # a sample goes a way; noise drawn afresh has none
        loop = preset_of(own.task, POSTERIOR).sampler
    loop = dataclasses.replace(loop, num_steps=own.num_steps, num_corrections=0, data_weight=1.0)
    prior, noise = checkpoints.load_prior(own.checkpoint).prior, GaussianSettings().model()
    if prior.channels not in (None, 3):
        raise InputError(f"--checkpoint={own.checkpoint} is no prior of colour images")
    file = selection.list_inputs(str(own.input), False, own.output)[0]
    image = images.to_float(images.centre_square(images.open_image(file).convert("RGB"), own.image_size))
    operator = operators.make_operator(own.task, np.random.default_rng(own.seed), *image.shape[:2])
    noise_key, chain_key = jax.random.split(key_of_seed(own.seed))
    y = operators.simulate(noise_key, operator, jnp.asarray(image), noise)
    chain = guided_sampler(y, view(operator, prior, image.shape), prior, noise_std=noise, settings=loop)

    def step(state, index):
        new, _ = chain.step(state, index)
        return new, (state.x, state.v)

    run = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(own.num_steps)))
    last, (x, v) = run(chain.init(chain_key, prior.canvas(image.shape)))
    times = diffusion.time_grid(loop.time_grid, own.num_steps, prior.cld, loop.t_start, loop.t_end)
    chosen = np.unique(np.linspace(0, own.num_steps - 1, own.num_frames).round().astype(int))
    height, width = image.shape[:2]

    def frame(x, v, mean):
        """The velocity is shown in units of its own deviation, a third of the range each."""
        return [np.asarray(a)[:height, :width] for a in (x, v / (3 * prior.cld.mass**0.5), mean)]

    frames = [frame(x[i], v[i], prior.posterior_mean(x[i], v[i], t)) for i, t in enumerate(times[:-1])]
    frames.append(frame(last.x, last.v, last.x))
    titles = [*(f"t = {times[i]:.3g}" for i in chosen), "restored"]
    strip = [[frames[i][row] for i in (*chosen, -1)] for row in range(3)]
    scale = max(1, 128 // own.image_size)
    plots.save_grid(output / "path.png", strip, titles, scale)
    shown = np.asarray(y) if task.picture and y.shape == image.shape else image
    animation = [Image.fromarray(plots.image_grid([[shown, *frame]], scale)) for frame in frames]
    lengths = [80] * (len(frames) - 1) + [1500]
    animation[0].save(
        output / "path.webp", save_all=True, append_images=animation[1:], duration=lengths, loop=0
    )  # fmt: skip
    return output / "path.png"


def checkout_figure(own: FigureSettings, output: pathlib.Path) -> pathlib.Path:
    """Goods held in a hand before a shaken camera: truth, measurement, restoration."""
    found = restored(own, "checkout", output / "jobs" / "checkout", own.limit)
    rows = [[f[2] for f in found], [f[0] for f in found], [f[1] for f in found]]
    plots.save_grid(output / "checkout.png", rows, (), max(1, 128 // own.image_size))
    return output / "checkout.png"


FIGURES = {"tasks": tasks_sheet, "path": path_figure, "checkout": checkout_figure}
