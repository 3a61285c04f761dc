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
        self._plain: dict[str, list[pathlib.Path]] = defaultdict(list)  # without capitals
        for path in folders.list_images(folder, suffixes):
            name = path.relative_to(self.folder).with_suffix("").as_posix()
            self._files[name].append(path)
            self._plain[name.lower()].append(path)

    def find(self, image: pathlib.PurePath, path: pathlib.Path | None = None) -> pathlib.Path:
        """The file that belongs to an image; where images and these lie in one folder, never the image itself.

        Args:
          image: its path relative to the input. path: where it is, if it may lie in this folder too.

        Raises:
          InputError: if there is none, or more than one.
        """
        stem, own = image.with_suffix("").as_posix(), None if path is None else path.resolve()
        names = (stem, image.as_posix(), f"{stem}_{self.kind}", f"{stem}-{self.kind}")
        for table, key in ((self._files, str), (self._plain, str.lower)):
            for name in names:
                found = [file for file in table.get(key(name), []) if file.resolve() != own]
                if len(found) > 1:
                    both = " and ".join(p.name for p in found[:2])
                    raise InputError(f"the folder {self.folder} has {both}, but one {self.kind} is needed")
                if found:
                    return found[0]
        raise InputError(f"the folder {self.folder} has no {self.kind} of that name, such as {stem}.png")

    def of(self, image: pathlib.PurePath, path: pathlib.Path | None = None) -> Any:
        """What the file of an image holds, which `find` finds; raises InputError as that and its reader do."""
        return self._read(str(self.find(image, path)))
