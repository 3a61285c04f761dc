"""One job at a time in a folder of results."""

import contextlib
import os
import pathlib
import socket

from cvsa_jax.types import InputError

try:
    import fcntl
except ImportError:  # Windows has no such locks: there nothing is held
    fcntl = None

NAME = ".lock"


class FolderLock:
    """A folder that this process alone writes to, until `release` or its end, however that comes.

    The lock is the operating system's (POSIX), so that a killed job leaves none, and holds over NFS too. Where the
    file system has no locks nothing is held. A process may hold a folder several times.

    Args:
      folder: made if it is not there.

    Raises:
      InputError: if another process holds it. OSError: if it cannot be written to.
    """

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self._file = folder / NAME, None
        while fcntl is not None and self._file is None:
            file = os.fdopen(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                holder = file.read(200).strip() or "its name is not known"
                file.close()
                raise InputError(
                    f"--output={folder} is being written to by another job ({holder}); wait for it, or name another "
                    "folder"
                ) from error
            except OSError:
                file.close()
                return
            if self._current(file):
                self._file = file
                with contextlib.suppress(OSError):  # of a full disk: the name is for people alone
                    os.pwrite(file.fileno(), f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            else:  # its holder removed it before we had it
                file.close()

    def _current(self, file) -> bool:
        """Whether the file that is locked is still the one that others will open."""
        try:
            return os.path.samestat(os.fstat(file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let others write."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self._file.close()
            self._file = None
