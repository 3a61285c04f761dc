"""What a job does beside the device: threads read and measure the next images, and one writes the last."""

import concurrent.futures
import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from cvsa_jax import data
from cvsa_jax.jobs import inputs
from cvsa_jax.jobs.prepared import Prepared, Reading
from cvsa_jax.types import InputError

ROOM = 2**29  # bytes of images that wait to be restored, and of those that wait to be written
# What fails one image alone: its file since the job began, the disk, no memory.
FAILS = (InputError, OSError, jax.errors.JaxRuntimeError)


class Ready(NamedTuple):
    """One image that was read and measured. keys: of its chains. error: why there is none."""

    reading: Reading | None
    keys: list[jax.Array]
    error: Exception | None = None


def ahead(shapes: Sequence[tuple[int, ...]], num_samples: int, batch_size: int) -> int:
    """How many images may wait: those of two batches, as far as their pixels fit into ROOM, and at least one."""
    each = max((4 * math.prod(shape) * (4 + num_samples) for shape in shapes), default=1)
    return max(1, min(2 * batch_size, ROOM // each))


@contextlib.contextmanager
def images(prepared: Prepared, entries: Sequence[inputs.Entry], chains: int, room: int) -> Iterator[Iterator[Ready]]:
    """Each image, in order, read and measured by threads; an error comes as a value, for whoever asks for the image.

    Args:
      prepared: the job. entries: its images. chains: of each. room: how many may wait.
    """

    def read(entry: inputs.Entry) -> Ready:
        try:
            key = inputs.key_of(entry, prepared.job.job.seed, 1)
            return Ready(prepared.measure(entry), [jax.random.fold_in(key, i) for i in range(chains)])
        except Exception as error:  # the main thread tells what fails one image from what ends the job
            return Ready(None, [], error)

    with data.prefetched(entries, read, room) as found:
        yield found


class Writer:
    """One thread that does what it is given, in order; who gives waits while `room` things are waiting.

    At the end of its context all is done, also where the context ends by an error. What fails in the thread is raised
    by the next call, or at the end; nothing is done after it.
    """

    def __init__(self, room: int):
        self._room, self._waiting = room, deque[concurrent.futures.Future]()
        self._pool, self._broken = concurrent.futures.ThreadPoolExecutor(1, "writer"), False

    def put(self, function: Callable, *args: Any) -> None:
        """Have function(*args) done."""
        while self._waiting and (len(self._waiting) >= self._room or self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._do, function, *args))

    def _do(self, function: Callable, *args: Any) -> None:
        if not self._broken:
            try:
                function(*args)
            except BaseException:
                self._broken = True
                raise

    def finish(self) -> None:
        """Wait until all is done; raises what failed."""
        while self._waiting:
            self._waiting.popleft().result()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(wait=True)
        self.finish()
