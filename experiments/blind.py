"""The blind tasks of a restoration job: what is known of the kernel, or found out."""

import time
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from cvsa_jax import checkpoints, operators
from cvsa_jax.blind import BlindConvolution
from cvsa_jax.kernel_search import KernelSearch, SearchSettings
from experiments import common
from experiments.inputs import Measured


class Found(NamedTuple):
    """operator: what the loop is given. kernel: found by the search, or None where the chains find it."""

    operator: object
    kernel: np.ndarray | None
    seconds: float
    evaluations: int


class KernelFinder:
    """--start=guess: searches for the kernel before the loop. --start=noise: the joint chains of algorithm 2."""

    def __init__(self, job: flags.FlagValues, image: checkpoints.LoadedPrior, kernel: checkpoints.LoadedPrior):
        if kernel.spec.image_channels != 1:
            raise ValueError(f"--kernel_checkpoint={job.kernel_checkpoint} is no prior of kernels: it has colours")
        if job.noise != "gaussian" and job.start == "guess":
            raise ValueError("the kernel search knows Gaussian noise alone; with --noise=poisson give --start=noise")
        self._job, self._image, self._kernel = job, image, kernel
        self._searches: dict[int, KernelSearch] = {}

    @classmethod
    def from_flags(cls, image: checkpoints.LoadedPrior, job: flags.FlagValues) -> "KernelFinder":
        """With the prior that --kernel_checkpoint names."""
        return cls(job, image, common.load_prior(job.kernel_checkpoint, common.diffusion_from_flags(job)))

    def side(self, shape: tuple[int, ...]) -> int:
        """Side of the kernel's image for an image of that shape."""
        stride = self._kernel.spec.build().stride
        size = self._job.kernel_size or operators.default_kernel_size(min(shape[:2]))
        return max(self._kernel.spec.image_size, -(-(size + 1) // stride) * stride)

    def joint_settings(self) -> dict:
        """What `BatchRestorer` needs to run the joint chains; nothing if the kernel is searched for."""
        if self._job.start == "guess":
            return {}
        return {"kernel_prior": self._kernel.prior, "kernel_side": self.side}

    def find(self, measured: Measured, key: jax.Array) -> Found:
        """The operator of one image."""
        job = self._job
        if job.start != "guess":
            return Found(BlindConvolution(job.boundary), None, 0.0, 0)
        side = self.side(measured.entry.shape)
        if side not in self._searches:
            guesses = SearchSettings(num_guesses=job.search_guesses, family=operators.find_task(job.task).family)
            spec = self._image.spec
            self._searches[side] = KernelSearch(
                self._image.prior, self._kernel.prior, spec.build().stride, spec.image_channels, side, job.noise_std,
                guesses, job.boundary,
            )  # fmt: skip
        search = self._searches[side]
        search.prepare(measured.measurement.shape)
        with tqdm(
            total=search.settings.num_rounds, unit="round", desc=f"kernel of {measured.entry.name}", leave=False
        ) as bar:
            clock = time.perf_counter()
            kernel = search(key, measured.measurement, bar.update)
            seconds = time.perf_counter() - clock
        return Found(operators.convolution(kernel, job.boundary), kernel, seconds, search.settings.num_evaluations)
