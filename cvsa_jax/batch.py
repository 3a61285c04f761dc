"""Restoring batches: compiled once for a shape, run in chunks so that progress can be shown."""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from cvsa_jax.baselines import BLIND_BASELINES, baseline_sampler
from cvsa_jax.blind import Layout, PairPrior, blind_sampler
from cvsa_jax.operators.base import Identity, View, canvas_shape, restrict
from cvsa_jax.operators.kernels import image_to_kernel
from cvsa_jax.operators.phase import FourierMagnitude
from cvsa_jax.priors import Prior
from cvsa_jax.restore import guided_sampler, run_steps
from cvsa_jax.sharding import batch_mesh, split_over
from cvsa_jax.types import Info


class BatchResult(NamedTuple):
    """images: (B, H, W, C) float32, of particles (B, P, H, W, C).

    residuals: (B,) or (B, P), root mean square of y - H(x) of those images. trace: of each step,
    (B, num_steps). kernels: (B, K, K) of blind tasks, sum 1; else None. seconds: of the loop alone.
    """

    images: np.ndarray
    residuals: np.ndarray
    trace: Info
    kernels: np.ndarray | None
    seconds: float

    def part(self, index: int, count: int) -> "BatchResult":
        """One image's share of a batch of `count`, its samples leading."""
        own = BatchResult(*jax.tree.map(lambda a: a[index : index + 1], self[:-1]), self.seconds / count)
        if self.images.ndim == 5:  # its particles are its samples
            own = own._replace(images=self.images[index], residuals=self.residuals[index])
        return own


def join(parts: list[BatchResult]) -> BatchResult:
    """The samples of one image from several batches."""
    arrays = jax.tree.map(lambda *a: np.concatenate(a), *(part[:-1] for part in parts))
    return BatchResult(*arrays, sum(part.seconds for part in parts))


