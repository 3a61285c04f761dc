"""Where the files of a job lie: in folders here, or on buckets with temporary folders here that stand for them.

All that reads and writes works on the folders here. What is on a bucket is fetched before, and copied there behind.
"""

import contextlib
import pathlib
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

from cvsa_jax import folders, remote
from cvsa_jax.jobs import grid, manifest
from cvsa_jax.jobs.manifest import ACCOUNT, SUMMARY, TABLES
from cvsa_jax.types import InputError

PAGES = ("grid.png", "report.html")
PICTURES = ("restored", "measurement")  # of a report
ARRAYS = ("operator", "kernel", "measurement")  # have arrays too, beside their pictures
PAUSE = 5.0  # seconds between copies of a manifest
SHARE = 0.1  # of the time that copying it may take at most


class Source:
    """The input of a job, on this machine. root: the folder, or the file."""

    def __init__(self, root: pathlib.Path):
        self.root = root

    def fetch(self, files: Iterable[pathlib.Path]) -> None:
        """Have the content of some of its files here; before, only their names need be."""


class RemoteSource(Source):
    """The input of a job, on a bucket: its names are here as empty files, until they are fetched.

    Args:
      url: of a folder or a file. output: of the job; what lies in it is left out.

    Raises:
      InputError: if nothing is there, or it is the output.
    """

    def __init__(self, url: str, output: str):
        url = url.rstrip("/")
        if url == output.rstrip("/"):
            raise InputError(f"--output={output} is --input itself; name another folder")
        self._folder, name = remote.Folder(url), ""
        found = self._folder.sizes()
        if not found:
            raise InputError(f"no such file or folder: {url}")
        if {*found} == {""}:
            parent, _, name = url.rpartition("/")
            self._folder, found = remote.Folder(parent), {name: None}
        super().__init__(self._folder.root / name)
        within = remote.is_below(output, url)
        names = [n for n in found if not (within and remote.is_below(f"{url}/{n}", output))]
        plain = [n for n in names if remote.is_plain(n)]
        if len(plain) < len(names):
            folders.note(f"{url}: left out are {len(names) - len(plain)} files whose names are no paths here")
        self._folder.hold(plain)
        self._folder.fetch(n for n in plain if pathlib.PurePosixPath(n).name in folders.RECORDS)  # which tell results

    def fetch(self, files: Iterable[pathlib.Path]) -> None:
        self._folder.fetch(file.relative_to(self._folder.root).as_posix() for file in files)


def source_of(path: str, output: str) -> Source:
    """The input of a job, wherever it is.

    Raises:
      InputError: as `RemoteSource`.
    """
    return RemoteSource(path, output) if remote.is_remote(path) else Source(pathlib.Path(path))


class Place:
    """The folder of a job's results, on this machine, where `folder` is all there is."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    @property
    def disk(self) -> str:
        """What to make room on, where a disk is full."""
        return f"--output={self.folder}"

    def damaged(self, folder: pathlib.Path, lines: Iterable[dict]) -> dict[str, str]:
        """Of images that are done: a file of each that is missing, or is not what was written."""
        return manifest.damaged(folder, lines)

    def begin(self, name: str, kinds: Sequence[str]) -> None:
        """Have there what is known as the job begins; name: of this part's manifest. kinds: folders of pictures."""

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[None]:
        """While it lasts the manifest of that name grows; at the end, however that comes, it is there."""
        yield

    def keep(self, files: Iterable[str]) -> None:
        """Have all files of an image there; only then may it count as done."""

    def note(self) -> None:
        """The manifest has new lines."""

    def flush(self, name: str) -> None:
        """Have all lines of the manifest there."""

    def gather(self) -> None:
        """Have here what other parts have done by now."""

    def open_pictures(self, report: bool) -> None:
        """Have here the pictures that grid.png is made of, and the report."""

    def end(self) -> None:
        """Have there what is made of all images."""


