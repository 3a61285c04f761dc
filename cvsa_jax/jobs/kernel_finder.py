"""The blind tasks of a restoration job: what is known of the kernel, or found out."""

import time
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from cvsa_jax import operators
from cvsa_jax.batch import KernelPrior
from cvsa_jax.blind import BlindConvolution
from cvsa_jax.checkpoints import LoadedPrior
from cvsa_jax.jobs.inputs import Measured
from cvsa_jax.kernel_search import KernelSearch, SearchSettings
from cvsa_jax.noise import GaussianNoise, NoiseModel
from cvsa_jax.operators import Operator, Task
from cvsa_jax.priors import Prior
from cvsa_jax.types import UnsuitableError


class Found(NamedTuple):
    """operator: what the loop is given. kernel: found by the search, or None where the chains find it."""

    operator: Operator
    kernel: np.ndarray | None
    seconds: float
    evaluations: int


class KernelFinder:
    """Finds kernels before the loop (search), or leaves them to the joint chains of algorithm 2.

    Args:
      task: a blind one. settings: of the task. prior: of images. kernels: the prior of kernels.
      noise: of the measurements. search: whether to search. own_noise: whether each measurement has its own noise.

    Raises:
      ValueError: if the prior is no prior of kernels. UnsuitableError: if the search does not know the noise.
    """

    def __init__(
        self, task: Task, settings: Any, prior: Prior, kernels: LoadedPrior, noise: NoiseModel, search: bool,
        own_noise: bool = False,
    ):  # fmt: skip
        if kernels.spec.image_channels != 1:
            raise ValueError(f"--kernel_checkpoint={settings.kernel_checkpoint} is no prior of kernels: it has colours")
        if search and not isinstance(noise, GaussianNoise):
            raise UnsuitableError(
                "the kernel search knows Gaussian noise alone; with --noise=poisson give --start=noise"
            )
        if search and prior.spectrum is None:
            raise UnsuitableError("the kernel search needs a prior that knows its data's spectrum; give --start=noise")
        self._task, self._settings, self._prior, self._kernels = task, settings, prior, kernels
        self._noise, self._search, self._own_noise = noise, search, own_noise
        self._searches: dict[int, KernelSearch] = {}

    def side(self, shape: tuple[int, ...]) -> int:
        """Side of the kernel's image for an image of that shape."""
        stride = self._kernels.prior.stride
        size = self._settings.kernel_size or operators.default_kernel_size(min(shape[:2]))
        return max(self._kernels.spec.image_size, -(-(size + 1) // stride) * stride)

    def joint(self) -> KernelPrior | None:
        """What the joint chains need; None if the kernel is searched for."""
        return None if self._search else KernelPrior(self._kernels.prior, self.side)

    def operator(self, measured: Measured) -> Operator:
        """An operator of the kind that the loop is given."""
        own = measured.operator  # of the task's settings, or the one that --operator names
        boundary = own.boundary if isinstance(own, operators.Convolution) else self._settings.boundary
        return own if self._search else BlindConvolution(boundary)

    def find(self, measured: Measured, key: jax.Array) -> Found:
        """The operator of one image."""
        known = self.operator(measured)
        if not isinstance(known, operators.Convolution):
            return Found(known, None, 0.0, 0)
        boundary = known.boundary
        side = self.side(measured.entry.shape)
        if side not in self._searches:
            guesses = SearchSettings(num_guesses=self._settings.search_guesses, family=self._task.family)
            assert isinstance(self._noise, GaussianNoise)
            self._searches[side] = KernelSearch(
                self._prior, self._kernels.prior, side, self._noise.std, guesses, boundary
            )
        search, own = self._searches[side], measured.noise_std if self._own_noise else None
        search.prepare(measured.measurement.shape, own is not None)
        with tqdm(
            total=search.settings.num_rounds, unit="round", desc=f"kernel of {measured.entry.name}", leave=False,
            disable=None,
        ) as bar:  # fmt: skip
            clock = time.perf_counter()
            kernel = search(key, measured.measurement, bar.update, own)
            seconds = time.perf_counter() - clock
        return Found(operators.convolution(kernel, boundary), kernel, seconds, search.settings.num_evaluations)
