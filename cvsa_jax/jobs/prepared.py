"""A job that can be run: its settings, and all that was made of them."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
from tqdm import tqdm

from cvsa_jax import batch, operators, remote
from cvsa_jax.jobs import cautions, inputs, origins
from cvsa_jax.jobs.kernel_finder import KernelFinder
from cvsa_jax.jobs.outputs import Results
from cvsa_jax.jobs.places import Source
from cvsa_jax.jobs.settings import RestorationJob
from cvsa_jax.noise import GaussianNoise, NoiseModel
from cvsa_jax.noise_estimation import NoiseEstimator
from cvsa_jax.samplers import Sampler


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
        size: int | None = None,
        /,
    ) -> batch.BatchResult:
        """Restore a batch, filled up to a size."""
        ...


class Reading(NamedTuple):
    """One image ready to be restored. note: what people should know of it. warning: what its answer should be looked
    at for."""

    measured: inputs.Measured
    note: str | None = None
    warning: str | None = None


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
    limit: Callable[[tuple[int, int, int]], int] | None = None
    estimator: NoiseEstimator | None = None
    source: Source | None = None  # whose temporary files live as long as this

    @property
    def command(self) -> str:
        """Which command completes it, in words: with --overwrite the same one would begin anew."""
        return "the same command" + " without --overwrite" * self.job.job.overwrite

    def fail(self, name: str, why: str) -> None:
        """Note and report an image that could not be restored; the others go on."""
        self.failures[name] = remote.shown(" ".join(why.split()))
        tqdm.write(f"failed: {name}: {self.failures[name]}", file=sys.stderr)

    def noise_of(self, measured: inputs.Measured) -> NoiseModel:
        """The noise of one measurement."""
        return self.noise if self.estimator is None else GaussianNoise(measured.noise_std)

    def measure(self, entry: inputs.Entry) -> Reading:
        """One image ready to be restored, with its noise; several threads may call this at once."""
        origin = origins.of_image(self.reader.files_of(entry))  # before it is read: what changes meanwhile is noticed
        found = self.reader.measure(entry)._replace(origin=origin)
        if not self.job.job.measured or not isinstance(self.noise, GaussianNoise):
            return Reading(found)
        std = float(self.noise.std)
        if self.estimator is None:
            return Reading(found._replace(noise_std=std))
        estimate = self.estimator(found.measurement, found.operator, entry.shape)
        if estimate is None:
            text = f"too little lies together to tell its noise, {std:g} is taken: --noise_std"
            return Reading(found._replace(noise_std=std), warning=text)
        return Reading(
            found._replace(noise_std=estimate), f"noise {estimate:.3g}", cautions.much_noise(estimate, self.job.task)
        )

    def tell(self, reading: Reading) -> None:
        """Say what is to be said of an image that was read."""
        name = reading.measured.entry.name
        if reading.note is not None:
            tqdm.write(f"{name}: {reading.note}", file=sys.stderr)
        if reading.warning is not None:
            self.warn(name, reading.warning)

    def warn(self, name: str, text: str) -> None:
        """Tell what an image's answer should be looked at for, and keep it."""
        self.say(name, text)
        self.results.warn(name, text)

    def say(self, name: str, text: str) -> None:
        """Tell what an image's answer should be looked at for, where it is kept already."""
        tqdm.write(f"warning: {name}: {text}", file=sys.stderr)
