"""grid.png: the first images of a job at one glance."""

import itertools
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from cvsa_jax import images, plots
from cvsa_jax.pictures import formats
from cvsa_jax.types import InputError

IMAGES, SIDE = 32, 512


def draw(folder: pathlib.Path, names: Sequence[str], blind: bool) -> None:
    """Truth, measurement, restoration and what else there is of each image, side by side.

    Args:
      folder: of the job. names: of the images that are done; those whose files are not all there, as another shard's
        may be, are left out, and where there is none, nothing is drawn. blind: whether the job found kernels.
    """
    there = (name for name in names if formats.find_picture(folder / "restored", name).exists())
    names = list(itertools.islice(there, IMAGES))
    files = {"truth": "{}", "measurement": "{}", "restored": "{}", "aligned": "{}", "samples": "{}_00"}
    files |= {"operator": "{}", "kernel": "{}"} if blind else {}
    place = lambda kind, name: formats.find_picture(folder / kind, files[kind].format(name))  # noqa: E731
    shown = [kind for kind in files if any(place(kind, name).exists() for name in names)]
    every = [found for name in names if (found := _read([place(kind, name) for kind in shown])) is not None]
    if not every:
        return
    titles = {"samples": "one chain", "operator": "its kernel", "kernel": "kernel found"}
    kinds = [titles.get(k, k) for k in shown]
    blocks = math.ceil(len(every) / 8)
    rows = [[] for _ in range(math.ceil(len(every) / blocks))]
    for i, pictures in enumerate(every):
        side = max(picture.shape[0] for picture in pictures)
        rows[i // blocks] += [plots.magnified(x, side) for x in pictures]
    side = max(max(picture.shape[:2]) for row in rows for picture in row)
    plots.save_grid(folder / "grid.png", rows, kinds * blocks, scale=max(1, 128 // side))


def _read(paths: Sequence[pathlib.Path]) -> list[np.ndarray] | None:
    """The pictures of one image, photographs reduced; None if one of them is missing or damaged."""
    try:
        return [images.reduced(formats.read_back(path), SIDE) for path in paths]
    except (InputError, OSError):
        return None
