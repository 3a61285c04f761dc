"""One restoration job: read, measure, restore, write."""

import dataclasses
import pathlib
import sys
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from cvsa_jax import batch, noise, operators, samplers
from cvsa_jax.importers import bkse
from experiments import blind, common, datasets, inputs, job_flags, methods, outputs, settings

DIVERGED = 10.0  # images lie in [-1, 1]
FREE_SETTINGS = ("input", "list", "output", "overwrite", "list_tasks", "batch_size", "limit", "report")


def operator_options(job: flags.FlagValues) -> operators.OperatorOptions:
    """The tasks' settings from the flags, files read."""
    return operators.OperatorOptions(
        kernel_size=job.kernel_size,
        kernel_std=job.kernel_std,
        motion_intensity=job.motion_intensity,
        kernel=inputs.read_kernel(job.kernel) if job.kernel else None,
        boundary=job.boundary,
        box_size=job.box_size,
        box_margin=job.box_margin,
        missing=job.missing,
        seen=inputs.read_mask(job.mask) if job.mask else None,
        oversampling=job.oversampling,
        exposure=job.exposure,
        hdr_gain=job.hdr_gain,
        jpeg_quality=job.jpeg_quality,
        encoder=bkse.load(job.bkse_weights) if job.bkse_weights else None,
        encoder_source=job.bkse_weights or "",
    )


def noise_model(job: flags.FlagValues) -> noise.NoiseModel:
    """The noise from the flags."""
    return noise.PoissonNoise(job.photons) if job.noise == "poisson" else noise.GaussianNoise(job.noise_std)


def batches(job: flags.FlagValues, entries: list[inputs.Entry]) -> list[list[tuple[inputs.Entry, int]]]:
    """(image, chain index) pairs of one shape each, batch_size samples at most, an image's in a row."""
    population = job.sampler in samplers.POPULATION_SAMPLERS
    chains = 1 if population else job.num_samples
    size = max(1, job.batch_size // job.num_samples) if population else job.batch_size
    groups = defaultdict(list)
    for entry in entries:
        groups[entry.shape].append(entry)
    out = []
    for group in groups.values():
        pairs = [(entry, i) for entry in group for i in range(chains)]
        out += [pairs[i : i + size] for i in range(0, len(pairs), size)]
    return out


@dataclasses.dataclass
class Job:
    """A job that can be run: its flags, filled, and all that was made of them."""

    flags: flags.FlagValues
    entries: list[inputs.Entry]
    reader: inputs.Reader
    restorer: object
    kernels: blind.KernelFinder | None
    results: outputs.Results
    failures: dict[str, str]

    def run(self) -> None:
        """Restore every image, writing each as soon as its last sample is there."""
        restore_all(self)
        self.results.finish(self.failures)


def prepare(job: flags.FlagValues) -> Job:
    """Check everything that can be checked before anything compiles, and begin the folder of results.

    Raises:
      ValueError, OSError: on a bad setting or file. UnsuitableError: if the method cannot do the task.
    """
    for name in ("task", "input", "output"):
        if job[name].value is None:
            raise ValueError(f"--{name} is required")
    task = operators.find_task(job.task)
    settings.fill(job)
    methods.check(job.method, task)
    options, folder = operator_options(job), pathlib.Path(job.input)
    stored = operators.load_operator(job.operator) if job.operator else None
    if job.measured:
        inputs.check_measured(job.task, options, stored is not None)
    files = inputs.list_inputs(job.input, job.measured) if not job.list else datasets.read_list(job.list, folder)
    files = files[: job.limit]
    loaded = common.load_prior(job.checkpoint, common.diffusion_from_flags(job))
    channels = loaded.spec.image_channels
    kernels = blind.KernelFinder.from_flags(loaded, job) if task.blind else None
    record = {k: v for k, v in job_flags.values(job).items() if k not in FREE_SETTINGS}
    results = outputs.Results(pathlib.Path(job.output), record, job.overwrite)
    restorer = methods.restorer(job, loaded, noise_model(job), kernels)
    reader = inputs.Reader(
        job.task, options, channels, job.image_size, job.measured, noise_model(job), job.seed, stored,
        job.start == "guess" and not task.blind,
    )  # fmt: skip
    names = inputs.output_names(files, folder)
    todo = [(path, name) for path, name in zip(files, names, strict=True) if name not in results.done]
    entries, failures = reader.check(todo)
    if failures and not entries and not results.rows:
        raise ValueError(next(iter(failures.values())))
    if entries and not task.blind:
        first = reader.measure(entries[0])
        restorer.check(first.measurement, first.operator, first.entry.shape)
    for error in failures.values():
        print(f"skipped: {error}", file=sys.stderr)
    results.begin()
    return Job(job, entries, reader, restorer, kernels, results, failures)


def restore_all(job: Job) -> None:
    """Restore every image, writing each as soon as its last sample is there."""
    flag, reader, kernels = job.flags, job.reader, job.kernels
    parts: dict[str, list] = defaultdict(list)  # by image: (samples, residuals, kernels, seconds) of each batch
    plan, searched = batches(flag, job.entries), {}
    with tqdm(total=len(plan) * flag.num_steps, unit="step", disable=not plan) as bar:
        for pairs in plan:
            measured = {entry.name: reader.measure(entry) for entry, _ in pairs}
            if kernels:
                for name, one in measured.items():
                    if name not in searched:
                        searched[name] = kernels.find(one, inputs.key_of(one.entry, flag.seed, 2))
            keys = jnp.stack([
                jax.random.fold_in(inputs.key_of(entry, flag.seed, 1), i) for entry, i in pairs
            ])  # fmt: skip
            measurements = np.stack([measured[entry.name].measurement for entry, _ in pairs])
            known = [searched[e.name].operator if kernels else measured[e.name].operator for e, _ in pairs]
            done = job.restorer(keys, measurements, known, pairs[0][0].shape, bar.update)
            for i, (entry, _) in enumerate(pairs):
                parts[entry.name].append(done.part(i, len(pairs)))
                if sum(len(p.images) for p in parts[entry.name]) == flag.num_samples:
                    found = batch.join(parts.pop(entry.name))
                    finish(job, measured[entry.name], found, searched.pop(entry.name, None))


def finish(job: Job, measured: inputs.Measured, found: batch.BatchResult, search: blind.Found | None) -> None:
    """Write one image, or report that its loop diverged."""
    name = measured.entry.name
    if not np.abs(found.images).max() < DIVERGED:  # true for not-a-number too
        job.failures[name] = "the loop diverged"
        if job.flags.method == methods.CVSA:
            job.failures[name] += "; take more steps, or sampler ancestral with covariance"
        print(f"failed: {name}: {job.failures[name]}", file=sys.stderr)
        return
    evaluations, seconds = methods.evaluations(job.flags), found.seconds
    kernel = None
    if search is not None:
        best = found.kernels if found.kernels is None else found.kernels[np.argmin(found.residuals)]
        kernel = search.kernel if best is None else best
        evaluations, seconds = evaluations + search.evaluations, seconds + search.seconds
    job.results.write(measured, outputs.Restored(found.images, found.residuals, kernel, seconds, evaluations))
