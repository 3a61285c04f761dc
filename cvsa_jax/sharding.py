"""Spreading a batch over the local devices."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, PartitionSpec

SHARED_BYTES = 2**16


def batch_mesh(batch_size: int) -> Mesh:
    """Local devices in one axis named 'batch': as many as it takes for the least share each, rounded up.

    A batch that they do not divide is filled up with copies, see `filled`.
    """
    devices = jax.local_devices()
    share = -(-batch_size // len(devices))
    count = -(-batch_size // share)
    return jax.make_mesh((count,), ("batch",), axis_types=(AxisType.Auto,), devices=devices[:count])


def filled(batch_size: int, mesh: Mesh) -> np.ndarray:
    """The indices of a batch, the last one repeated until the mesh divides their number."""
    return np.minimum(np.arange(batch_size + -batch_size % mesh.size), batch_size - 1)


def stack_alike(trees: Sequence[Any]) -> tuple[Any, Any]:
    """(split, whole) of trees of one structure, for `join_alike`: what differs is stacked, what is shared is not.

    A leaf of at least SHARED_BYTES that is the same object in every tree, such as a network's weights, stands once
    in `whole`; all others are stacked in `split`. Where one has a leaf, the other has None. What is
    smaller costs nothing, and is always stacked, so that chance does not change the program.
    """
    leaves, structures = zip(*(jax.tree.flatten(tree) for tree in trees), strict=True)
    if any(structure != structures[0] for structure in structures):
        raise ValueError("the operators of a batch must be of one kind")
    split, whole = [], []
    for same in zip(*leaves, strict=True):
        first = same[0]
        shared = getattr(first, "nbytes", 0) >= SHARED_BYTES and all(leaf is first for leaf in same)
        split.append(None if shared else jnp.stack([jnp.asarray(leaf) for leaf in same]))
        whole.append(jnp.asarray(first) if shared else None)
    return jax.tree.unflatten(structures[0], split), jax.tree.unflatten(structures[0], whole)


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
