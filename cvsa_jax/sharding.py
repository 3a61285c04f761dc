"""Spreading a batch over the local devices."""

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def batch_sharding(batch_size: int) -> tuple[NamedSharding, NamedSharding]:
    """(split over the leading axis, replicated) over as many local devices as divide the batch."""
    devices = jax.local_devices()
    count = max(n for n in range(1, len(devices) + 1) if batch_size % n == 0)
    mesh = jax.make_mesh((count,), ("batch",), axis_types=(AxisType.Auto,), devices=devices[:count])
    return NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
