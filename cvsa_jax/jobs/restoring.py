"""Restoring the images of a job, batch by batch."""

import shutil
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from cvsa_jax import batch, processes
from cvsa_jax.jobs import cautions, inputs, methods
from cvsa_jax.jobs.kernel_finder import Found
from cvsa_jax.jobs.outputs import Restored
from cvsa_jax.jobs.prepared import Prepared
from cvsa_jax.operators import Operator
from cvsa_jax.types import InputError

DIVERGED = 10.0  # images lie in [-1, 1]
ROOM = 2**20  # bytes without which a disk counts as full


class Batch(NamedTuple):
    """What runs together on this process.

    pairs: (image, chain index), none where only other processes have some. size: what it is filled up to.
    group: all images of that shape and form; each can stand in where there is none.
    """

    pairs: list[tuple[inputs.Entry, int]]
    size: int
    group: list[inputs.Entry]


def batches(
    entries: list[inputs.Entry], num_samples: int, batch_size: int, population: bool,
    limit: Callable[[tuple[int, int, int]], int] | None = None,
) -> list[Batch]:  # fmt: skip
    """Batches of one shape and form each, batch_size samples at most in all processes, an image's in a row.

    limit: of an image's shape, how many samples of it there may be at most.
    """
    chains = 1 if population else num_samples
    groups = defaultdict(list)
    for entry in entries:
        groups[entry.shape, entry.form].append(entry)
    out = []
    for (shape, _), group in groups.items():
        most = min(batch_size, limit(shape)) if limit else batch_size
        most = max(1, most // num_samples) if population else most
        size, own = processes.own_batches(group, chains, most, jax.process_index(), jax.process_count())
        out += [Batch(pairs, size, group) for pairs in own]
    return out


def stand_in(prepared: Prepared, group: list[inputs.Entry]) -> tuple[inputs.Measured, Operator] | None:
    """Any image of a group, for a process that has none of its own in a batch; None if none can be read."""
    for entry in group:
        try:
            one = prepared.reader.measure(entry)
            one = one._replace(noise_std=getattr(prepared.noise, "std", None))
            key = inputs.key_of(entry, prepared.job.job.seed, 2)
            return one, prepared.kernels.find(one, key).operator if prepared.kernels else one.operator
        except (InputError, OSError):
            continue
    return None


def restore_all(prepared: Prepared) -> None:
    """Restore every image, writing each as soon as its last sample is there."""
    job, kernels, method = prepared.job, prepared.kernels, prepared.job.method
    seed, population = job.job.seed, prepared.sampler is not None and prepared.sampler.population
    plan = batches(prepared.entries, method.num_samples, job.job.batch_size, population, prepared.limit)
    found: dict[str, list] = defaultdict(list)  # by image, of each batch
    measured: dict[str, inputs.Measured] = {}
    searched: dict[str, Found] = {}
    with tqdm(total=len(plan) * method.num_steps, unit="step", disable=not plan) as bar:
        for pairs, size, group in plan:
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
            taken = [(measured[e.name], (searched if kernels else measured)[e.name].operator, i) for e, i in pairs]
            if not taken and jax.process_count() > 1 and (other := stand_in(prepared, group)) is not None:
                taken = [(*other, 0)]
            if not processes.everyone(bool(taken)):
                for entry, _ in pairs:  # which cannot happen in one process
                    prepared.fail(
                        entry.name, "another process could read no image of its batch; give the command again"
                    )
                bar.update(method.num_steps)
                continue
            keys = jnp.stack([jax.random.fold_in(inputs.key_of(one.entry, seed, 1), i) for one, _, i in taken])
            measurements, known = np.stack([one.measurement for one, _, _ in taken]), [h for _, h, _ in taken]
            noises = [prepared.noise_of(one) for one, _, _ in taken] if prepared.estimator else None
            try:
                done = prepared.restorer(keys, measurements, known, group[0].shape, bar.update, noises, size)
            except jax.errors.JaxRuntimeError as error:  # the memory did not suffice
                if jax.process_count() > 1:
                    raise InputError(f"a process of this job ended, or its memory did not suffice: {error}") from error
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
