"""Restoring batches: compiled once for a shape, run in chunks so that progress can be shown."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from cvsa_jax.baselines import BLIND_BASELINES, baseline_loop
from cvsa_jax.blind import Layout, PairPrior, blind_loop
from cvsa_jax.noise import NoiseModel
from cvsa_jax.operators.algebra import root_mean_square
from cvsa_jax.operators.base import as_operator
from cvsa_jax.operators.kernels import image_to_kernel
from cvsa_jax.plans import Plan, make_plan
from cvsa_jax.priors import Prior
from cvsa_jax.restoration import make_loop, view
from cvsa_jax.sampler_settings import SamplerSettings
from cvsa_jax.samplers import Loop, run_steps
from cvsa_jax.sharding import batch_mesh, filled, join_alike, split_over, stack_alike
from cvsa_jax.types import Info


class BatchResult(NamedTuple):
    """images: (B, H, W, C) float32, of particles (B, P, H, W, C).

    residuals: (B,) or (B, P), root mean square of y - H(x) of those images. trace: of each step,
    (B, num_steps); None of a method without steps. kernels: (B, K, K) of blind tasks, sum 1; else None.
    seconds: of the loop alone.
    """

    images: np.ndarray
    residuals: np.ndarray
    trace: Info | None
    kernels: np.ndarray | None
    seconds: float

    def part(self, index: int, count: int) -> "BatchResult":
        """One image's share of a batch of `count`, its samples leading."""
        own = BatchResult(*jax.tree.map(lambda a: a[index : index + 1], self[:-1]), seconds=self.seconds / count)
        if self.images.ndim == 5:  # its particles are its samples
            own = own._replace(images=self.images[index], residuals=self.residuals[index])
        return own


def join_parts(parts: list[BatchResult]) -> BatchResult:
    """The samples of one image from several batches."""
    arrays = jax.tree.map(lambda *a: np.concatenate(a), *(part[:-1] for part in parts))
    return BatchResult(*arrays, seconds=sum(part.seconds for part in parts))


class KernelPrior(NamedTuple):
    """What a blind task knows of kernels: the prior, and the side of the kernel's image for a canvas (H, W, C)."""

    prior: Prior
    side: Callable[[tuple[int, ...]], int]


# (measurement, operator, (prior, prior of kernels or None), canvas, its own noise or None) -> Loop
LoopMaker = Callable[..., Loop]


def guided_loops(
    prior: Prior, noise: NoiseModel, settings: SamplerSettings | Plan, kernel: KernelPrior | None
) -> LoopMaker:
    """Loops of `restore`, or with a prior of kernels those of `blind_loop`; their tables are made once.

    Args:
      prior, noise, kernel: of the images, their measurements where they have none of their own, the kernels.
      settings: of the loops, or their plan.

    Raises:
      ValueError: on settings that `restore` would refuse.
    """
    noise.check()
    plan = settings if isinstance(settings, Plan) else make_plan(settings, prior.cld, prior.highest_noise)

    def make(measurement, operator, priors, canvas, own: NoiseModel | None = None):
        if kernel is None:
            return make_loop(measurement, operator, priors[0], own or noise, plan)
        pair = PairPrior(*priors, layout=Layout(canvas, kernel.side(canvas)))
        return blind_loop(measurement, operator, pair, own or noise, plan)

    return make


def baseline_loops(
    name: str, noise: NoiseModel, num_steps: int, constants: dict, kernel: KernelPrior | None
) -> LoopMaker:
    """Loops of one of BASELINES or, with a prior of kernels, of BLIND_BASELINES."""

    def make(measurement, operator, priors, canvas, own: NoiseModel | None = None):
        if kernel is None:
            return baseline_loop(name, measurement, operator, priors[0], canvas, num_steps, own or noise, **constants)
        factory, side = BLIND_BASELINES[name].factory, kernel.side(canvas)
        denoisers = (p.denoise for p in priors)
        return factory(*denoisers, measurement, operator, canvas, side, num_steps, **constants)

    return make


