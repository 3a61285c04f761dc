"""The files of one image: all of them are written, or none."""

import pathlib

import numpy as np

from cvsa_jax import operators
from cvsa_jax.jobs.manifest import checksum
from cvsa_jax.operators.base import kernel_picture
from cvsa_jax.pictures import Carried, formats
from cvsa_jax.writing import write_npy


class Bundle:
    """Files `FOLDER/KIND/NAME.*` of one image, written within `with`; if that fails, what was written goes.

    Args:
      folder: of the job. name: of the image, perhaps with folders.
    """

    def __init__(self, folder: pathlib.Path, name: str):
        self._folder, self._name = folder, name
        self._paths: list[pathlib.Path] = []

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace) -> None:
        for path in self._paths if kind is not None else ():
            path.unlink(missing_ok=True)

    def picture(
        self, kind: str, image: np.ndarray, form: str | None = formats.PNG, carried: Carried | None = None,
        behind: str = "",
    ) -> None:  # fmt: skip
        """A picture (H, W, C) in [-1, 1], as `write_picture` writes it; behind: of its name."""
        folder = self._folder / kind
        self._paths.append(formats.write_picture(folder, f"{self._name}{behind}", image, form, carried))

    def array(self, kind: str, array: np.ndarray) -> None:
        """An array as it is."""
        write_npy(path := self._path(kind, ".npy"), array)
        self._paths.append(path)

    def kernel(self, kind: str, kernel: np.ndarray) -> None:
        """A kernel as an array and, scaled to its maximum, as a picture."""
        self.picture(kind, kernel_picture(kernel))
        self.array(kind, kernel)

    def operator(self, kind: str, operator: operators.Operator) -> None:
        """An operator as `NAME.npz`, its picture as `NAME.png`, and a kernel as `NAME.npy`."""
        operators.save_operator(path := self._path(kind, ".npz"), operator)
        self._paths.append(path)
        picture, kernel = operator.picture(), operator.blur_kernel()
        if picture is not None:
            self.picture(kind, picture)
        if kernel is not None:
            self.array(kind, kernel)

    def _path(self, kind: str, suffix: str) -> pathlib.Path:
        return self._folder / kind / f"{self._name}{suffix}"

    def sizes(self) -> list[int]:
        """Of those files, in bytes."""
        return [path.stat().st_size for path in self._paths]

    def checksums(self) -> dict[str, str]:
        """Of each file that was written, by its path below the folder."""
        return {path.relative_to(self._folder).as_posix(): checksum(path) for path in self._paths}
