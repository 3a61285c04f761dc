"""Spreading a batch over devices."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

SHARED_BYTES = 2**16
# A parameter of this size is worth cutting where parameters are.
LARGE_BYTES = 2**16


def batch_mesh(rows: int) -> Mesh:
    """Devices in one axis named 'batch': as many as it takes for the least share each, rounded up.

    Of one process as many of its own as that are; of several all devices of all, in the order of the processes.

    Args:
      rows: images of this process. What its devices do not divide is filled up with copies.
    """
    devices = jax.devices()
    if jax.process_count() == 1:
        devices = devices[: -(-rows // -(-rows // len(devices)))]
    devices = sorted(devices, key=lambda d: (d.process_index, d.id))
    return Mesh(np.array(devices), ("batch",), axis_types=(AxisType.Auto,))


def rows_mesh(height: int) -> Mesh:
    """Local devices in one axis named 'rows': all of them, or as many as divide a height in pixels."""
    devices = jax.local_devices()
    count = next(n for n in range(len(devices), 0, -1) if height % n == 0)
    return Mesh(np.array(devices[:count]), ("rows",), axis_types=(AxisType.Auto,))


def largest_axis(shape: tuple[int, ...], count: int) -> int | None:
    """The number of the largest axis that `count` divides; None if it divides none."""
    divided = [axis for axis, length in enumerate(shape) if length % count == 0]
    return max(divided, key=lambda axis: shape[axis], default=None)


def stack_alike(
    trees: Sequence[Any], agreed: Callable[[Sequence[Any]], Sequence[bool]] = lambda shared: [True] * len(shared)
) -> tuple[Any, Any]:
    """(split, whole) of trees of one structure, for `join_alike`: what differs is stacked, what is shared is not.

    A leaf of at least SHARED_BYTES that is the same object in every tree, such as a network's weights, stands once
    in `whole`; all others are stacked in `split`. Where one has a leaf, the other has None. What is
    smaller costs nothing, and is always stacked, so that chance does not change the program.

    agreed: of leaves that are shared here (None where one is not), whether they are the same in every process.
    """
    leaves, structures = zip(*(jax.tree.flatten(tree) for tree in trees), strict=True)
    if any(structure != structures[0] for structure in structures):
        raise ValueError("the operators of a batch must be of one kind")
    same = [leaf if _shared(all_of) else None for all_of in zip(*leaves, strict=True) for leaf in all_of[:1]]
    whole = [leaf if kept else None for leaf, kept in zip(same, agreed(same), strict=True)]
    split = [
        jnp.stack([jnp.asarray(leaf) for leaf in all_of]) if one is None else None
        for all_of, one in zip(zip(*leaves, strict=True), whole, strict=True)
    ]
    whole = [None if leaf is None else jnp.asarray(leaf) for leaf in whole]
    return jax.tree.unflatten(structures[0], split), jax.tree.unflatten(structures[0], whole)


def _shared(leaves: Sequence[Any]) -> bool:
    """Whether these are one large object."""
    return getattr(leaves[0], "nbytes", 0) >= SHARED_BYTES and all(leaf is leaves[0] for leaf in leaves)


def join_alike(split: Any, whole: Any) -> Any:
    """One tree of those of `stack_alike`, `split` without its leading axis."""
    pick = lambda own, shared: shared if own is None else own  # noqa: E731
    return jax.tree.map(pick, split, whole, is_leaf=lambda leaf: leaf is None)


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
