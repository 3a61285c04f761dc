"""Files on buckets, as gs:// and s3://, through fsspec: each folder there has a temporary one here that stands for it.

fsspec is imported where a bucket is asked for, so that what is local pays nothing.
"""

import contextlib
import os
import pathlib
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cvsa_jax import writing
from cvsa_jax.types import InputError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # of two letters or more: a drive of Windows has one
# What fsspec needs beside itself, which whoever uses such a bucket installs.
PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "az": "adlfs", "abfs": "adlfs"}
HERE = ("file", "local")
_FORBIDDEN = '\0\\:*?"<>|' if os.name == "nt" else "\0"
THREADS = 16  # a bucket is slow to answer, and answers many questions at once
_NAMES: dict[str, str] = {}  # by temporary folder, what it stands for


def is_remote(path: str | None) -> bool:
    """Whether a path is an address, SCHEME://..."""
    return path is not None and _SCHEME.match(path) is not None


def refuse(name: str, path: str | None) -> None:
    """Raises ValueError if the path of a flag is an address, where it cannot be."""
    if is_remote(path):
        raise ValueError(f"--{name}={path}: only --input and --output of cvsa restore take a bucket; copy it here")


def is_below(url: str, other: str) -> bool:
    """Whether an address is another one, or lies in it."""
    return f"{url.rstrip('/')}/".startswith(f"{other.rstrip('/')}/")


def is_plain(name: str) -> bool:
    """Whether a key can be the path of a file below a folder here: buckets allow `a//b` and `../a` too."""
    return not {"", ".", ".."} & {*name.split("/")} and not {*_FORBIDDEN} & {*name}


def shown(text: str) -> str:
    """A text for people: the addresses in place of the temporary folders that stand for them."""
    for folder, url in _NAMES.items():
        text = text.replace(folder, url)
    return text


@contextlib.contextmanager
def naming() -> Iterator[None]:
    """What fails within it names addresses, as `shown` does."""
    try:
        yield
    except Exception as error:
        error.args = tuple(shown(a) if isinstance(a, str) else a for a in error.args)
        if isinstance(error, OSError) and isinstance(error.filename, str):
            error.filename = shown(error.filename)
        raise


@contextlib.contextmanager
def _asking(what: str, url: str) -> Iterator[None]:
    """One line for whatever a file system raises: each has errors of its own."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"cannot {what} {url}: {str(error) or type(error).__name__}") from error


class Folder:
    """A folder of a bucket, and the temporary folder `root` that stands for it as long as this object lives.

    Names are paths below it, their parts joined by `/`. Several threads may use it.

    Raises:
      InputError: by every method, in one line, if the bucket cannot be reached or refuses.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self._system, self._base = _opened(self.url)
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="cvsa-")).resolve()
        _NAMES[str(self.root)] = self.url
        weakref.finalize(self, _forget, self.root)

    def sizes(self) -> dict[str, int | None]:
        """The bytes of every file below it, by name, as the bucket tells them now; of a file itself the name is ''."""
        with _asking("read", self.url):
            self._system.invalidate_cache()
            found = self._system.find(self._base, detail=True)
        below = ((name[len(self._base) :].removeprefix("/"), facts) for name, facts in found.items())
        return {name: facts.get("size") for name, facts in below if not name.endswith("/")}

    def hold(self, names: Iterable[str]) -> None:
        """Put empty files here in place of those of some names."""
        for name in names:
            self._here(name).touch()

    def fetch(self, names: Iterable[str]) -> None:
        """Bring some files here; one that is not there any more is not here either."""

        def one(name: str) -> None:
            path = self._here(name)
            try:
                with writing.whole(path) as part:
                    self._system.get_file(self._there(name), str(part))
            except FileNotFoundError:
                path.unlink(missing_ok=True)

        self._each("read", one, names)

    def put(self, names: Iterable[str]) -> None:
        """Copy some files from here to the bucket, where each appears whole."""
        self._each("write", lambda name: self._system.put_file(str(self._here(name)), self._there(name)), names)

    def put_bytes(self, name: str, data: bytes) -> None:
        """Write one file of the bucket."""
        self._each("write", lambda name: self._system.pipe_file(self._there(name), data), [name])

    def remove(self, names: Iterable[str]) -> None:
        """Remove some files of the bucket."""
        self._each("remove", lambda name: self._system.rm_file(self._there(name)), names)

    def _each(self, what: str, act: Callable[[str], Any], names: Iterable[str]) -> None:
        def asked(name: str) -> None:
            with _asking(what, f"{self.url}/{name}"):
                act(name)

        with ThreadPoolExecutor(THREADS) as pool:
            for _ in pool.map(asked, names):
                pass

    def _there(self, name: str) -> str:
        return f"{self._base}/{name}"

    def _here(self, name: str) -> pathlib.Path:
        if not is_plain(name):
            raise InputError(f"{self.url}/{name} is no path")
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _opened(url: str) -> tuple[Any, str]:
    """(file system, path in it) of an address; raises InputError if there is none."""
    import fsspec  # most jobs need none of it

    scheme = url.partition(":")[0].lower()
    if not is_remote(url):  # any more, without its last /
        raise InputError(f"{url}// names no bucket")
    if scheme in HERE:
        raise InputError(f"{url} is on this machine: give its path, without {scheme}://")
    try:
        with _asking("open", url):
            return fsspec.url_to_fs(url)
    except InputError as error:
        if isinstance(error.__cause__, ImportError) and scheme in PACKAGES:
            package = PACKAGES[scheme]
            raise InputError(f"{url} needs the package {package}: pip install {package}") from error
        raise


def _forget(root: pathlib.Path) -> None:
    shutil.rmtree(root, ignore_errors=True)
    _NAMES.pop(str(root), None)
