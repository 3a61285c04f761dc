"""How a job is watched: a bar on a terminal, a line a minute in a log, a trace of its programs, what it took."""

import contextlib
import pathlib
import sys
import time
from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import jax
import psutil
from tqdm import tqdm

from cvsa_jax.types import InputError

MINUTE = 60.0
TRACED = 3  # batches of a trace: enough to see what repeats
COMPILE = "/jax/core/compile/backend_compile_duration"
BAR = "{percentage:3.0f}%|{bar}| {n:.1f} of {total:.0f} images [{elapsed}<{remaining}, {rate_fmt}]"
INPUT, DEVICE, WRITING = "input_wait", "device", "write_wait"


def duration(seconds: float) -> str:
    """Seconds for people, as in `3 min 55 s` and `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def line(done: float, total: int, rate: float) -> str:
    """A line of a log: images that are done, images/s, the time left."""
    left = f"{duration((total - done) / rate)} left" if rate > 0 else "time left unknown"
    return f"{int(done + 1e-6)} of {total} images, {rate:.3g} images/s, {left}"


class Watch:
    """Watches one run of a job within its context: shows how far it is, and keeps account of the time.

    Args:
      total: images of the run. every: seconds between lines where standard error is no terminal.
    """

    def __init__(self, total: int, every: float = MINUTE):
        self._total, self._every, self._done = total, every, 0.0
        self._seconds: dict[str, float] = defaultdict(float)
        self._compile = 0.0
        self._start = self._said = time.monotonic()
        self._first: tuple[float, float] | None = None  # when programs were there, and what was done by then
        self._first_batch: float | None = None
        # tqdm's own `disable=None` asks for a terminal too, but then keeps no account.
        self._bar = tqdm(total=total, unit="image", bar_format=BAR) if total and sys.stderr.isatty() else None

    def __enter__(self) -> "Watch":
        jax.monitoring.register_event_duration_secs_listener(self._heard)
        return self

    def __exit__(self, *_) -> None:
        jax.monitoring.unregister_event_duration_listener(self._heard)
        if self._bar is not None:
            self._bar.close()

    def _heard(self, event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == COMPILE:
            self._compile += duration_secs

    @contextlib.contextmanager
    def spent(self, what: str) -> Iterator[None]:
        """Count the time of its body, as one of INPUT and WRITING."""
        clock = time.monotonic()
        try:
            yield
        finally:
            self.add(what, time.monotonic() - clock)

    def add(self, what: str, seconds: float) -> None:
        """Count a time, as one of INPUT, DEVICE and WRITING."""
        self._seconds[what] += seconds

    def restored(self) -> None:
        """Another batch has left the devices."""
        if self._first_batch is None:
            self._first_batch = time.monotonic() - self._start

    def step(self, images: float) -> None:
        """So many more images are done, also parts of them."""
        self._done, now = self._done + images, time.monotonic()
        if self._bar is not None:
            self._bar.update(images)
            return
        if self._first is None:
            self._first = now, self._done
        if now - self._said >= self._every:
            since, before = self._first if now > self._first[0] else (self._start, 0.0)
            print(line(self._done, self._total, (self._done - before) / (now - since)), file=sys.stderr, flush=True)
            self._said = now

    def record(self, images: int) -> dict[str, Any]:
        """What the run took, for summary.json; images: that it finished."""
        wall, seconds = time.monotonic() - self._start, self._seconds
        memory, of = peak_memory()
        numbers = {
            "images_per_second": images / wall, "seconds": wall, "compile_seconds": self._compile,
            "first_batch_seconds": wall if self._first_batch is None else self._first_batch,
            "input_wait_seconds": seconds[INPUT], "write_wait_seconds": seconds[WRITING],
            "device_busy_share": min(1.0, seconds[DEVICE] / wall),
        }  # fmt: skip
        rounded = {name: float(f"{value:.4g}") for name, value in numbers.items()}
        return {"of": "the last run", "images": images, **rounded, "peak_memory_bytes": memory, "peak_memory_of": of}


def peak_memory() -> tuple[int, str]:
    """(bytes, whose): the most that the busiest local device held; where that is not known, the process."""
    told = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    known = [number for number in told if number is not None]
    if known:
        return max(known), "device"
    try:
        import resource  # which Windows has not
    except ImportError:
        return getattr(psutil.Process().memory_info(), "peak_wset", 0), "process"
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"


class Trace:
    """A trace of a few batches by jax.profiler, none of which compiles anything: for each the program has run before.

    Args:
      folder: of the trace; None is no trace. kinds: of each batch in order, alike where one program serves.

    Raises:
      InputError: if no batch has the program of one before it, or the folder cannot be written to.
    """

    def __init__(self, folder: str | None, kinds: Sequence[Hashable]):
        self._folder, self._on = folder, False
        steady = [i for i, kind in enumerate(kinds) if kind in kinds[:i]]
        self._batches = range(steady[0], steady[0]) if steady else range(0)
        while steady and len(self._batches) < TRACED and self._batches.stop in steady:
            self._batches = range(steady[0], self._batches.stop + 1)
        if folder is None or not kinds:
            return
        if not steady:
            raise InputError("--profile traces what repeats, but no two batches are alike: lower --batch_size")
        try:
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot write to --profile={folder}: {error.strerror or error}") from error

    def begin(self, batch: int) -> None:
        """Call it before each batch."""
        if self._folder is not None and batch in self._batches and not self._on:
            jax.profiler.start_trace(self._folder)
            self._on = True

    def end(self, batch: int | None = None) -> None:
        """Call it after each batch, and without one at the end."""
        if self._on and (batch is None or batch + 1 not in self._batches):
            self._on = False
            jax.profiler.stop_trace()
