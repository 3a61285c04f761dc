"""A job that can be run: its settings, and all that was made of them."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
from tqdm import tqdm

from cvsa_jax import batch, operators
from cvsa_jax.jobs import cautions, inputs
from cvsa_jax.jobs.kernel_finder import KernelFinder
from cvsa_jax.jobs.outputs import Results
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

    def fail(self, name: str, why: str) -> None:
        """Note and report an image that could not be restored; the others go on."""
        self.failures[name] = " ".join(why.split())
        print(f"failed: {name}: {self.failures[name]}", file=sys.stderr)

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
                if (text := cautions.much_noise(std, self.job.task)) is not None:
                    self.warn(entry.name, text)
        return found._replace(noise_std=std)

    def warn(self, name: str, text: str) -> None:
        """Tell what an image's answer should be looked at for, and keep it."""
        tqdm.write(f"warning: {name}: {text}", file=sys.stderr)
        self.results.warn(name, text)
