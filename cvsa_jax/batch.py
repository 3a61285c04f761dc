"""Restoring batches: compiled once for a shape, run in chunks so that progress can be shown."""

import functools
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from cvsa_jax.operators.base import Identity, View
from cvsa_jax.priors import Prior
from cvsa_jax.restore import guided_sampler, run_steps
from cvsa_jax.sharding import batch_mesh, split_over


class BatchResult(NamedTuple):
    """images: (B, H, W, C) float32, of particles (B, P, H, W, C). residuals: (B, num_steps).

    effective_sizes: of the particles, (B, num_steps); else None. seconds: of the loop alone.
    """

    images: np.ndarray
    residuals: np.ndarray
    effective_sizes: np.ndarray | None
    seconds: float


class BatchRestorer:
    """`restore` over a batch of (key, measurement, operator), spread over the local devices.

    Each image is computed as if it were alone. Images of any size are restored on a
    canvas that the network can take, of which the measurement sees the top left part.

    Args:
      prior: the prior.
      stride: canvas sides are multiples of this.
      image_channels: of the prior.
      num_steps: reverse steps.
      settings: further keyword arguments of `guided_sampler`.
      chunk: steps between two calls of the progress function.

    Raises:
      ValueError: on a setting that `restore` would refuse.
    """

    def __init__(self, prior: Prior, stride: int, image_channels: int, num_steps: int, chunk: int = 10, **settings):
        self._prior, self._stride, self._channels = prior, stride, image_channels
        self._num_steps, self._chunk = num_steps, min(chunk, num_steps)
        self._settings = dict(settings, num_steps=num_steps)
        self._chain(np.zeros(()), Identity(), prior)  # bad settings are refused here
        self._compiled: dict = {}

    def canvas(self, height: int, width: int) -> tuple[int, int, int]:
        """The shape that the loop works on for an image of height x width."""
        up = lambda n: -(-n // self._stride) * self._stride  # noqa: E731
        return up(height), up(width), self._channels

    def _compile(self, name: str, function: Callable, num_split: int, mesh, *args):
        """The program for these shapes, compiled at the first call."""
        shapes = jax.tree.map(lambda a: (jnp.shape(a), jnp.result_type(a)), args)
        key = (name, str(shapes), jax.tree.structure(args))
        if key not in self._compiled:
            self._compiled[key] = jax.jit(split_over(mesh, function, num_split)).lower(*args).compile()
        return self._compiled[key]

    def _chain(self, measurement, operator, prior):
        return guided_sampler(measurement, operator, prior, **self._settings)

    def _init_batch(self, keys, measurements, operators, prior, *, canvas):
        return jax.vmap(lambda k, y, h: self._chain(y, h, prior).init(k, canvas))(keys, measurements, operators)

    def _run_batch(self, states, measurements, operators, prior, start, *, count):
        def one(state, y, h):
            return run_steps(self._chain(y, h, prior), state, start, count)

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
        height, width, channels = image_shape
        grey = channels == 1 and self._channels != 1
        views = [View(h, height, width, grey) for h in operators]
        mesh, canvas = batch_mesh(len(views)), self.canvas(height, width)
        split, whole = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *views)
        keys, *inputs = jax.device_put((keys, jnp.asarray(measurements), stacked), split)
        prior, zero = jax.device_put((self._prior, jnp.zeros((), jnp.int32)), whole)
        init = functools.partial(self._init_batch, canvas=canvas)
        states = self._compile(f"init {canvas}", init, 3, mesh, keys, *inputs, prior)(keys, *inputs, prior)
        counts = [self._chunk] * (self._num_steps // self._chunk)
        counts += [self._num_steps % self._chunk] if self._num_steps % self._chunk else []
        runs = {}
        for count in set(counts):
            run = functools.partial(self._run_batch, count=count)
            runs[count] = self._compile(f"run {count}", run, 3, mesh, states, *inputs, prior, zero)
        infos, start, clock = [], 0, time.perf_counter()
        for count in counts:
            states, info = runs[count](states, *inputs, prior, jax.device_put(jnp.int32(start), whole))
            infos.append(jax.tree.map(np.asarray, info))
            start += count
            progress(count)
        crop = jax.vmap(views[0].crop) if states.x.ndim == 4 else jax.vmap(jax.vmap(views[0].crop))
        images = np.asarray(crop(states.x))
        trace = jax.tree.map(lambda *parts: np.concatenate(parts, 1), *infos)
        return BatchResult(images, trace.residual, trace.effective_size, time.perf_counter() - clock)
