"""Spreading a batch over the local devices."""

from collections.abc import Callable

import jax
from jax.sharding import AxisType, Mesh, PartitionSpec


def batch_mesh(batch_size: int) -> Mesh:
    """As many local devices as divide the batch, in one axis named 'batch'."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    return jax.make_mesh((count,), ("batch",), axis_types=(AxisType.Auto,), devices=devices[:count])


def split_over(mesh: Mesh, function: Callable, num_split: int) -> Callable:
    """`function` with its first num_split arguments, and its results, split over their leading axis.

    Each device runs the program that it would run alone on its share, so results cannot
    depend on the device count; leaving the split to the compiler instead made its CPU
    Fourier transform fail (jax 0.10.2).
    """

    def call(*args):
        specs = tuple(PartitionSpec("batch") if i < num_split else PartitionSpec() for i in range(len(args)))
        mapped = jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("batch"), check_vma=False)
        return mapped(*args)

    return call
