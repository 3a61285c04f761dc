"""Folders of image files, as people's folders are."""

import json
import os
import pathlib
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from cvsa_jax import remote
from cvsa_jax.types import InputError

EXTENSIONS = (
    ".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".jp2", ".avif", ".tga",
    ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
# Pictures that are not read, and arrays, which only measurements may be: that they are left out is said.
UNREAD = (
    ".heic", ".heif", ".dng", ".nef", ".cr2", ".cr3", ".arw", ".raf", ".orf", ".rw2", ".psd", ".xcf", ".svg", ".exr",
    ".npy", ".npz", ".mat",
)  # fmt: skip
# What archives, file servers and file systems keep beside the files.
SERVICE = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
# Where a job of ours says what it is.
RECORDS = ("summary.json", "settings.json")


def list_images(
    path: str | pathlib.Path, extra: tuple[str, ...] = (), leave: Iterable[str | pathlib.Path] = (),
    say: Callable[[str], object] = lambda text: None,
) -> list[pathlib.Path]:  # fmt: skip
    """The image files below a folder, sorted by path; or the one file itself, whatever its name.

    Left out are hidden files and folders (so the `._` companions and the checkpoints of editors), what archives
    and file servers keep (`SERVICE`), and folders that a job of this package wrote. Links are followed, a folder is
    entered once, by its own path if that lies below `path`, and one that contains `path` never; a link that leads
    nowhere is listed, to be reported.

    Args:
      path: the folder or file. extra: more suffixes. leave: folders that are left out. say: is told, in a line, of
        files in UNREAD that are.

    Raises:
      InputError: if there is no such path, a folder cannot be read, or there is no image.
    """
    path = pathlib.Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"no such file or folder: {path}")
    walk = _Walk(EXTENSIONS + extra, leave)
    walk.run(path)
    if not walk.files:
        left = "; ".join(f"{why}: {paths[0]}{_more(len(paths))}" for why, paths in walk.left.items())
        raise InputError(f"no image ({', '.join(EXTENSIONS + extra)}) in {path}{left and f'; left out are {left}'}")
    kinds = Counter(suffix for name in walk.left["files of other kinds"] if (suffix := _suffix(name)) in UNREAD)
    if kinds:
        say(f"{path}: left out are {', '.join(f'{count} {kind}' for kind, count in kinds.items())}, which are not read")
    return sorted(walk.files)


def note(text: str) -> None:
    """Print what people should know."""
    print(f"note: {remote.shown(text)}", file=sys.stderr)


def _suffix(name: str) -> str:
    return pathlib.PurePath(name).suffix.lower()


def _more(count: int) -> str:
    return f" and {count - 1} more" if count > 1 else ""


class _Walk:
    """What a walk through a folder found: files, and by reason what it left out."""

    def __init__(self, suffixes: tuple[str, ...], leave: Iterable[str | pathlib.Path]):
        self.files: list[pathlib.Path] = []
        self.left: dict[str, list[str]] = defaultdict(list)
        self._suffixes = suffixes
        self._leave = {_identity(p) for p in map(pathlib.Path, leave) if p.is_dir()}
        self._seen: set[tuple[int, int]] = set()

    def run(self, root: pathlib.Path) -> None:
        """Walk; folders before links to folders, so that a new link changes no path of what was there."""
        folders, links = [root], []
        self._seen |= {_identity(parent) for parent in root.resolve().parents}  # a link to one would bring all of it
        while folders or links:
            folder = folders.pop() if folders else links.pop(0)
            try:
                identity, entries = _identity(folder), sorted(os.scandir(folder), key=lambda e: e.name)
            except OSError as error:
                raise InputError(f"cannot read the folder {folder}: {error.strerror}") from error
            if identity in self._seen:
                self.left["folders that are there by another path"].append(folder.name)
                continue
            if identity in self._leave and folder != root:
                self.left["the output"].append(str(folder.relative_to(root)))
                continue
            self._seen.add(identity)
            if folder != root and _ours(folder, {e.name for e in entries}):
                self.left["results of other jobs"].append(str(folder.relative_to(root)))
                continue
            for entry in entries:
                self._take(entry, folder / entry.name, folders, links)
            links.sort()

    def _take(self, entry: os.DirEntry, path: pathlib.Path, folders: list, links: list) -> None:
        if entry.name.startswith(".") or entry.name in SERVICE:
            self.left["hidden files and folders"].append(entry.name)
        elif _is(entry.is_dir):
            (links if entry.is_symlink() else folders).append(path)
        elif _suffix(entry.name) not in self._suffixes:
            self.left["files of other kinds"].append(entry.name)
        elif _is(entry.is_file) or (entry.is_symlink() and not path.exists()):
            self.files.append(path)
        else:
            self.left["what is no file"].append(entry.name)  # a pipe would be waited for


def _is(question) -> bool:
    """An answer of the file system; of a link that leads in a circle no."""
    try:
        return question()
    except OSError:
        return False


def _identity(folder: pathlib.Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _ours(folder: pathlib.Path, names: set[str]) -> bool:
    """Whether a job of this package wrote a folder."""
    for name in names.intersection(RECORDS):
        try:
            record = json.loads((folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and {"settings", "versions"} <= record.keys():
            return True
    return False
