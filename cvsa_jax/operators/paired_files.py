"""Folders with a file for each image of a job: masks, kernels."""

import pathlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from cvsa_jax import folders
from cvsa_jax.types import InputError


class PairedFiles:
    """The files below a folder, by the names of the images that they belong to.

    The file of the image `sub/a.jpg` is `sub/a.png`, with any suffix that is read; or else `sub/a.jpg.png`,
    `sub/a_mask.png` or `sub/a_kernel.png` (after what the files are). Capitals are told apart only where they must be.
    Files are read when they are asked for.

    Args:
      folder: path of the folder.
      kind: what the files are, in a word.
      read: (path) -> what a file holds.
      suffixes: of files beside pictures.

    Raises:
      InputError: if nothing is there.
    """

    def __init__(self, folder: str, kind: str, read: Callable[[str], Any], suffixes: tuple[str, ...] = ()):
        self.folder, self.kind, self._read = pathlib.Path(folder), kind, read
        self._files: dict[str, list[pathlib.Path]] = defaultdict(list)
        for path in folders.list_images(folder, suffixes):
            self._files[path.relative_to(self.folder).with_suffix("").as_posix()].append(path)

    def find(self, image: pathlib.PurePath) -> pathlib.Path:
        """The file that belongs to an image, whose path is relative to the input.

        Raises:
          InputError: if there is none, or more than one.
        """
        stem = image.with_suffix("").as_posix()
        names = (stem, image.as_posix(), f"{stem}_{self.kind}", f"{stem}-{self.kind}")
        plain: dict[str, list[pathlib.Path]] = defaultdict(list)
        for name, paths in self._files.items():
            plain[name.lower()] += paths
        for table, key in ((self._files, str), (plain, str.lower)):
            for name in names:
                found = table.get(key(name), [])
                if len(found) > 1:
                    both = " and ".join(p.name for p in found[:2])
                    raise InputError(f"the folder {self.folder} has {both}, but one {self.kind} is needed")
                if found:
                    return found[0]
        raise InputError(f"the folder {self.folder} has no {self.kind} of that name, such as {stem}.png")

    def of(self, image: pathlib.PurePath) -> Any:
        """What the file of an image holds; raises InputError as `find` and its reader do."""
        return self._read(str(self.find(image)))