class BatchRestorer:
    """A loop over a batch of (key, measurement, operator), spread over the local devices.

    Each image is computed as if it were alone. Images of any size are restored on a
    canvas that the network can take, of which the measurement sees the top left part.

    Args:
      prior: the prior.
      loops: makes the loop of one measurement, such as `guided_loops` and `baseline_loops` give.
      num_steps: reverse steps of a loop.
      kernel: for joint chains of image and kernel, whose operators are of both.
      chunk: steps between two calls of the progress function.
    """

    def __init__(
        self, prior: Prior, loops: LoopMaker, num_steps: int, kernel: KernelPrior | None = None, chunk: int = 10
    ):
        self._prior, self._priors = prior, (prior, kernel and kernel.prior)
        self._loops, self._num_steps, self._chunk = loops, num_steps, min(chunk, num_steps)
        self._compiled: dict = {}

    def _compile(self, name: str, function: Callable, num_split: int, mesh, *args):
        """The program for these shapes, compiled at the first call."""
        shapes = jax.tree.map(lambda a: (jnp.shape(a), jnp.result_type(a)), args)
        key = (name, str(shapes), jax.tree.structure(args))
        if key not in self._compiled:
            self._compiled[key] = jax.jit(split_over(mesh, function, num_split)).lower(*args).compile()
        return self._compiled[key]

    def check(
        self, measurement: Any, operator: Callable, image_shape: tuple[int, int, int], noise: NoiseModel | None = None
    ) -> None:
        """Raises what the loop has against such measurements, and noise of their own, before anything compiles."""
        canvas, seen = self._prior.canvas(image_shape), view(as_operator(operator), self._prior, image_shape)

        def begin(key, y, h, priors, noise):
            loop = self._loops(y, h, priors, canvas, noise)
            return loop.step(loop.init(key, canvas), jnp.int32(0))

        jax.eval_shape(begin, jax.random.key(0), jax.tree.map(jnp.asarray, measurement), seen, self._priors, noise)

    def _init_batch(self, keys, measurements, operators, noises, whole, priors, *, canvas):
        def one(key, y, h, noise):
            return self._loops(y, join_alike(h, whole), priors, canvas, noise).init(key, canvas)

        return jax.vmap(one)(keys, measurements, operators, noises)

    def _run_batch(self, states, measurements, operators, noises, whole, priors, start, *, count, canvas):
        def one(state, y, h, noise):
            return run_steps(self._loops(y, join_alike(h, whole), priors, canvas, noise), state, start, count)

        return jax.vmap(one)(states, measurements, operators, noises)

    def _finish_batch(self, states, measurements, operators, noises, whole):
        """(images, residuals, kernels) of the last states."""

        def judge(x, k, y, h):
            residual = jax.tree.map(jnp.subtract, h.restrict(y), h(x) if k is None else h(x, k))
            return h.crop(x), root_mean_square(h, residual), None if k is None else image_to_kernel(k)

        def one(state, y, h):
            h = join_alike(h, whole)
            if state.x.ndim == 4:  # particles
                return jax.vmap(lambda x: judge(x, None, y, h))(state.x)
            return judge(state.x, state.k, y, h)

        return jax.vmap(one)(states, measurements, operators)

    def __call__(
        self,
        keys: jax.Array,
        measurements: Any,
        operators: Sequence[Callable],
        image_shape: tuple[int, int, int],
        progress: Callable[[int], object] = lambda steps: None,
        noises: Sequence[NoiseModel] | None = None,
    ) -> BatchResult:
        """Restore a batch.

        Args:
          keys: (B,) PRNG keys.
          measurements: (B, ...), or a tree of such arrays.
          operators: B operators of one kind, each acting on images of `image_shape`.
          image_shape: (H, W, C) of the images; C may be 1 under a prior with 3 channels.
          progress: called with the number of steps that were just done.
          noises: B noise models of one kind, of each measurement its own; None is that of the loops. They are
            arguments of the compiled programs.
        """
        views = [view(as_operator(h), self._prior, image_shape) for h in operators]
        mesh, canvas = batch_mesh(len(views)), self._prior.canvas(image_shape)
        split, whole = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
        rows, own = filled(len(views), mesh), slice(len(views))
        stacked, shared = stack_alike([views[row] for row in rows])
        keys, measurements = keys[rows], jax.tree.map(lambda a: jnp.asarray(a)[rows], measurements)
        own_noise = None if noises is None else jax.tree.map(
            lambda *leaves: jnp.asarray(leaves, jnp.result_type(float)), *(noises[row] for row in rows)
        )  # fmt: skip
        keys, *inputs = jax.device_put((keys, measurements, stacked, own_noise), split)
        shared, priors, zero = jax.device_put((shared, self._priors, jnp.zeros((), jnp.int32)), whole)
        inputs.append(shared)
        init = functools.partial(self._init_batch, canvas=canvas)
        begin = self._compile(f"init {canvas}", init, 4, mesh, keys, *inputs, priors)
        clock = time.perf_counter()
        states = jax.block_until_ready(begin(keys, *inputs, priors))
        seconds = time.perf_counter() - clock
        counts = [self._chunk] * (self._num_steps // self._chunk)
        counts += [self._num_steps % self._chunk] if self._num_steps % self._chunk else []
        runs = {}
        for count in set(counts):
            run = functools.partial(self._run_batch, count=count, canvas=canvas)
            runs[count] = self._compile(f"run {count}", run, 4, mesh, states, *inputs, priors, zero)
        infos, start, clock = [], 0, time.perf_counter()
        for count in counts:
            states, info = runs[count](states, *inputs, priors, jax.device_put(jnp.int32(start), whole))
            infos.append(jax.tree.map(lambda a: np.asarray(a)[own], info))
            start += count
            progress(count)
        seconds += time.perf_counter() - clock
        finish = self._compile("finish", self._finish_batch, 4, mesh, states, *inputs)
        images, residuals, kernels = jax.tree.map(lambda a: np.asarray(a)[own], finish(states, *inputs))
        trace = jax.tree.map(lambda *parts: np.concatenate(parts, 1), *infos)
        return BatchResult(images, residuals, trace, kernels, seconds)
