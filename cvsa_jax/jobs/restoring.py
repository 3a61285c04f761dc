"""Restoring the images of a job, batch by batch."""

import shutil
from collections import defaultdict
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from cvsa_jax import batch
from cvsa_jax.jobs import cautions, inputs, methods, stopping
from cvsa_jax.jobs.kernel_finder import Found
from cvsa_jax.jobs.outputs import Restored
from cvsa_jax.jobs.prepared import Prepared
from cvsa_jax.types import InputError

DIVERGED = 10.0  # images lie in [-1, 1]
ROOM = 2**20  # bytes without which a disk counts as full


def batches(
    entries: list[inputs.Entry], num_samples: int, batch_size: int, population: bool,
    limit: Callable[[tuple[int, int, int]], int] | None = None,
) -> list[list[tuple[inputs.Entry, int]]]:  # fmt: skip
    """(image, chain index) pairs of one shape and form each, batch_size samples at most, an image's in a row.

    limit: of an image's shape, how many samples of it there may be at most.
    """
    chains = 1 if population else num_samples
    groups = defaultdict(list)
    for entry in entries:
        groups[entry.shape, entry.form].append(entry)
    out = []
    for (shape, _), group in groups.items():
        size = min(batch_size, limit(shape)) if limit else batch_size
        size = max(1, size // num_samples) if population else size
        pairs = [(entry, i) for entry in group for i in range(chains)]
        out += [pairs[i : i + size] for i in range(0, len(pairs), size)]
    return out


def restore_all(prepared: Prepared) -> None:
    """Restore every image, writing each as soon as its last sample is there."""
    job, kernels, method = prepared.job, prepared.kernels, prepared.job.method
    seed, population = job.job.seed, prepared.sampler is not None and prepared.sampler.population
    plan = batches(prepared.entries, method.num_samples, job.job.batch_size, population, prepared.limit)
    found: dict[str, list] = defaultdict(list)  # by image, of each batch
    measured: dict[str, inputs.Measured] = {}
    searched: dict[str, Found] = {}
    with tqdm(total=len(plan) * method.num_steps, unit="step", disable=not plan) as bar:
        for pairs in plan:
            if stopping.asked():
                break
            for entry, _ in pairs:
                if entry.name in measured or entry.name in prepared.failures:
                    continue
                try:
                    one = prepared.measure(entry)
                    if kernels:
                        searched[entry.name] = kernels.find(one, inputs.key_of(entry, seed, 2))
                except (InputError, OSError, jax.errors.JaxRuntimeError) as error:  # since the job began, or no memory
                    prepared.fail(entry.name, str(error).partition("\n")[0])
                    continue
                measured[entry.name] = one
            pairs = [pair for pair in pairs if pair[0].name not in prepared.failures]
            if not pairs:
                bar.update(method.num_steps)
                continue
            keys = jnp.stack([jax.random.fold_in(inputs.key_of(entry, seed, 1), i) for entry, i in pairs])
            measurements = np.stack([measured[entry.name].measurement for entry, _ in pairs])
            known = [(searched if kernels else measured)[entry.name].operator for entry, _ in pairs]
            noises = [prepared.noise_of(measured[entry.name]) for entry, _ in pairs] if prepared.estimator else None
            try:
                done = prepared.restorer(keys, measurements, known, pairs[0][0].shape, bar.update, noises)
            except jax.errors.JaxRuntimeError as error:  # the memory did not suffice
                for name in dict.fromkeys(entry.name for entry, _ in pairs):
                    prepared.fail(name, f"{str(error).splitlines()[0]}; lower --batch_size, now {job.job.batch_size}")
                    for kept in (measured, found, searched):
                        kept.pop(name, None)
                continue
            for i, (entry, _) in enumerate(pairs):
                found[entry.name].append(done.part(i, len(pairs)))
                if sum(len(p.images) for p in found[entry.name]) == method.num_samples:
                    whole, search = batch.join_parts(found.pop(entry.name)), searched.pop(entry.name, None)
                    finish(prepared, measured.pop(entry.name), whole, search)


def finish(prepared: Prepared, measured: inputs.Measured, found: batch.BatchResult, search: Found | None) -> None:
    """Write one image, or report that its loop diverged."""
    name, method = measured.entry.name, prepared.job.method
    if not np.abs(found.images).max() < DIVERGED:  # true for not-a-number too
        prepared.fail(name, cautions.divergence(measured, found.residuals, method))
        return
    evaluations, seconds = methods.evaluations(method, prepared.sampler), found.seconds
    kernel = None
    if search is not None:
        best = found.kernels if found.kernels is None else found.kernels[np.argmin(found.residuals)]
        kernel = search.kernel if best is None else best
        evaluations, seconds = evaluations + search.evaluations, seconds + search.seconds
    try:
        prepared.results.write(measured, Restored(found.images, found.residuals, kernel, seconds, evaluations))
    except OSError as error:
        folder = prepared.results.folder
        prepared.fail(name, f"cannot write {error.filename or folder}: {error.strerror or error}")
        if shutil.disk_usage(folder).free < ROOM:
            raise InputError(f"the disk of --output={folder} is full; make room, and give the command again") from error
        return
    if isinstance(method, methods.CvsaSettings):  # the others do not promise to fit
        residual, noise = prepared.results.residual(found.residuals), prepared.noise_of(measured)
        task = prepared.job.task
        text = cautions.misfit(residual, noise, measured, task) or cautions.out_of_range(found.images, task)
        if text is not None:
            prepared.warn(name, text)
