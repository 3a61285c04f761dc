"""Stopping a job at a good place: SIGTERM, sent by schedulers before they take a machine, ends it after its batch."""

import contextlib
import signal
import threading
from collections.abc import Iterator

_asked = threading.Event()


def asked() -> bool:
    """Whether the job is to end after the batch in flight."""
    return _asked.is_set()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """While it lasts SIGTERM only sets `asked`; outside the main thread, which alone gets signals, nothing changes."""
    _asked.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: _asked.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
