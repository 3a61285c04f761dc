"""Training a prior: the run, its checkpoints, logs and validations."""

import csv
import dataclasses
import math
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tqdm import tqdm

from cvsa_jax import checkpoints, data, folders, growing, networks, plots, spectral, training
from cvsa_jax.denoising import VALIDATION_NOISES, denoising_error
from cvsa_jax.descriptions import StoredPrior
from cvsa_jax.diffusion import CLD, time_grid
from cvsa_jax.jobs import records
from cvsa_jax.jobs.folder_lock import FolderLock
from cvsa_jax.jobs.training_settings import KERNELS, TrainingSettings
from cvsa_jax.samplers.unconditional import sample_prior
from cvsa_jax.settings import values
from cvsa_jax.types import InputError

SPECTRUM_IMAGES = 1024


class Source(NamedTuple):
    """Where the images come from.

    some: (N, H, W, C), for the spectrum. validation: held out. batches: () -> endless iterator.
    facts: for the record of the run.
    """

    some: np.ndarray
    validation: np.ndarray
    batches: Callable
    facts: dict


def open_source(own: TrainingSettings) -> Source:
    """The source that --data names.

    Raises:
      InputError: if there are no or too few images.
    """
    size, count, batch_size, channels = own.image_size, own.num_validation, own.batch_size, own.image_channels or 3
    if own.data == KERNELS:
        return Source(
            data.draw_kernels(SPECTRUM_IMAGES, size, own.seed + 1),
            data.draw_kernels(count, size, own.seed),
            lambda: data.kernel_batches(size, batch_size, own.seed),
            {"kernels_held_out": count},
        )
    files = folders.list_images(str(own.data), leave=[str(own.output)], say=folders.note)
    train_files, validation_files = data.split_validation(files, count)
    if len(train_files) < batch_size:
        raise InputError(f"--batch_size={batch_size}, but only {len(train_files)} training images")
    some, validation = (
        data.load_squares(data.readable(part), size, channels)
        for part in (train_files[:: -(-len(train_files) // SPECTRUM_IMAGES)], validation_files)
    )
    return Source(
        some,
        validation,
        lambda: data.training_batches(train_files, size, channels, batch_size, own.seed),
        {"images_in_folder": len(files), "images_held_out": count},
    )


def begun(own: TrainingSettings) -> tuple[TrainingSettings, StoredPrior | None]:
    """The settings, what they leave open as the prior of --start has it; and that prior.

    Raises:
      InputError: if it cannot be read, or was not made by `cvsa train`.
    """
    if own.start is None:
        return own, None
    stored = checkpoints.read_prior(own.start)
    try:
        found = growing.shape_of(stored.description.spec)
    except InputError as error:
        raise InputError(f"--start={own.start}: {error}") from error
    return dataclasses.replace(own, **{k: v for k, v in found.items() if getattr(own, k) is None}), stored


def network_spec(
    own: TrainingSettings, cld: CLD, some: np.ndarray, start: networks.NetworkSpec | None = None
) -> networks.NetworkSpec:
    """The network of the settings, with the spectrum of some of the images, or with that of what it begins with."""
    spectrum = None
    if own.parameterization == "denoiser" and own.preconditioning == "spectral":
        spectrum = start.spectrum if start and start.spectrum else spectral.estimate_spectrum(some)
    return networks.NetworkSpec(
        spectrum=spectrum,
        parameterization=own.parameterization,
        image_channels=own.image_channels or 3,
        image_size=own.image_size,
        options={name: getattr(own, name) for name in growing.SHAPE},
        cld=cld,
    )


def first_params(own: TrainingSettings, start: StoredPrior, spec: networks.NetworkSpec) -> Any:
    """Parameters of the run's network with which it does what the prior of --start does.

    Raises:
      InputError: if it cannot.
    """
    small = start.description.spec
    try:
        if small.parameterization == "velocity" and small.cld != spec.cld:
            raise InputError(f"it is for {small.cld}, not {spec.cld}")
        return growing.grow(small, start.params, spec, training.run_keys(own.seed).params)
    except InputError as error:
        raise InputError(f"--start={own.start} cannot be continued so: {error}") from error


def check_settings(store: checkpoints.TrainingCheckpoints, settings: dict) -> None:
    """A run can only be continued with the settings that it was begun with.

    Raises:
      InputError: names the first that differs.
    """
    before = store.settings()
    for name, value in records.plain(settings).items():
        if name in before and before[name] != value:
            raise InputError(
                f"--output holds a run with --{name}={before[name]}, not {value}; "
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
    calibration = denoising_error(prior, validation, key)
    prior = dataclasses.replace(prior, calibration=calibration)
    shape = (spec.image_size, spec.image_size, spec.image_channels)
    times = time_grid("logarithmic", 50, spec.cld)
    samples = np.asarray(sample_prior(key, prior, shape, times, num_samples))
    step, side = int(state.step), math.isqrt(num_samples)
    grid = [list(samples[i : i + side]) for i in range(0, num_samples, side)]
    plots.save_grid(folder / "samples" / f"{step:07d}.png", grid, scale=2)
    checkpoints.save_prior(folder / "prior", spec, state.average, calibration, record)
    plots.save_grid(folder / "prior" / "samples.png", grid, scale=2)
    with (folder / "validation.csv").open("a") as file:
        if file.tell() == 0:
            csv.writer(file).writerow(["step", *(f"mse_at_{s:.4g}" for s in VALIDATION_NOISES)])
        csv.writer(file).writerow([step, *(f"{e:.6g}" for e in calibration.error)])


class TrainingRun:
    """A run that can begin or go on: everything that can be wrong with its settings is found when it is made.

    Args:
      own: its settings. cld: the diffusion.

    Raises:
      ValueError: on settings that do not fit the images, the devices, or the run that --output holds.
    """

    def __init__(self, own: TrainingSettings, cld: CLD):
        own, start = begun(own)
        self.own, self._settings, self._folder = own, own.record() | values(cld), pathlib.Path(str(own.output))
        if own.batch_size % jax.local_device_count():
            raise ValueError(f"--batch_size must be a multiple of the {jax.local_device_count()} devices")
        self._source = open_source(own)
        self._spec = network_spec(own, cld, self._source.some, start and start.description.spec)
        self._params = None if start is None else first_params(own, start, self._spec)
        self._store = checkpoints.TrainingCheckpoints(self._folder / "checkpoints")
        if self._store.latest_step is not None:
            check_settings(self._store, self._settings)

    def _record(self, step: int) -> dict:
        seen = {"images_seen": step * self.own.batch_size, "versions": records.versions()}
        return self._source.facts | seen | {"settings": self._settings}

    def run(self) -> pathlib.Path:
        """Train to the end; the folder of the prior.

        Raises:
          InputError: if the loss is no longer finite, or another process trains in the folder.
        """
        own, spec, store, folder = self.own, self._spec, self._store, self._folder
        lock = FolderLock(folder)
        mesh = jax.make_mesh((jax.local_device_count(),), ("data",), axis_types=(AxisType.Auto,))
        replicated, split = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
        optimizer = training.make_optimizer(own.learning_rate, own.warmup_steps, own.num_steps)
        init = jax.jit(lambda given: training.init_state(spec, optimizer, own.seed, given), out_shardings=replicated)
        batches, state = self._source.batches(), init(self._params)
        if store.latest_step is not None:
            state, data_state = store.restore(state)
            batches.set_state(data_state)
            print(f"continuing at step {int(state.step)}")
        step_function = jax.jit(training.train_step(spec, optimizer, own.average_decay), donate_argnums=0)
        start, losses, clock = int(state.step), [], time.perf_counter()
        log = Log(folder / "metrics.csv", start)
        for step in (bar := tqdm(range(start + 1, own.num_steps + 1), initial=start, total=own.num_steps)):
            state, loss = step_function(state, jax.device_put(next(batches), split))
            losses.append(loss)
            last = step == own.num_steps
            if step % own.log_every == 0 or last:
                mean_loss = float(jnp.mean(jnp.stack(losses)))
                elapsed, clock = time.perf_counter() - clock, time.perf_counter()
                rate = len(losses) * own.batch_size / elapsed
                if not math.isfinite(mean_loss):
                    raise InputError(f"the loss is {mean_loss} at step {step}; lower --learning_rate")
                log.write(step, step * own.batch_size, f"{mean_loss:.5f}", f"{rate:.1f}")
                bar.set_postfix_str(f"loss {mean_loss:.4f}, {rate:.0f} images/s")
                losses = []
            if step % own.save_every == 0 or last:
                store.save(step, state, batches.get_state(), self._settings)
            if step % own.sample_every == 0 or last:
                evaluate(spec, state, self._source.validation, folder, self._record(step))
                clock = time.perf_counter()
        if not (folder / "prior" / "prior.json").exists():  # killed between the last checkpoint and the prior
            evaluate(spec, state, self._source.validation, folder, self._record(own.num_steps))
        store.close()
        lock.release()
        return folder / "prior"
