"""One restoration job: read, measure, restore, write."""

import dataclasses
import pathlib
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from cvsa_jax import batch, operators
from cvsa_jax.jobs import cautions, inputs, methods, selection
from cvsa_jax.jobs.kernel_finder import Found, KernelFinder
from cvsa_jax.jobs.outputs import Restored, Results
from cvsa_jax.jobs.settings import RestorationJob
from cvsa_jax.noise import GaussianNoise, NoiseModel
from cvsa_jax.noise_estimation import NoiseEstimator
from cvsa_jax.operators.registry import fits, parts
from cvsa_jax.sampler_settings import GUESS
from cvsa_jax.samplers import Sampler
from cvsa_jax.settings import read_files

DIVERGED = 10.0  # images lie in [-1, 1]


def batches(
    entries: list[inputs.Entry], num_samples: int, batch_size: int, population: bool
) -> list[list[tuple[inputs.Entry, int]]]:
    """(image, chain index) pairs of one shape each, batch_size samples at most, an image's in a row."""
    chains = 1 if population else num_samples
    size = max(1, batch_size // num_samples) if population else batch_size
    groups = defaultdict(list)
    for entry in entries:
        groups[entry.shape].append(entry)
    out = []
    for group in groups.values():
        pairs = [(entry, i) for entry in group for i in range(chains)]
        out += [pairs[i : i + size] for i in range(0, len(pairs), size)]
    return out


class Restorer(Protocol):
    """What restores a batch: `BatchRestorer`, or what stands in for it."""

    def check(
        self, measurement: Any, operator: operators.Operator, image_shape: tuple[int, int, int],
        noise: NoiseModel | None = None, /,
    ) -> None:  # fmt: skip
        """Raises what it has against such measurements, and noise of their own."""

    def __call__(
        self,
        keys: jax.Array,
        measurements: Any,
        known: Sequence[operators.Operator],
        image_shape: tuple[int, int, int],
        progress: Callable[[int], object],
        noises: Sequence[NoiseModel] | None = None,
        /,
    ) -> batch.BatchResult:
        """Restore a batch."""
        ...


@dataclasses.dataclass
class Prepared:
    """A job that can be run: its settings, and all that was made of them.

    noise: of every measurement, if `estimator` does not tell that of each.
    """

    job: RestorationJob
    sampler: Sampler | None
    entries: list[inputs.Entry]
    reader: inputs.Reader
    restorer: Restorer
    kernels: KernelFinder | None
    results: Results
    failures: dict[str, str]
    noise: NoiseModel
    estimator: NoiseEstimator | None = None

    def noise_of(self, measured: inputs.Measured) -> NoiseModel:
        """The noise of one measurement."""
        return self.noise if self.estimator is None else GaussianNoise(measured.noise_std)

    def measure(self, entry: inputs.Entry) -> inputs.Measured:
        """One image ready to be restored, with its noise."""
        found = self.reader.measure(entry)
        if not self.job.job.measured or not isinstance(self.noise, GaussianNoise):
            return found
        std = float(self.noise.std)
        if self.estimator is not None:
            estimate = self.estimator(found.measurement, found.operator, entry.shape)
            if estimate is None:
                self.warn(entry.name, f"too little lies together to tell its noise, {std:g} is taken: --noise_std")
            else:
                std = estimate
                tqdm.write(f"{entry.name}: noise {std:.3g}", file=sys.stderr)
        return found._replace(noise_std=std)

    def warn(self, name: str, text: str) -> None:
        """Tell what an image's answer should be looked at for, and keep it."""
        tqdm.write(f"warning: {name}: {text}", file=sys.stderr)
        self.results.warn(name, text)

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
        selection.list_inputs(str(job.job.input), job.job.measured)
    methods.plan_of(job.method, job.prior())


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
    files = selection.read_list(own.list, folder) if own.list else selection.list_inputs(str(own.input), own.measured)
    files = files[: own.limit]
    prior = job.prior()
    plan = methods.plan_of(job.method, prior)
    sampler = None if plan is None else plan.sampler
    search = task.blind and job.method.start == GUESS
    kernels = None
    if task.blind:
        loaded = job.load(settings.kernel_checkpoint)
        kernels = KernelFinder(task, settings, prior, loaded, noise, search, job.noise.estimated)
    estimator = NoiseEstimator(task, prior) if job.noise.estimated else None
    results = Results(job, sampler is not None and sampler.posterior)
    joint = kernels.joint() if kernels else None
    restorer = methods.make_restorer(own.method, job.method, prior, noise, plan, joint, search)
    reader = inputs.Reader(
        task, settings, prior.channels or 3, own.image_size, own.measured, noise, own.seed, stored,
        job.method.start == GUESS and not task.blind,
    )  # fmt: skip
    names = selection.output_names(files, folder)
    todo = [(path, name) for path, name in zip(files, names, strict=True) if name not in results.done]
    entries, failures = reader.check(todo)
    if failures and not entries and not results.rows:
        raise ValueError(next(iter(failures.values())))
    if entries:
        first = reader.measure(entries[0])
        known = kernels.operator(first) if kernels else first.operator
        restorer.check(first.measurement, known, first.entry.shape, noise if estimator else None)
    for error in failures.values():
        print(f"skipped: {error}", file=sys.stderr)
    if (few := cautions.few_steps(task, job.method)) is not None:
        print(f"warning: {few}", file=sys.stderr)
    results.begin()
    return Prepared(job, sampler, entries, reader, restorer, kernels, results, failures, noise, estimator)


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
    job, kernels, method = prepared.job, prepared.kernels, prepared.job.method
    seed, population = job.job.seed, prepared.sampler is not None and prepared.sampler.population
    plan = batches(prepared.entries, method.num_samples, job.job.batch_size, population)
    found: dict[str, list] = defaultdict(list)  # by image, of each batch
    measured: dict[str, inputs.Measured] = {}
    searched: dict[str, Found] = {}
    with tqdm(total=len(plan) * method.num_steps, unit="step", disable=not plan) as bar:
        for pairs in plan:
            for entry, _ in pairs:
                if entry.name not in measured:
                    measured[entry.name] = prepared.measure(entry)
                    if kernels:
                        search_key = inputs.key_of(entry, seed, 2)
                        searched[entry.name] = kernels.find(measured[entry.name], search_key)
            keys = jnp.stack([jax.random.fold_in(inputs.key_of(entry, seed, 1), i) for entry, i in pairs])
            measurements = np.stack([measured[entry.name].measurement for entry, _ in pairs])
            known = [(searched if kernels else measured)[entry.name].operator for entry, _ in pairs]
            noises = [prepared.noise_of(measured[entry.name]) for entry, _ in pairs] if prepared.estimator else None
            done = prepared.restorer(keys, measurements, known, pairs[0][0].shape, bar.update, noises)
            for i, (entry, _) in enumerate(pairs):
                found[entry.name].append(done.part(i, len(pairs)))
                if sum(len(p.images) for p in found[entry.name]) == method.num_samples:
                    whole, search = batch.join_parts(found.pop(entry.name)), searched.pop(entry.name, None)
                    finish(prepared, measured.pop(entry.name), whole, search)


def finish(prepared: Prepared, measured: inputs.Measured, found: batch.BatchResult, search: Found | None) -> None:
    """Write one image, or report that its loop diverged."""
    name, method = measured.entry.name, prepared.job.method
    if not np.abs(found.images).max() < DIVERGED:  # true for not-a-number too
        prepared.failures[name] = cautions.divergence(measured, found.residuals, method)
        print(f"failed: {name}: {prepared.failures[name]}", file=sys.stderr)
        return
    evaluations, seconds = methods.evaluations(method, prepared.sampler), found.seconds
    kernel = None
    if search is not None:
        best = found.kernels if found.kernels is None else found.kernels[np.argmin(found.residuals)]
        kernel = search.kernel if best is None else best
        evaluations, seconds = evaluations + search.evaluations, seconds + search.seconds
    prepared.results.write(measured, Restored(found.images, found.residuals, kernel, seconds, evaluations))
    if isinstance(method, methods.CvsaSettings):  # the others do not promise to fit
        residual, noise = prepared.results.residual(found.residuals), prepared.noise_of(measured)
        if (text := cautions.misfit(residual, noise, measured, prepared.job.task)) is not None:
            prepared.warn(name, text)