class BatchRestorer:
    """`restore` over a batch of (key, measurement, operator), spread over the local devices.

    Each image is computed as if it were alone. Images of any size are restored on a
    canvas that the network can take, of which the measurement sees the top left part.

    Args:
      prior: the prior.
      stride: canvas sides are multiples of this.
      image_channels: of the prior.
      num_steps: reverse steps.
      chunk: steps between two calls of the progress function.
      kernel_prior: for blind tasks, whose operators are of image and kernel.
      kernel_side: for blind tasks, side of the kernel's image for a canvas (H, W, C).
      baseline: to run in place of CVSA, (name in BASELINES or, for blind tasks, BLIND_BASELINES, its constants).
      settings: further keyword arguments of `guided_sampler`; of baselines, noise_std alone.

    Raises:
      ValueError: on a setting that `restore` would refuse.
    """

    def __init__(
        self,
        prior: Prior,
        stride: int,
        image_channels: int,
        num_steps: int,
        chunk: int = 10,
        kernel_prior: Prior | None = None,
        kernel_side: Callable[[tuple[int, ...]], int] | None = None,
        baseline: tuple[str, dict] | None = None,
        **settings,
    ):
        self._priors, self._stride, self._channels = (prior, kernel_prior), stride, image_channels
        self._num_steps, self._chunk, self._kernel_side = num_steps, min(chunk, num_steps), kernel_side
        self._settings = dict(settings, num_steps=num_steps)
        self._baseline = baseline
        if baseline is None:
            # Bad settings are refused here, of which only the start depends on the operator.
            stand_in = Identity() if settings.get("start") != "guess" else FourierMagnitude(0, 0)
            self._chain(np.zeros(()), stand_in, self._priors, self.canvas(stride, stride))
        self._compiled: dict = {}

    def canvas(self, height: int, width: int) -> tuple[int, int, int]:
        """The shape that the loop works on for an image of height x width."""
        return canvas_shape(height, width, self._stride, self._channels)

    def _compile(self, name: str, function: Callable, num_split: int, mesh, *args):
        """The program for these shapes, compiled at the first call."""
        shapes = jax.tree.map(lambda a: (jnp.shape(a), jnp.result_type(a)), args)
        key = (name, str(shapes), jax.tree.structure(args))
        if key not in self._compiled:
            self._compiled[key] = jax.jit(split_over(mesh, function, num_split)).lower(*args).compile()
        return self._compiled[key]

    def check(self, measurement: np.ndarray, operator, image_shape: tuple[int, int, int]) -> None:
        """Raises what the sampler has against such measurements, before anything compiles."""
        canvas, view = self.canvas(*image_shape[:2]), self._view(operator, image_shape)

        def begin(key, y, h, priors):
            return self._chain(y, h, priors, canvas).init(key, canvas)

        jax.eval_shape(begin, jax.random.key(0), jnp.asarray(measurement), view, self._priors)

    def _view(self, operator, image_shape) -> View:
        height, width, channels = image_shape
        return View(operator, height, width, channels == 1 and self._channels != 1)

    def _chain(self, measurement, operator, priors, canvas):
        image, kernel = priors
        if self._baseline is not None:
            (name, constants), noise, steps = self._baseline, self._settings["noise_std"], self._num_steps
            if kernel is None:
                return baseline_sampler(name, measurement, operator, image, canvas, steps, noise, **constants)
            factory, side = BLIND_BASELINES[name].factory, self._kernel_side(canvas)
            return factory(image.denoise, kernel.denoise, measurement, operator, canvas, side, steps, **constants)
        if kernel is None:
            return guided_sampler(measurement, operator, image, **self._settings)
        pair = PairPrior(image, kernel, Layout(canvas, self._kernel_side(canvas)))
        return blind_sampler(measurement, operator, pair, **self._settings)

    def _init_batch(self, keys, measurements, operators, priors, *, canvas):
        def one(key, y, h):
            return self._chain(y, h, priors, canvas).init(key, canvas)

        return jax.vmap(one)(keys, measurements, operators)

    def _run_batch(self, states, measurements, operators, priors, start, *, count, canvas):
        def one(state, y, h):
            return run_steps(self._chain(y, h, priors, canvas), state, start, count)

        return jax.vmap(one)(states, measurements, operators)

    def _finish_batch(self, states, measurements, operators):
        """(images, residuals, kernels) of the last states."""

        def judge(x, k, y, h):
            residual = restrict(h, y) - (h(x) if k is None else h(x, k))
            return h.crop(x), jnp.sqrt(jnp.mean(residual**2)), None if k is None else image_to_kernel(k)

        def one(state, y, h):
            if state.x.ndim == 4:  # particles
                return jax.vmap(lambda x: judge(x, None, y, h))(state.x)
            return judge(state.x, state.k, y, h)

        return jax.vmap(one)(states, measurements, operators)

    def __call__(
        self,
        keys: jax.Array,
        measurements: np.ndarray,
        operators: list,
        image_shape: tuple[int, int, int],
        progress: Callable[[int], None] = lambda steps: None,
    ) -> BatchResult:
        """Restore a batch.

        Args:
          keys: (B,) PRNG keys.
          measurements: (B, ...).
          operators: B operators of one kind, each acting on images of `image_shape`.
          image_shape: (H, W, C) of the images; C may be 1 under a prior with 3 channels.
          progress: called with the number of steps that were just done.
        """
        views = [self._view(h, image_shape) for h in operators]
        mesh, canvas = batch_mesh(len(views)), self.canvas(*image_shape[:2])
        split, whole = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *views)
        keys, *inputs = jax.device_put((keys, jnp.asarray(measurements), stacked), split)
        priors, zero = jax.device_put((self._priors, jnp.zeros((), jnp.int32)), whole)
        init = functools.partial(self._init_batch, canvas=canvas)
        begin = self._compile(f"init {canvas}", init, 3, mesh, keys, *inputs, priors)
        clock = time.perf_counter()
        states = jax.block_until_ready(begin(keys, *inputs, priors))
        seconds = time.perf_counter() - clock
        counts = [self._chunk] * (self._num_steps // self._chunk)
        counts += [self._num_steps % self._chunk] if self._num_steps % self._chunk else []
        runs = {}
        for count in set(counts):
            run = functools.partial(self._run_batch, count=count, canvas=canvas)
            runs[count] = self._compile(f"run {count}", run, 3, mesh, states, *inputs, priors, zero)
        infos, start, clock = [], 0, time.perf_counter()
        for count in counts:
            states, info = runs[count](states, *inputs, priors, jax.device_put(jnp.int32(start), whole))
            infos.append(jax.tree.map(np.asarray, info))
            start += count
            progress(count)
        seconds += time.perf_counter() - clock
        finish = self._compile("finish", self._finish_batch, 3, mesh, states, *inputs)
        images, residuals, kernels = jax.tree.map(np.asarray, finish(states, *inputs))
        trace = jax.tree.map(lambda *parts: np.concatenate(parts, 1), *infos)
        return BatchResult(images, residuals, trace, kernels, seconds)
