"""Folders of well-known sets of images, in the order in which papers count their first N."""

import pathlib
import re

from cvsa_jax import folders
from cvsa_jax.types import InputError

# Folder below the root where the images to evaluate on lie; the first that exists is taken.
LAYOUTS = {
    "FFHQ": ("images256x256", "images1024x1024", "thumbnails128x128"),
    "CelebA-HQ": ("CelebA-HQ-img", "celeba_hq_256", "data256x256"),
    "AFHQ dog": ("test/dog", "val/dog", "afhq/test/dog", "afhq/val/dog", "afhq_v2/test/dog"),
    "Products-6k": ("test",),
}
# What such a folder must hold where its own name is anyone's.
PARTS = {"Products-6k": ("clothing", "groceries")}


def locate(root: str) -> tuple[str, pathlib.Path]:
    """(name of the set, folder of its test images, which is told); any other folder is a set by its own name.

    Raises:
      InputError: if there is no such folder.
    """
    folder = pathlib.Path(root)
    if not folder.is_dir():
        raise InputError(f"no such folder: {root}")
    for name, places in LAYOUTS.items():
        for place in places:
            if all((folder / place / part).is_dir() for part in PARTS.get(name, ("",))):
                folders.note(f"{root} is {name}: the images of {place} are read, and no others of it")
                return name, folder / place
    return folder.resolve().name, folder


def natural(path: pathlib.Path) -> tuple:
    """A key that sorts 2.png before 10.png."""
    return tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", str(path)) if part
    )


def first_images(folder: pathlib.Path, limit: int | None, leave: str | None = None) -> list[str]:
    """Paths relative to the folder of its first images, numbers counted as numbers; but for the folder `leave`.

    FFHQ's first thousand, 00000 to 00999, are what is commonly held out of its training.
    """
    found = folders.list_images(folder, leave=[] if leave is None else [leave])
    files = sorted(found, key=natural)[:limit]
    return [str(f.relative_to(folder)) for f in files]
