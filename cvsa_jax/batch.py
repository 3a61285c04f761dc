"""Restoring batches: compiled once for a shape, run in chunks so that progress can be shown."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.loops import KernelPrior, LoopMaker, baseline_loops, guided_loops
from cvsa_jax.noise import NoiseModel
from cvsa_jax.operators.algebra import root_mean_square
from cvsa_jax.operators.base import as_operator
from cvsa_jax.operators.kernels import image_to_kernel
from cvsa_jax.placement import TOGETHER, BatchPlacement, Placement, Spread, SpreadPlacement, own_rows
from cvsa_jax.priors import Prior
from cvsa_jax.processes import alike
from cvsa_jax.restoration import view
from cvsa_jax.samplers import run_steps
from cvsa_jax.sharding import join_alike, stack_alike
from cvsa_jax.types import Info

__all__ = [
    "BatchRestorer", "BatchResult", "KernelPrior", "LoopMaker", "Running", "baseline_loops", "guided_loops",
    "join_parts",
]  # fmt: skip


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


class Running:
    """A batch that the devices work on; `result` waits for it.

    Args:
      restorer: that began it. count: images that are no copies. chunks: (steps, trace) of each.
      ends: (images, residuals, kernels) of the last states.
    """

    def __init__(self, restorer: "BatchRestorer", count: int, chunks: list[tuple[int, Info]], ends: tuple):
        self._restorer, self._count, self._chunks, self._ends = restorer, count, chunks, ends
        self._began = time.perf_counter()

    def result(self, progress: Callable[[int], object] = lambda steps: None) -> BatchResult:
        """What was found; progress is called with the number of steps that were just done.

        Batches end in the order in which they began. The seconds of one count from the end of the one before it.
        """
        infos, own = [], lambda a: own_rows(a)[: self._count]
        for steps, info in self._chunks:
            infos.append(jax.tree.map(own, info))
            progress(steps)
        images, residuals, kernels = jax.tree.map(own, self._ends)
        ended = time.perf_counter()
        seconds = ended - max(self._began, self._restorer.ended)
        self._restorer.ended = ended
        trace = jax.tree.map(lambda *parts: np.concatenate(parts, 1), *infos)
        return BatchResult(images, residuals, trace, kernels, seconds)


class BatchRestorer:
    """A loop over a batch of (key, measurement, operator), on the devices of all processes.

    Each image is computed as if it were alone. Images of any size are restored on a
    canvas that the network can take, of which the measurement sees the top left part.

    Args:
      prior: the prior.
      loops: makes the loop of one measurement, such as `guided_loops` and `baseline_loops` give.
      num_steps: reverse steps of a loop.
      kernel: for joint chains of image and kernel, whose operators are of both.
      chunk: steps between two calls of the progress function.
      spread: what is cut over the devices beside the batch.
    """

    def __init__(
        self, prior: Prior, loops: LoopMaker, num_steps: int, kernel: KernelPrior | None = None, chunk: int = 10,
        spread: Spread = TOGETHER,
    ):  # fmt: skip
        self._prior, self._priors = prior, (prior, kernel and kernel.prior)
        self._loops, self._num_steps, self._chunk = loops, num_steps, min(chunk, num_steps)
        self._spread, self._compiled, self._placed = spread, {}, (None, None)
        self.ended = 0.0  # when the last batch did

    def _compile(self, place: Placement, name: str, function: Callable, donated: tuple[int, ...], *args):
        """The program for these shapes, compiled at the first call; its first four arguments are of images."""
        shapes = tuple((jnp.shape(a), jnp.result_type(a)) for a in jax.tree.leaves(args))
        key = (name, shapes, jax.tree.structure(args))
        if key not in self._compiled:
            self._compiled[key] = place.program(function, 4, donated, *args)
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

    def _init_batch(self, keys, measurements, operators, noises, whole, priors, *, canvas, kind):
        def one(key, y, h, noise):
            loop = self._loops(y, join_alike(h, whole), priors, canvas, noise)
            return loop.init(jax.random.wrap_key_data(key, impl=kind), canvas)

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

    def _place(self, rows: int, canvas: tuple[int, int, int]) -> Placement:
        spread = self._spread
        if spread == TOGETHER:
            return BatchPlacement(rows)
        return SpreadPlacement(rows, canvas[0], spread)

    def _parameters(self, place: Placement) -> Any:
        """The priors where a batch needs them, put there once."""
        if self._placed[0] != place.mesh:
            self._placed = place.mesh, place.parameters(self._priors)
        return self._placed[1]

    def __call__(
        self,
        keys: jax.Array,
        measurements: Any,
        operators: Sequence[Callable],
        image_shape: tuple[int, int, int],
        progress: Callable[[int], object] = lambda steps: None,
        noises: Sequence[NoiseModel] | None = None,
        size: int | None = None,
    ) -> BatchResult:
        """`begin`, and its result; progress: called with the number of steps that were just done."""
        return self.begin(keys, measurements, operators, image_shape, noises, size).result(progress)

    def begin(
        self,
        keys: jax.Array,
        measurements: Any,
        operators: Sequence[Callable],
        image_shape: tuple[int, int, int],
        noises: Sequence[NoiseModel] | None = None,
        size: int | None = None,
    ) -> Running:
        """Give the devices a batch; it returns when its programs are compiled and all arrays on their way.

        Args:
          keys: (B,) PRNG keys.
          measurements: (B, ...), or a tree of such arrays.
          operators: B operators of one kind, each acting on images of `image_shape`.
          image_shape: (H, W, C) of the images; C may be 1 under a prior with 3 channels.
          noises: B noise models of one kind, of each measurement its own; None is that of the loops. They are
            arguments of the compiled programs.
          size: fills the batch up to so many with copies of its last image, so that the programs of a full batch
            serve a shorter one; their results are dropped. None fills up to what the devices divide.

        Of several processes each gives its own images, and all the same `size`; all call at the same time.
        """
        canvas, count = self._prior.canvas(image_shape), len(operators)
        place = self._place(max(count, size or 0), canvas)
        rows = np.minimum(np.arange(place.size), count - 1)
        views = [view(as_operator(h), self._prior, image_shape) for h in operators]
        # Nobody else is there to ask where a batch is of this process alone.
        stacked, shared = stack_alike([views[row] for row in rows], *() if self._spread.alone else (alike,))
        own_noise = None if noises is None else jax.tree.map(
            lambda *leaves: jnp.asarray(leaves, jnp.result_type(float)), *(noises[row] for row in rows)
        )  # fmt: skip
        measurements = jax.tree.map(lambda a: np.asarray(a, jnp.result_type(a))[rows], measurements)
        numbers, inputs = np.asarray(jax.random.key_data(keys))[rows], (measurements, stacked, own_noise)
        given, (shared, zero), priors = (
            place.split((numbers, *inputs)),
            place.whole((shared, np.int32(0))),
            self._parameters(place),
        )
        numbers, *inputs = *given, shared
        init = functools.partial(self._init_batch, canvas=canvas, kind=jax.random.key_impl(keys))
        begin = self._compile(place, f"init {canvas}", init, (), numbers, *inputs, priors)
        states = jax.tree.map(_promised, begin.out_info, begin.output_shardings)
        counts = [self._chunk] * (self._num_steps // self._chunk)
        counts += [self._num_steps % self._chunk] if self._num_steps % self._chunk else []
        runs = {}
        for steps in set(counts):
            run = functools.partial(self._run_batch, count=steps, canvas=canvas)
            runs[steps] = self._compile(place, f"run {steps}", run, (0,), states, *inputs, priors, zero)
        finish = self._compile(place, "finish", self._finish_batch, (), states, *inputs)
        states, chunks, start = begin(numbers, *inputs, priors), [], 0
        for steps in counts:
            states, info = runs[steps](states, *inputs, priors, place.whole(np.int32(start)))
            chunks.append((steps, info))
            start += steps
        return Running(self, count, chunks, finish(states, *inputs))


def _promised(like, sharding):
    """What stands for an array of a program that has not run."""
    return jax.ShapeDtypeStruct(like.shape, like.dtype, sharding=sharding)
