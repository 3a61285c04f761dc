"""grid.png: the first images of a job at one glance."""

import math
import pathlib
from collections.abc import Sequence

import numpy as np

from cvsa_jax import images, plots
from cvsa_jax.pictures import formats

IMAGES, SIDE = 32, 512


def draw(folder: pathlib.Path, names: Sequence[str], blind: bool) -> None:
    """Truth, measurement, restoration and what else there is of each image, side by side.

    Args:
      folder: of the job. names: of the images that are done; where there is none, nothing is drawn. blind: whether
        the job found kernels.
    """
    names = [name for name in names if formats.find_picture(folder / "restored", name).exists()][:IMAGES]
    if not names:
        return
    files = {"truth": "{}", "measurement": "{}", "restored": "{}", "aligned": "{}", "samples": "{}_00"}
    files |= {"operator": "{}", "kernel": "{}"} if blind else {}
    files = {k: f for k, f in files.items() if formats.find_picture(folder / k, f.format(names[0])).exists()}
    titles = {"samples": "one chain", "operator": "its kernel", "kernel": "kernel found"}
    kinds = [titles.get(k, k) for k in files]
    blocks = math.ceil(len(names) / 8)
    rows = [[] for _ in range(math.ceil(len(names) / blocks))]
    for i, name in enumerate(names):
        pictures = [_read(folder / kind, form.format(name)) for kind, form in files.items()]
        side = max(picture.shape[0] for picture in pictures)
        rows[i // blocks] += [plots.magnified(x, side) for x in pictures]
    side = max(max(picture.shape[:2]) for row in rows for picture in row)
    plots.save_grid(folder / "grid.png", rows, kinds * blocks, scale=max(1, 128 // side))


def _read(folder: pathlib.Path, name: str) -> np.ndarray:
    """A picture, photographs reduced."""
    return images.reduced(formats.read_back(formats.find_picture(folder, name)), SIDE)
