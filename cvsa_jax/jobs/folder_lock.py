"""One job at a time in a folder of results, or one process for each part of it."""

import contextlib
import os
import pathlib
import socket
import time
from collections.abc import Callable, Iterator

from cvsa_jax import writing
from cvsa_jax.types import InputError

try:
    import fcntl
except ImportError:  # Windows has no such locks: there nothing is held
    fcntl = None

NAME = ".lock"
HELD = (BlockingIOError, PermissionError)
# Bytes of the file that are locked: one by whoever takes or gives back a part, one by who makes tables, one for each
# part by its process. What the file says: how many parts, then who has each, in places of a fixed length.
DOOR, TABLES, FIRST = 0, 1, 2
PLACE = 128
PATIENCE = 30  # seconds; the door is held for as long as it takes to clear a folder


class FolderLock:
    """A part of a folder that this process alone writes to, until `release` or its end, however that comes.

    A folder is divided into `parts`; whoever comes while others are there must have divided it alike. So a whole job,
    which is one part, keeps everyone else out. The lock is the operating system's (POSIX), so that a killed job leaves
    none, and holds over NFS too. Where the file system has no locks nothing is held. A process may hold a folder
    several times.

    Args:
      folder: made if it is not there. part: from zero. parts: of the folder. first: called if nobody else is there,
        before anyone else may come.

    Raises:
      InputError: if another process holds it. OSError: if it cannot be written to.
    """

    def __init__(self, folder: pathlib.Path, part: int = 0, parts: int = 1, first: Callable[[], object] = lambda: None):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._path, self._part, self._file = folder, folder / NAME, part, None
        while self._file is None:
            file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666), "r+") if fcntl else None
            if file is None or not self._enter(file):
                first()
                return
            try:
                if self._current(file):  # else its holder removed it before we had it
                    self._take(file, parts, first)
                    self._file = file
            finally:
                if self._file is None:
                    file.close()
                else:
                    _unlock(file, DOOR)

    def _enter(self, file) -> bool:
        """Take the door, so that nobody else comes or goes; False if the file system has no locks."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                _lock(file, DOOR)
                return True
            except HELD as error:
                if time.monotonic() > end:
                    file.close()
                    raise self._refusal("its name is not known") from error
                time.sleep(0.02)
            except OSError:
                file.close()
                return False

    def _take(self, file, parts: int, first: Callable[[], object]) -> None:
        """Raises InputError if someone is there who divided the folder otherwise, or has the same part."""
        try:
            _lock(file, FIRST, 0)
        except HELD as error:
            before = int(_read(file, 0) or 1)
            if before != parts:
                one = before == 1
                raise self._refusal(_read(file, 1) if one else f"one of the {before} parts of a job") from error
            try:
                _lock(file, FIRST + self._part)
            except HELD as own:
                raise self._refusal(_read(file, 1 + self._part)) from own
        else:
            _unlock(file, FIRST, 0)  # nobody can come meanwhile
            _lock(file, FIRST + self._part)
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), 0)
            _write(file, 0, str(parts))
            first()
        _write(file, 1 + self._part, f"process {os.getpid()} on {socket.gethostname()}")

    def _refusal(self, holder: str) -> InputError:
        return InputError(
            f"--output={self._folder} is being written to by another job ({holder or 'its name is not known'}); wait "
            "for it, or name another folder"
        )

    def _current(self, file) -> bool:
        """Whether the file that is locked is still the one that others will open."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    @contextlib.contextmanager
    def tables(self) -> Iterator[None]:
        """While it lasts no other part makes what is of all of them; waits for its turn."""
        if self._file is None or fcntl is None:
            yield
            return
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, TABLES)
        try:
            yield
        finally:
            _unlock(self._file, TABLES)

    def release(self) -> None:
        """Let others write."""
        file, self._file = self._file, None
        if file is None:
            return
        with contextlib.suppress(InputError), contextlib.closing(file):
            self._enter(file)
            _unlock(file, FIRST + self._part)
            try:
                _lock(file, FIRST, 0)
            except HELD:
                return  # others are there, who look at this file
            if self._current(file):
                self._path.unlink(missing_ok=True)


def _lock(file, start: int, length: int = 1) -> None:
    """Lock some bytes, of length 0 all that follow; raises one of HELD if another process has one of them."""
    assert fcntl is not None
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)


def _unlock(file, start: int, length: int = 1) -> None:
    assert fcntl is not None
    fcntl.lockf(file, fcntl.LOCK_UN, length, start)


def _read(file, place: int) -> str:
    return os.pread(file.fileno(), PLACE, place * PLACE).decode(errors="replace").strip(" \0\n")


def _write(file, place: int, text: str) -> None:
    with contextlib.suppress(OSError):  # of a full disk; the names are for people alone
        os.pwrite(file.fileno(), text.encode()[: PLACE - 1].ljust(PLACE - 1) + b"\n", place * PLACE)


def foreign(path: pathlib.Path) -> bool:
    """Whether a file in a folder without a record is not what a job leaves that was killed as it began."""
    return path.name != NAME and path.suffix != writing.PART
