"""Which images of a job share a program, and a batch.

Those of near sizes do if they are padded, with pixels that nobody sees, to a size that follows from their own alone.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from cvsa_jax import processes
from cvsa_jax.baselines import BASELINES
from cvsa_jax.batch import BatchResult
from cvsa_jax.jobs.inputs import Entry, Measured
from cvsa_jax.jobs.methods import CLASSICAL
from cvsa_jax.operators import Operator, Task
from cvsa_jax.types import InputError


class Batch(NamedTuple):
    """What runs together on this process.

    pairs: (image, chain index), none where only other processes have some. size: what it is filled up to.
    group: all images of that kind; each can stand in where there is none.
    """

    pairs: list[tuple[Entry, int]]
    size: int
    group: list[Entry]


def check(task: Task, method: str, side: int) -> None:
    """Whether --bucket goes with a task and a method.

    Raises:
      InputError: if it does not.
    """
    if side and method == CLASSICAL:
        raise InputError("--bucket has no effect with --method=classical, which compiles no program for a size")
    if side and method in BASELINES and not BASELINES[method].pads:
        raise InputError(f"--bucket does not go with --method={method}: to it a padded image is one with holes")
    if side and any(kind.padded is Operator.padded for kind in task.makes):
        raise InputError(
            f"--bucket is for tasks that hide pixels or add noise alone: what {task.name} measures depends on the "
            "image's border"
        )


def shape_of(entry: Entry, side: int) -> tuple[int, int, int]:
    """(H, W, C) that an image is padded to: its sides rounded up to multiples of `side`, 0 is its own."""
    height, width, channels = entry.shape
    return (height + -height % side, width + -width % side, channels) if side else entry.shape


def kind_of(entry: Entry, side: int) -> tuple:
    """What images have in common that one program serves."""
    return shape_of(entry, side), () if side else entry.form


def batches(
    entries: list[Entry], num_samples: int, batch_size: int, population: bool,
    limit: Callable[[tuple[int, int, int]], int] | None = None, bucket: int = 0, done: Mapping[str, int] | None = None,
) -> list[Batch]:  # fmt: skip
    """Batches of one shape and form each, batch_size samples at most in all processes, an image's in a row.

    limit: of an image's shape, how many samples of it there may be at most. bucket: images are taken for ones of
    sides rounded up to its multiples. done: how many images of a kind, as text, an earlier run of the job restored.
    """
    chains = 1 if population else num_samples
    groups = defaultdict(list)
    for entry in entries:
        groups[kind_of(entry, bucket)].append(entry)
    out = []
    for kind, group in groups.items():
        shape, before = kind[0], (done or {}).get(str(kind), 0)
        most = min(batch_size, limit(shape)) if limit else batch_size
        most = max(1, most // num_samples) if population else most
        size, own = processes.own_batches(group, chains, most, jax.process_index(), jax.process_count(), before)
        out += [Batch(pairs, size, group) for pairs in own]
    return out


def programs(entries: list[Entry], bucket: int) -> str | None:
    """What a job of images of several sizes says before it begins; None where all have one."""
    sizes = len({entry.shape for entry in entries})
    if sizes < 2:
        return None
    count = len({kind_of(entry, bucket) for entry in entries})
    return f"{len(entries)} images of {sizes} sizes: {count} program{'' if count == 1 else 's'}"


def fitted(measured: Measured, operator: Operator, shape: tuple[int, int, int]) -> tuple[np.ndarray, Operator]:
    """The measurement and the operator of an image as one of `shape`, which is no smaller."""
    own = measured.entry.shape
    if own == shape:
        return measured.measurement, operator
    larger = operator.padded(own, shape)
    assert larger is not None  # `check` looked
    margins = [(0, b - a) for a, b in zip(own, shape, strict=True)]
    return np.pad(measured.measurement, margins), larger


def cropped(found: BatchResult, shape: tuple[int, int, int]) -> BatchResult:
    """What was found, of the image itself."""
    return found._replace(images=found.images[..., : shape[0], : shape[1], :])