class RemotePlace(Place):
    """The folder of a job's results on a bucket.

    A bucket cannot append: the manifest is copied whole, PAUSE seconds after a line is new. The files of an image are
    there before its line, and leave the temporary folder.

    Args:
      url: of the folder. overwrite: whether what is there is given up.

    Raises:
      InputError: by every method, if the bucket cannot be reached or refuses.
    """

    def __init__(self, url: str, overwrite: bool):
        self._remote = remote.Folder(url)
        super().__init__(self._remote.root)
        self._sizes = self._remote.sizes()
        if "" in self._sizes:
            raise InputError(f"--output={url} is a file, not a folder")
        self._guard, self._copying = threading.Lock(), threading.Lock()
        self._timer, self._error = None, None
        self._manifest, self._pause, self._overwrite = "", PAUSE, overwrite
        if overwrite:
            return
        if SUMMARY in self._sizes:
            self._fetch_account()
        else:  # what is there belongs to others, whose names tell
            self._remote.hold(dict.fromkeys(name.partition("/")[0] for name in self._sizes if remote.is_plain(name)))

    def _fetch_account(self, but: str = "") -> None:
        names = (*ACCOUNT, *filter(manifest.NAMES.fullmatch, self._sizes))
        self._remote.fetch(n for n in names if n in self._sizes and n != but)

    @property
    def disk(self) -> str:
        return f"{tempfile.gettempdir()}, where temporary files are ($TMPDIR names another),"

    def damaged(self, folder: pathlib.Path, lines: Iterable[dict]) -> dict[str, str]:
        """By their sizes: to read all of them would be to fetch all of them."""
        found = {}
        for line in lines:
            sizes = line.get("sizes") or [None] * len(line["files"])
            for file, size in zip(line["files"], sizes, strict=False):
                told = self._sizes.get(file)
                if file not in self._sizes or (size != told and None not in (size, told)):
                    found[line["image"]] = file
        return found

    def begin(self, name: str, kinds: Sequence[str]) -> None:
        if self._overwrite:  # first what would count as done, then the pictures of the job that it was
            self._remote.remove(n for n in self._sizes if manifest.NAMES.fullmatch(n) or n in TABLES)
            was = SUMMARY in self._sizes
            self._remote.remove(n for n in self._sizes if was and n.startswith(tuple(f"{kind}/" for kind in kinds)))
        self._remote.put([SUMMARY])  # before all: by it the folder is known as a job's
        self.flush(name)
        self._remote.put(TABLES)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[None]:
        self._manifest = name
        try:
            yield
        finally:
            self.flush(name)

    def keep(self, files: Iterable[str]) -> None:
        self._remote.put(files := [*files])
        for file in files:
            (self.folder / file).unlink()

    def note(self) -> None:
        with self._guard:
            if self._error is not None:
                raise self._error
            if self._timer is None and self._manifest:
                self._timer = threading.Timer(self._pause, self._late)
                self._timer.daemon = True
                self._timer.start()

    def _late(self) -> None:
        with self._guard:
            self._timer = None
        clock = time.monotonic()
        try:
            self._copy(self._manifest)
        except InputError as error:  # for whoever writes next
            self._error = error
        self._pause = max(PAUSE, (time.monotonic() - clock) / SHARE)

    def flush(self, name: str) -> None:
        with self._guard:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        self._copy(name)

    def _copy(self, name: str) -> None:
        with self._copying:  # so that no older copy comes behind a newer one
            data = (self.folder / name).read_bytes()
            self._remote.put_bytes(name, data[: data.rfind(b"\n") + 1])

    def gather(self) -> None:
        self._sizes = self._remote.sizes()
        self._fetch_account(but=self._manifest)

    def open_pictures(self, report: bool) -> None:
        done, wanted = manifest.read(self.folder).done, []
        for number, name in enumerate(sorted(done)):
            files = [f for f in done[name]["files"] if f.endswith(".png") or f.partition("/")[0] not in ARRAYS]
            shown = [file for file in files if file.partition("/")[0] in PICTURES] if report else []
            wanted += files if number < grid.IMAGES else shown
        self._remote.fetch(wanted)

    def end(self) -> None:
        names = (*TABLES, *PAGES, SUMMARY)
        self._remote.put(name for name in names if (self.folder / name).exists())


def place_of(output: str, overwrite: bool) -> Place:
    """The folder of a job's results, wherever it is.

    Raises:
      InputError: as `RemotePlace`.
    """
    return RemotePlace(output, overwrite) if remote.is_remote(output) else Place(pathlib.Path(output))


def refuse_removed(path: str, output: str, kinds: Iterable[str]) -> None:
    """Raises InputError if an input on a bucket lies in a folder of pictures there that --overwrite removes."""
    if remote.is_remote(path) and any(remote.is_below(path, f"{output.rstrip('/')}/{kind}") for kind in kinds):
        raise InputError(f"--overwrite would remove {path}, which is to be read; name another --output")
