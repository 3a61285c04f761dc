"""Several processes as one job, joined by `jax.distributed`: what each has to do, and what they agree on.

All of them run the same programs at the same time, so that they must make the same plan.
"""

import dataclasses
import json
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from cvsa_jax.settings import Settings, fields, setting
from cvsa_jax.types import InputError

AUTO = "auto"
PROCESSES = "Each gets the same command with its own --process_id."
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class ProcessSettings(Settings):
    """How a process finds the others."""

    coordinator: str | None = setting(
        None, "HOST:PORT of process 0, which all processes of this job are told; auto asks TPU or Slurm.", free=True
    )
    num_processes: int | None = setting(None, "How many processes the job has.", low=1, free=True)
    process_id: int | None = setting(None, "Which of them this is, from 0.", low=0, free=True)
    process_timeout: int = setting(
        100, "A process that is silent for so long has ended, and so do the others.", "seconds", low=1, free=True
    )

    def join(self) -> None:
        """Find the other processes, before anything is asked of JAX; without a coordinator there are none.

        Raises:
          InputError: if the flags do not go together, or the others are not found.
        """
        rest = self.num_processes, self.process_id
        if self.coordinator in (None, AUTO):
            if rest != (None, None):
                way = "HOST:PORT of process 0" if self.coordinator is None else "not auto, which finds them itself"
                raise InputError(f"--num_processes and --process_id need --coordinator: {way}")
            if self.coordinator is None:
                return
        elif None in rest:
            raise InputError(f"--coordinator={self.coordinator} needs --num_processes and --process_id")
        elif (self.process_id or 0) >= (self.num_processes or 1):
            raise InputError(f"--process_id={self.process_id} must be below --num_processes={self.num_processes}")
        elif not self.coordinator.rpartition(":")[2].isdigit() or not self.coordinator.rpartition(":")[0]:
            raise InputError(f"--coordinator={self.coordinator} is neither HOST:PORT nor {AUTO}")
        try:
            address = None if self.coordinator == AUTO else self.coordinator
            jax.distributed.initialize(address, *rest, heartbeat_timeout_seconds=self.process_timeout)
        except (RuntimeError, ValueError) as error:
            why = str(error).partition("\n")[0]
            raise InputError(f"--coordinator={self.coordinator} does not find the other processes: {why}") from error


def joined(given: dict[str, Any]) -> None:
    """Take the flags of `ProcessSettings` out of the values given, and find the processes that they tell of.

    Raises:
      ValueError: as `ProcessSettings.join`.
    """
    own = {field.name: given.pop(field.name) for field in fields(ProcessSettings) if field.name in given}
    ProcessSettings(**own).join()


def own_batches(
    group: Sequence[T], chains: int, most: int, index: int, count: int, before: int = 0
) -> tuple[int, list[list]]:
    """(size, batches of (image, chain)) of process `index` of `count`: as many batches in every process.

    Batches are as even as their number allows, so that filling each up to `size` costs less than an image a batch.
    What a process does not have is an empty batch. The size is that of all images of the job, also of those that are
    done: a job that goes on runs the programs of one that nothing happened to, and in one process gives the same bits.

    Args:
      group: images of one kind; process i takes every count-th from the i-th on, so that all chains of one are its own.
      chains: of each image. most: how many may run together, in all processes. before: images
        of the kind that are done.
    """
    shares = [[(one, chain) for one in group[i::count] for chain in range(chains)] for i in range(count)]
    length, share = len(shares[0]), max(1, most // count)
    if not length:
        return share, []
    whole = chains * -(-(len(group) + before) // count)
    size = -(-whole // -(-whole // share))
    return size, [shares[index][start : start + size] for start in range(0, length, size)]


def _gathered(own: np.ndarray) -> np.ndarray:
    """The arrays of all processes, in a new leading axis.

    Raises:
      InputError: if one of them has ended.
    """
    try:
        return np.asarray(multihost_utils.process_allgather(own))
    except jax.errors.JaxRuntimeError as error:
        why = str(error).partition("\n")[0]
        raise InputError(
            f"another process of this job has ended; give all of them the command again, without --overwrite ({why})"
        ) from error


def alike(leaves: Sequence[Any]) -> list[bool]:
    """Of arrays, or None, whether each is there and the same in every process; all call at the same time."""
    if jax.process_count() == 1:
        return [leaf is not None for leaf in leaves]
    sums = [0 if leaf is None else max(1, zlib.crc32(np.asarray(leaf).tobytes())) for leaf in leaves]
    every = _gathered(np.array(sums, np.uint32))
    return [bool(own and (column == own).all()) for own, column in zip(every[0], every.T, strict=True)]


def everyone(true: bool) -> bool:
    """Whether it is true in every process; all call at the same time."""
    return true if jax.process_count() == 1 else bool(_gathered(np.array(true)).all())


def anyone(true: bool) -> bool:
    """Whether it is true in one process or another; all call at the same time."""
    return not everyone(not true)


def least(number: int) -> int:
    """The smallest of the numbers that the processes give; all call at the same time."""
    return number if jax.process_count() == 1 else min(int(text) for text in union([str(number)]))


def union(names: Iterable[str]) -> set[str]:
    """The names that one process or another has; all call at the same time."""
    own = set(names)
    if jax.process_count() == 1:
        return own
    text = np.frombuffer(json.dumps(sorted(own)).encode(), np.uint8)
    lengths = _gathered(np.array(len(text)))
    padded = np.pad(text, (0, int(lengths.max()) - len(text)))
    every = _gathered(padded)
    return own.union(*(json.loads(row[:length].tobytes()) for row, length in zip(every, lengths, strict=True)))


def require_same(what: Any, name: str) -> None:
    """Raises InputError unless something that is made of text, numbers and tuples is the same in every process."""
    digest = zlib.crc32(repr(what).encode())
    if jax.process_count() > 1 and len(union([str(digest)])) > 1:
        raise InputError(f"the processes of this job see different {name}; give all of them the same files and flags")
