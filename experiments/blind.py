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

FLAGS = flags.FLAGS


class Found(NamedTuple):
    """operator: what the loop is given. kernel: found by the search, or None where the chains find it."""

    operator: object
    kernel: np.ndarray | None
    seconds: float
    evaluations: int


class KernelFinder:
    """--start=guess: searches for the kernel before the loop. --start=noise: the joint chains of algorithm 2."""

    def __init__(self, image: checkpoints.LoadedPrior, kernel: checkpoints.LoadedPrior):
        if kernel.spec.image_channels != 1:
            raise ValueError(f"--kernel_checkpoint={FLAGS.kernel_checkpoint} is no prior of kernels: it has colours")
        if FLAGS.noise != "gaussian" and FLAGS.start == "guess":
            raise ValueError("the kernel search knows Gaussian noise alone; with --noise=poisson give --start=noise")
        self._image, self._kernel = image, kernel
        self._searches: dict[int, KernelSearch] = {}

    @classmethod
    def from_flags(cls, image: checkpoints.LoadedPrior) -> "KernelFinder":
        """With the prior that --kernel_checkpoint names."""
        return cls(image, checkpoints.load_prior(FLAGS.kernel_checkpoint, common.diffusion_from_flags()))

    def side(self, shape: tuple[int, ...]) -> int:
        """Side of the kernel's image for an image of that shape."""
        stride = self._kernel.spec.build().stride
        size = FLAGS.kernel_size or operators.default_kernel_size(min(shape[:2]))
        return max(self._kernel.spec.image_size, -(-(size + 1) // stride) * stride)

    def joint_settings(self) -> dict:
        """What `BatchRestorer` needs to run the joint chains; nothing if the kernel is searched for."""
        if FLAGS.start == "guess":
            return {}
        return {"kernel_prior": self._kernel.prior, "kernel_side": self.side}

    def find(self, job: Measured, key: jax.Array) -> Found:
        """The operator of one image."""
        if FLAGS.start != "guess":
            return Found(BlindConvolution(FLAGS.boundary), None, 0.0, 0)
        side = self.side(job.entry.shape)
        if side not in self._searches:
            guesses = SearchSettings(num_guesses=FLAGS.search_guesses)
            spec = self._image.spec
            self._searches[side] = KernelSearch(
                self._image.prior, self._kernel.prior, spec.build().stride, spec.image_channels, side, FLAGS.noise_std,
                guesses, FLAGS.boundary,
            )  # fmt: skip
        search = self._searches[side]
        search.prepare(job.measurement.shape)
        with tqdm(
            total=search.settings.num_rounds, unit="round", desc=f"kernel of {job.entry.name}", leave=False
        ) as bar:
            clock = time.perf_counter()
            kernel = search(key, job.measurement, bar.update)
            seconds = time.perf_counter() - clock
        return Found(operators.convolution(kernel, FLAGS.boundary), kernel, seconds, search.settings.num_evaluations)
