"""Train a prior on a folder of images, or on blur kernels that are drawn while it runs.

    python -m experiments.train --data=FOLDER --output=runs/mine
    python -m experiments.train --data=kernels --image_size=16 --output=runs/kernels

A run that was killed goes on where its last checkpoint stands when the same command is
given again: optimiser, moving average, data position and random key. The finished prior
is OUTPUT/prior, which `experiments.restore --checkpoint=OUTPUT/prior` takes.
"""

import csv
import math
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tqdm import tqdm

from cvsa_jax import checkpoints, data, networks, plots, spectral, training
from cvsa_jax.diffusion import time_grid
from cvsa_jax.samplers.unconditional import sample_prior
from experiments import common

flags.DEFINE_string(
    "data", None, "Folder of images of any size (subfolders are searched), or `kernels`: motion and Gaussian blur.",
    required=True,
)  # fmt: skip
flags.DEFINE_string("output", None, "Folder of the run.", required=True)
flags.DEFINE_enum("parameterization", "denoiser", list(networks.PARAMETERIZATIONS), "What is trained.")
flags.DEFINE_enum(
    "preconditioning", "spectral", ["spectral", "scalar"],
    "Denoiser: scale each frequency by the data's spectrum, or all alike as EDM does.",
)  # fmt: skip
flags.DEFINE_integer("image_size", 64, "Side of the training images.")
flags.DEFINE_integer("image_channels", None, "3 for colour, 1 for grey; by default 3, and 1 for kernels.")
flags.DEFINE_list("channels", ["48", "96", "192"], "Features of each level of the U-Net.")
flags.DEFINE_list("encoder_blocks", ["1", "1", "2"], "Residual blocks of each level on the way down.")
flags.DEFINE_list("decoder_blocks", ["1", "1", "2"], "Residual blocks of each level on the way up.")
flags.DEFINE_integer("patch", 2, "Space-to-depth factor of the stem.")
flags.DEFINE_bool("attention", False, "Attend over all positions at the lowest level.")
flags.DEFINE_integer("num_steps", 10000, "Optimiser steps of the whole run.")
flags.DEFINE_integer("batch_size", 16, "Images per step, over all devices.")
flags.DEFINE_float("learning_rate", 1.5e-3, "Peak learning rate of Adam.")
flags.DEFINE_integer("warmup_steps", 200, "Steps of linear warm-up.")
flags.DEFINE_float("average_decay", 0.999, "Decay of the moving average of the parameters.")
flags.DEFINE_integer("seed", 0, "Seed of the parameters, the data order and the noise.")
flags.DEFINE_integer("num_validation", 256, "Images held out to measure the denoising error.")
flags.DEFINE_integer("log_every", 50, "Steps between lines of metrics.csv.")
flags.DEFINE_integer("save_every", 500, "Steps between checkpoints.")
flags.DEFINE_integer("sample_every", 2000, "Steps between sample grids and validations.")
common.define_diffusion_flags()
FLAGS = flags.FLAGS

SPECTRUM_IMAGES = 1024
KERNELS = "kernels"
# What may differ between a run and its continuation.
FREE_SETTINGS = ("data", "output", "log_every", "save_every", "sample_every")


class Source(NamedTuple):
    """Where the images come from.

    some: (N, H, W, C), for the spectrum. validation: held out. batches: () -> endless iterator.
    facts: for the record of the run.
    """

    some: np.ndarray
    validation: np.ndarray
    batches: Callable
    facts: dict


