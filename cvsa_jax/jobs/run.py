"""One restoration job: read, measure, restore, write."""

import dataclasses
import pathlib
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from cvsa_jax import batch, operators
from cvsa_jax.jobs import inputs, methods, pairing, selection, tiling
from cvsa_jax.jobs.kernel_finder import Found, KernelFinder
from cvsa_jax.jobs.outputs import KINDS, Restored, Results
from cvsa_jax.jobs.settings import RestorationJob
from cvsa_jax.operators.registry import fits, parts
from cvsa_jax.sampler_settings import GUESS
from cvsa_jax.samplers import Sampler
from cvsa_jax.settings import read_files
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


class Restorer(Protocol):
    """What restores a batch: `BatchRestorer`, or what stands in for it."""

    def check(self, measurement: Any, operator: operators.Operator, image_shape: tuple[int, int, int], /) -> None:
        """Raises what it has against such measurements."""

    def __call__(
        self,
        keys: jax.Array,
        measurements: Any,
        known: Sequence[operators.Operator],
        image_shape: tuple[int, int, int],
        progress: Callable[[int], object],
        /,
    ) -> batch.BatchResult:
        """Restore a batch."""
        ...


@dataclasses.dataclass
class Prepared:
    """A job that can be run: its settings, and all that was made of them."""

    job: RestorationJob
    sampler: Sampler | None
    entries: list[inputs.Entry]
    reader: inputs.Reader
    restorer: Restorer
    kernels: KernelFinder | None
    results: Results
    failures: dict[str, str]
    limit: Callable[[tuple[int, int, int]], int] | None = None

    def fail(self, name: str, why: str) -> None:
        """Note and report an image that could not be restored; the others go on."""
        self.failures[name] = " ".join(why.split())
        print(f"failed: {name}: {self.failures[name]}", file=sys.stderr)

    def run(self) -> None:
        """Restore every image, writing each as soon as its last sample is there."""
        restore_all(self)
        self.results.finish(self.failures)


def check_job(job: RestorationJob) -> None:
    """What can be checked of a job without its images: its files, its prior and its sampler.

    Raises:
      ValueError: on a bad setting or file. UnsuitableError: if the method cannot do the task.
    """
    stored_operator(job)
    read_files(job.operator)
    if job.job.list is None:
        selection.list_inputs(str(job.job.input), job.job.measured, job.job.output)
    methods.plan_of(job.method, tiling.tiled(job.prior(), job.job.tile))


def prepare(job: RestorationJob) -> Prepared:
    """Check everything that can be checked before anything compiles, and begin the folder of results.

    Raises:
      ValueError, OSError: on a bad setting or file. UnsuitableError: if the method cannot do the task.
    """
    task, own = job.task, job.job
    stored = stored_operator(job)
    settings, noise, folder = read_files(job.operator), job.noise.model(), pathlib.Path(str(own.input))
    if own.measured:
        inputs.check_measured(task, settings, stored is not None)
    if own.list:
        files = selection.read_list(own.list, folder)
    else:
        files = selection.list_inputs(str(own.input), own.measured, own.output)
        files = pairing.without_own(files, settings, folder)
    prior = job.prior()
    plan = methods.plan_of(job.method, prior)
    sampler = None if plan is None else plan.sampler
    search = task.blind and job.method.start == GUESS
    tiling.tiled(prior, own.tile)
    results = Results(job, sampler is not None and sampler.posterior)
    reader = inputs.Reader(
        task, settings, prior.channels or 3, own.image_size, own.measured, noise, own.seed, stored,
        job.method.start == GUESS and not task.blind, own.range, own.format, folder,
    )  # fmt: skip
    chosen = selection.choose(files, folder, results.files, results.done)[: own.limit]
    if own.overwrite:
        selection.refuse_removed(files, results.folder, KINDS)
    results.files.update({one.name: one.file for one in chosen})
    entries, failures = reader.check([one for one in chosen if one.name not in results.done])
    if failures and not entries and not results.rows:
        raise ValueError(next(iter(failures.values())))
    job = tiling.settled(job, prior, entries, results.tile)
    results.settle(job)
    whole, prior = prior, tiling.tiled(prior, job.job.tile)
    kernels = None
    if task.blind:
        loaded = job.load(settings.kernel_checkpoint)
        kernels = KernelFinder(task, settings, prior, loaded, noise, search)
    joint = kernels.joint() if kernels else None
    restorer = methods.make_restorer(own.method, job.method, prior, noise, plan, joint, search)
    if entries:
        first = reader.measure(entries[0])
        restorer.check(first.measurement, kernels.operator(first) if kernels else first.operator, first.entry.shape)
    for error in failures.values():
        print(f"skipped: {' '.join(error.split())}", file=sys.stderr)
    results.begin()
    limit = tiling.batch_limit(job, whole)
    return Prepared(job, sampler, entries, reader, restorer, kernels, results, failures, limit)


def stored_operator(job: RestorationJob) -> operators.Operator | None:
    """The operator that --operator names; None if it is not given.

    Raises:
      ValueError: if it cannot be read, or is not of the kind that the task uses.
    """
    if job.job.operator is None:
        return None
    found = operators.load_operator(job.job.operator)
    if not fits(job.task, found):
        kinds = " and ".join(type(part).__name__ for part in parts(found))
        wanted = ", ".join(dict.fromkeys(made.__name__ for made in job.task.makes))
        raise ValueError(f"--operator={job.job.operator} is a {kinds}, but --task={job.job.task} takes {wanted}")
    return found


def restore_all(prepared: Prepared) -> None:
    """Restore every image, writing each as soon as its last sample is there."""
    job, reader, kernels, method = prepared.job, prepared.reader, prepared.kernels, prepared.job.method
    seed, population = job.job.seed, prepared.sampler is not None and prepared.sampler.population
    plan = batches(prepared.entries, method.num_samples, job.job.batch_size, population, prepared.limit)
    found: dict[str, list] = defaultdict(list)  # by image, of each batch
    measured: dict[str, inputs.Measured] = {}
    searched: dict[str, Found] = {}
    with tqdm(total=len(plan) * method.num_steps, unit="step", disable=not plan) as bar:
        for pairs in plan:
            for entry, _ in pairs:
                if entry.name in measured or entry.name in prepared.failures:
                    continue
                try:
                    one = reader.measure(entry)
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
            try:
                done = prepared.restorer(keys, measurements, known, pairs[0][0].shape, bar.update)
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
        advice = "; take more steps, or sampler ancestral with covariance"
        prepared.fail(name, f"the loop diverged{advice if isinstance(method, methods.CvsaSettings) else ''}")
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
