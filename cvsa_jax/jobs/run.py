"""One restoration job: read, measure, restore, write."""

import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from cvsa_jax import operators, processes, remote
from cvsa_jax.jobs import buckets, cautions, inputs, methods, origins, pairing, places, selection, stopping, tiling
from cvsa_jax.jobs.kernel_finder import KernelFinder
from cvsa_jax.jobs.outputs import KINDS, Results
from cvsa_jax.jobs.prepared import Prepared
from cvsa_jax.jobs.restoring import restore_all
from cvsa_jax.jobs.settings import RestorationJob
from cvsa_jax.noise_estimation import NoiseEstimator
from cvsa_jax.operators.registry import fits, parts
from cvsa_jax.placement import spread_of
from cvsa_jax.sampler_settings import GUESS
from cvsa_jax.settings import files_of, read_files
from cvsa_jax.types import Stopped, UnsuitableError


class Runnable(Prepared):
    """A prepared job with its loop."""

    @remote.naming()
    def run(self, last: Callable[[], object] = lambda: None) -> None:
        """Restore every image, writing each as soon as its last sample is there; SIGTERM ends it after its batch.

        Args:
          last: what else is made of the files at the end, while no other shard makes the like.

        Raises:
          Stopped: after all that, if SIGTERM ended it.
        """
        with stopping.listening():
            with self.results.place.open(self.results.writer.manifest):
                performance = restore_all(self)
            self.results.finish(self.failures, performance, last)
        if stopping.asked():
            left = f"{self.left} image{'' if self.left == 1 else 's'} left" if self.left else "nothing is left of it"
            raise Stopped(f"stopped {self.job.job.output}: {left}; {self.command} goes on from here")

    @property
    def left(self) -> int:
        """How many of its images are neither done nor failed."""
        done = self.results.done
        return sum(entry.name not in done and entry.name not in self.failures for entry in self.entries)


def check_job(job: RestorationJob) -> None:
    """What can be checked of a job without its images: its files, its prior and its sampler.

    Raises:
      ValueError: on a bad setting or file. UnsuitableError: if the method cannot do the task.
    """
    stored_operator(job)
    settings = read_files(job.operator)
    if job.job.list is None:
        images_of(job, pathlib.Path(str(job.job.input)), settings)
    methods.plan_of(job.method, tiling.tiled(job.prior(), job.job.tile))


@remote.naming()
def prepare(job: RestorationJob) -> Runnable:
    """Check everything that can be checked before anything compiles, and begin the folder of results.

    Raises:
      ValueError, OSError: on a bad setting or file. UnsuitableError: if the method cannot do the task.
    """
    task, own = job.task, job.job
    stored = stored_operator(job)
    settings, noise = read_files(job.operator), job.noise.model()
    if own.measured:
        inputs.check_measured(task, settings, stored is not None)
    source = places.source_of(str(own.input), str(own.output))
    folder = source.root
    files = selection.read_list(own.list, folder) if own.list else images_of(job, folder, settings)
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
    done = processes.union(results.done)  # an image is any process's
    chosen = selection.choose(files, folder, results.files, done)[: own.limit]
    if own.overwrite:
        places.refuse_removed(str(own.input), str(own.output), KINDS)
        selection.refuse_removed(files, results.folder, KINDS)
    results.expect({one.name: one.file for one in chosen})
    results.damaged.update(_changed(results, chosen, reader, remote.is_remote(str(own.input))))
    done = processes.union(results.done)
    missing = [c for c in chosen if c.name not in done and results.writer.takes(c.name)]
    source.fetch(c.path for c in missing)
    entries, failures = reader.check(missing)
    failures = {name: remote.shown(why) for name, why in failures.items()}
    processes.require_same([(entry.name, entry.shape, entry.form) for entry in entries], "images")
    if failures and not entries and not done:
        raise ValueError(next(iter(failures.values())))
    job = tiling.settled(job, prior, entries, results.tile)
    results.settle(job)
    whole, prior = prior, tiling.tiled(prior, job.job.tile)
    kernels = None
    if task.blind:
        loaded = job.load(settings.kernel_checkpoint)
        kernels = KernelFinder(task, settings, prior, loaded, noise, search, job.noise.estimated)
    estimator = NoiseEstimator(task, prior) if job.noise.estimated else None
    joint = kernels.joint() if kernels else None
    spread = spread_of(own.split_rows, own.shard_params, prior)
    restorer = methods.make_restorer(own.method, job.method, prior, noise, plan, joint, search, spread)

    def check(entry: inputs.Entry) -> None:
        first, shape = reader.measure(entry), buckets.shape_of(entry, own.bucket)
        fitted = buckets.fitted(first, kernels.operator(first) if kernels else first.operator, shape)
        restorer.check(*fitted, shape, noise if estimator else None)

    _check_kinds(entries, own.bucket, check, refuse=not done and own.shard is None)
    if results.damaged:
        print(f"done again: {_few(results.damaged)}, missing, damaged or changed", file=sys.stderr)
    for error in failures.values():
        print(f"skipped: {' '.join(error.split())}", file=sys.stderr)
    if (few := cautions.few_steps(task, job.method)) is not None:
        print(f"warning: {few}", file=sys.stderr)
    results.begin()
    limit = tiling.batch_limit(job, whole)
    return Runnable(
        job, sampler, entries, reader, restorer, kernels, results, failures, noise, limit, estimator, source
    )


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


def images_of(job: RestorationJob, folder: pathlib.Path, settings: Any) -> list[pathlib.Path]:
    """The images of the job's input, without what else of the job lies there; settings: of the task, files read."""
    own = job.job
    named = [*files_of(job.operator).values(), *([own.operator] if own.operator else [])]

    def less(files):
        return pairing.without_own(files, settings, folder, named)

    return selection.list_inputs(str(folder), own.measured, own.output, less)


def _check_kinds(entries: list[inputs.Entry], bucket: int, check: Callable[[inputs.Entry], None], refuse: bool) -> None:
    """Check one image of each kind until the method can restore one; the others are found out before they compile.

    Args:
      refuse: whether it is an error if it can restore none; else each image fails by itself.

    Raises:
      UnsuitableError: of the first image, if so.
    """
    kinds, first = {}, None
    for entry in entries:
        kinds.setdefault(buckets.kind_of(entry, bucket), entry)
    for entry in kinds.values():
        try:
            return check(entry)
        except UnsuitableError as error:
            first = first or error
    if first is not None and refuse:
        raise first
    return None


def _changed(results: Results, chosen: list[selection.Chosen], reader: inputs.Reader, away: bool) -> dict[str, str]:
    """Of images of this shard that are done, one of whose files has changed since: it. away: inputs are on a bucket,

    where they are not looked at, as that would be to fetch all of them.
    """

    def files_of(one: selection.Chosen):
        files = reader.files_of(one)
        return {name: file for name, file in files.items() if not (away and name == "input")}

    mine = [one for one in chosen if one.name in results.done and results.writer.takes(one.name)]
    return origins.changed(results.folder, mine, files_of)


def _few(files: Mapping[str, str], most: int = 5) -> str:
    """Some images in words, each with one of its files."""
    shown = ", ".join(f"{name} ({file})" for name, file in [*files.items()][:most])
    return f"{shown} and {len(files) - most} more" if len(files) > most else shown