def open_source() -> Source:
    """The source that --data names."""
    size, count, batch_size = FLAGS.image_size, FLAGS.num_validation, FLAGS.batch_size
    if FLAGS.data == KERNELS:
        if FLAGS.image_channels != 1:
            raise ValueError(f"kernels have one channel, but --image_channels={FLAGS.image_channels}")
        return Source(
            data.draw_kernels(SPECTRUM_IMAGES, size, FLAGS.seed + 1),
            data.draw_kernels(count, size, FLAGS.seed),
            lambda: data.kernel_batches(size, batch_size, FLAGS.seed),
            {"kernels_held_out": count},
        )
    files = data.list_images(FLAGS.data)
    train_files, validation_files = data.split_validation(files, count)
    if len(train_files) < batch_size:
        raise ValueError(f"--batch_size={batch_size}, but only {len(train_files)} training images")
    channels = FLAGS.image_channels
    return Source(
        data.load_squares(train_files[:: -(-len(train_files) // SPECTRUM_IMAGES)], size, channels),
        data.load_squares(validation_files, size, channels),
        lambda: data.training_batches(train_files, size, channels, batch_size, FLAGS.seed),
        {"images_in_folder": len(files), "images_held_out": count},
    )


def network_options() -> dict:
    """The U-Net's shape from the flags."""
    levels = {name: tuple(map(int, FLAGS[name].value)) for name in ("channels", "encoder_blocks", "decoder_blocks")}
    if len({len(v) for v in levels.values()}) != 1:
        raise ValueError("--channels, --encoder_blocks and --decoder_blocks must have the same length")
    return levels | {"patch": FLAGS.patch, "attention": FLAGS.attention}


def network_spec(options: dict, some: np.ndarray) -> networks.NetworkSpec:
    """The network that the flags describe, with the spectrum of some of the images."""
    spectrum = None
    if FLAGS.parameterization == "denoiser" and FLAGS.preconditioning == "spectral":
        spectrum = spectral.estimate_spectrum(some)
    return networks.NetworkSpec(
        spectrum=spectrum,
        parameterization=FLAGS.parameterization,
        image_channels=FLAGS.image_channels,
        image_size=FLAGS.image_size,
        options=options,
        cld=common.diffusion_from_flags(),
    )


def check_settings(store: checkpoints.TrainingCheckpoints, settings: dict) -> None:
    """A run can only be continued with the settings that it was begun with."""
    before = store.settings()
    for name in settings.keys() - set(FREE_SETTINGS):
        if name in before and before[name] != settings[name]:
            raise ValueError(
                f"--output holds a run with --{name}={before[name]}, not {settings[name]}; "
                "give the same flags to continue it, or another --output"
            )


class Log:
    """metrics.csv: a line every --log_every steps; a continued run drops the lines it redoes."""

    columns = ("step", "images", "loss", "images_per_second")

    def __init__(self, path: pathlib.Path, step: int):
        rows = []
        if path.exists():
            with path.open() as file:
                rows = [r for r in list(csv.reader(file))[1:] if r and int(r[0]) <= step]
        self._file = path.open("w", buffering=1)
        self._writer = csv.writer(self._file)
        self._writer.writerows([self.columns, *rows])

    def write(self, *row) -> None:
        self._writer.writerow(row)


def evaluate(spec, state, validation, folder: pathlib.Path, record: dict, num_samples: int = 16) -> None:
    """Validation error, a grid of unconditional samples, and the prior itself as it stands."""
    key = jax.random.key(12345)
    prior = networks.build_prior(spec, state.average)
    calibration = training.denoising_error(prior, validation, key)
    prior = prior.replace(calibration=calibration)
    shape = (spec.image_size, spec.image_size, spec.image_channels)
    times = time_grid("logarithmic", 50, spec.cld)
    samples = np.asarray(sample_prior(key, prior, shape, times, num_samples))
    step, side = int(state.step), math.isqrt(num_samples)
    grid = [samples[i : i + side] for i in range(0, num_samples, side)]
    plots.save_grid(folder / "samples" / f"{step:07d}.png", grid, scale=2)
    checkpoints.save_prior(folder / "prior", spec, state.average, calibration, record)
    plots.save_grid(folder / "prior" / "samples.png", grid, scale=2)
    with (folder / "validation.csv").open("a") as file:
        if file.tell() == 0:
            csv.writer(file).writerow(["step", *(f"mse_at_{s:.4g}" for s in training.VALIDATION_NOISES)])
        csv.writer(file).writerow([step, *(f"{e:.6g}" for e in calibration.error)])


def main() -> None:
    if FLAGS.image_channels is None:
        FLAGS.image_channels = 1 if FLAGS.data == KERNELS else 3
    settings = common.flag_values()
    folder = pathlib.Path(FLAGS.output)
    with common.user_errors():
        options = network_options()
        if FLAGS.batch_size % jax.local_device_count():
            raise ValueError(f"--batch_size must be a multiple of the {jax.local_device_count()} devices")
        if not 0 <= FLAGS.warmup_steps < FLAGS.num_steps:
            raise ValueError("need 0 <= --warmup_steps < --num_steps")
        source = open_source()
        spec, validation = network_spec(options, source.some), source.validation
        store = checkpoints.TrainingCheckpoints(folder / "checkpoints")
        if store.latest_step is not None:
            check_settings(store, settings)

    mesh = jax.make_mesh((jax.local_device_count(),), ("data",), axis_types=(AxisType.Auto,))
    replicated = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec("data"))
    optimizer = training.make_optimizer(FLAGS.learning_rate, FLAGS.warmup_steps, FLAGS.num_steps)
    init = jax.jit(lambda: training.init_state(spec, optimizer, FLAGS.seed), out_shardings=replicated)
    batches, state = source.batches(), init()
    if store.latest_step is not None:
        state, data_state = store.restore(state)
        batches.set_state(data_state)
        print(f"continuing at step {int(state.step)}")
    step_function = jax.jit(training.train_step(spec, optimizer, FLAGS.average_decay), donate_argnums=0)

    start = int(state.step)
    log, losses = Log(folder / "metrics.csv", start), []
    clock = time.perf_counter()
    for step in (bar := tqdm(range(start + 1, FLAGS.num_steps + 1), initial=start, total=FLAGS.num_steps)):
        images = jax.device_put(next(batches), split)
        state, loss = step_function(state, images)
        losses.append(loss)
        if step % FLAGS.log_every == 0 or step == FLAGS.num_steps:
            mean_loss = float(jnp.mean(jnp.stack(losses)))
            elapsed, clock = time.perf_counter() - clock, time.perf_counter()
            rate = len(losses) * FLAGS.batch_size / elapsed
            with common.user_errors():
                if not math.isfinite(mean_loss):
                    raise ValueError(f"the loss is {mean_loss} at step {step}; lower --learning_rate")
            log.write(step, step * FLAGS.batch_size, f"{mean_loss:.5f}", f"{rate:.1f}")
            bar.set_postfix_str(f"loss {mean_loss:.4f}, {rate:.0f} images/s")
            losses = []
        if step % FLAGS.save_every == 0 or step == FLAGS.num_steps:
            store.save(step, state, batches.get_state(), settings)
        if step % FLAGS.sample_every == 0 or step == FLAGS.num_steps:
            record = source.facts | {
                "images_seen": step * FLAGS.batch_size,
                "versions": common.versions(),
                "settings": {k: v for k, v in settings.items() if k not in FREE_SETTINGS},
            }
            evaluate(spec, state, validation, folder, record)
            clock = time.perf_counter()
    store.close()
    print(f"the prior is in {folder / 'prior'}")


if __name__ == "__main__":
    common.run(main)
