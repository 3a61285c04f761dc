"""Folders of image files."""

import pathlib

from cvsa_jax.types import InputError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def list_images(path: str | pathlib.Path, extra: tuple[str, ...] = ()) -> list[pathlib.Path]:
    """The image files (and those of `extra` suffixes) below a folder, sorted by path; or the one file itself.

    Raises:
      InputError: if there is no such path, or no image in it.
    """
    path = pathlib.Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"no such file or folder: {path}")
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS + extra)
    if not files:
        raise InputError(f"no image ({', '.join(EXTENSIONS)}) in {path}")
    return files
