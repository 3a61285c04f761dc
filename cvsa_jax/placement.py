"""Where a batch lies: its images split over the devices of all processes, or one image spread over a process's own.

A placement puts arrays on devices, and makes of a function of such arrays the program that runs on all of them.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cvsa_jax.processes import anyone
from cvsa_jax.sharding import LARGE_BYTES, batch_mesh, largest_axis, rows_mesh, split_over
from cvsa_jax.transforms import whole_transforms


class Spread(NamedTuple):
    """What is cut over the devices beside the batch.

    split_rows: images, states and measurements, by rows. shard_params: large parameters. alone: a batch is of this
    process, which others take no part in.
    """

    split_rows: bool = False
    shard_params: bool = False
    alone: bool = False


TOGETHER = Spread()


def spread_of(split_rows: bool, shard_params: bool | None, parameters: Any, alone: bool = False) -> Spread:
    """What is cut, where it was not said: parameters that take more than half of a device, as far as it tells.

    Processes that work together do the same: what one of them must cut, all do. They call at the same time, unless
    a batch is of this one `alone`.
    """
    if shard_params is None:
        limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
        used = sum(getattr(a, "nbytes", 0) for a in jax.tree.leaves(parameters))
        shard_params = limit is not None and used > limit / 2 and jax.local_device_count() > 1
        shard_params = shard_params if alone else anyone(shard_params)
    return Spread(split_rows, shard_params, alone)


class Placement(Protocol):
    """size: images of the program that are this process's own."""

    mesh: Mesh
    size: int

    def split(self, tree: Any) -> Any:
        """Arrays (size, ...) of this process, of its images, on the devices."""
        ...

    def whole(self, tree: Any) -> Any:
        """Arrays that every image needs, the same in every process, on the devices."""
        ...

    def parameters(self, tree: Any) -> Any:
        """The priors' arrays on the devices."""
        ...

    def program(self, function: Callable, num_split: int, donated: tuple[int, ...], *args: Any) -> Any:
        """The compiled program of function(*args); the first num_split arguments, and the results, are of images.

        donated: the numbers of the arguments whose memory the results may take.
        """
        ...


class BatchPlacement:
    """A batch split over the devices of all processes; each runs the program that it would run alone on its share.

    Args:
      rows: images of this process, which it fills up with copies until its devices have a share alike. Every process
        must give the same number.
    """

    def __init__(self, rows: int):
        self.mesh = batch_mesh(rows)
        own = self.mesh.size // jax.process_count()
        self.size = rows + -rows % own

    def split(self, tree: Any) -> Any:
        """Image by image over the devices."""
        sharding = NamedSharding(self.mesh, PartitionSpec("batch"))
        return jax.tree.map(lambda a: _local(sharding, a), tree)

    def whole(self, tree: Any) -> Any:
        """A copy on each device."""
        sharding = NamedSharding(self.mesh, PartitionSpec())
        return jax.tree.map(lambda a: _local(sharding, a), tree)

    parameters = whole

    def program(self, function: Callable, num_split: int, donated: tuple[int, ...], *args: Any) -> Any:
        """By `split_over`."""
        return jax.jit(split_over(self.mesh, function, num_split), donate_argnums=donated).lower(*args).compile()


class SpreadPlacement:
    """A batch that all local devices work on together; XLA's partitioner exchanges what one needs of another.

    Args:
      rows: images of the batch. height: of their canvas, in pixels; as many devices serve as divide it.
      spread: what is cut; of parameters each large one along its largest axis that the devices divide.
    """

    def __init__(self, rows: int, height: int, spread: Spread):
        self.size, self._split_rows, self._shard_params = rows, spread.split_rows, spread.shard_params
        self.mesh = rows_mesh(height if spread.split_rows else 0)

    def _by_rows(self, like: Any) -> NamedSharding:
        """Of an array (B, ..., H, W, C): its height, if the devices divide it."""
        if self._split_rows and like.ndim >= 4 and like.shape[-3] % self.mesh.size == 0:
            return NamedSharding(self.mesh, PartitionSpec(*[None] * (like.ndim - 3), "rows"))
        return NamedSharding(self.mesh, PartitionSpec())

    def _by_axis(self, like: Any) -> NamedSharding:
        """Of a parameter."""
        axis = largest_axis(like.shape, self.mesh.size) if self._shard_params and like.nbytes >= LARGE_BYTES else None
        spec = PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "rows")
        return NamedSharding(self.mesh, spec)

    def split(self, tree: Any) -> Any:
        """By rows."""
        return jax.tree.map(lambda a: jax.device_put(a, self._by_rows(a)), tree)

    def whole(self, tree: Any) -> Any:
        """A copy on each device."""
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def parameters(self, tree: Any) -> Any:
        """Cut, or a copy on each device."""
        put = lambda a: jax.device_put(a, self._by_axis(jax.numpy.asarray(a)))  # noqa: E731
        return jax.tree.map(put, tree)

    def program(self, function: Callable, num_split: int, donated: tuple[int, ...], *args: Any) -> Any:
        """By automatic partitioning: the results are cut as the arguments are, Fourier transforms are not."""

        @functools.wraps(function)
        def traced(*args):
            with whole_transforms(NamedSharding(self.mesh, PartitionSpec())):
                return function(*args)

        out = jax.tree.map(self._by_rows, jax.eval_shape(function, *args))
        return jax.jit(traced, donate_argnums=donated, out_shardings=out).lower(*args).compile()


def _local(sharding: NamedSharding, array: Any) -> jax.Array:
    """A process's share of a global array; with one process the array itself, where it has to be."""
    if jax.process_count() == 1:
        return jax.device_put(array, sharding)
    return jax.make_array_from_process_local_data(sharding, np.asarray(array))


def own_rows(array: jax.Array) -> np.ndarray:
    """What this process has of an array that is split over its leading axis, or all of one that it has whole."""
    if array.is_fully_addressable:
        return np.asarray(array)
    parts = {shard.index[0].start or 0: shard.data for shard in array.addressable_shards}
    return np.concatenate([np.asarray(parts[start]) for start in sorted(parts)])
