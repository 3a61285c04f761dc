"""What a restoration job reads: images, masks, kernels."""

import pathlib
import zlib
from typing import NamedTuple

import jax
import numpy as np

from cvsa_jax import data, operators
from cvsa_jax.data import InputError


class Item(NamedTuple):
    """One image of a job.

    name: of its output files. image: (H, W, C) in [-1, 1]. seed: fixed by the name alone,
    so that an image is degraded and restored the same way in any company.
    """

    name: str
    image: np.ndarray
    seed: int


def output_names(files: list[pathlib.Path], root: pathlib.Path) -> list[str]:
    """Names relative to the folder, without the suffix where that stays unambiguous."""
    relative = [f.relative_to(root) if root.is_dir() else pathlib.Path(f.name) for f in files]
    stems = [str(r.with_suffix("")) for r in relative]
    return [s if stems.count(s) == 1 else str(r) for s, r in zip(stems, relative, strict=True)]


def read_item(path: pathlib.Path, name: str, image_size: int | None, channels: int) -> Item:
    """Read one image; grey files stay grey."""
    image = data.open_image(path)
    if channels == 1:
        image = image.convert("L")
    if image_size:
        image = data.centre_square(image, image_size)
    return Item(name, data.to_float(image), zlib.crc32(name.encode()))


def generator_of(item: Item, seed: int) -> np.random.Generator:
    """NumPy randomness of one image: masks and kernels."""
    return np.random.default_rng([seed, item.seed])


def key_of(item: Item, seed: int, purpose: int) -> jax.Array:
    """JAX randomness of one image; each purpose (0 measurement noise, 1 restoration) has its own."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), item.seed), purpose)


def read_mask(path: str) -> np.ndarray:
    """A mask file as (H, W) booleans, true where the pixel is known: white is what is missing."""
    image = np.asarray(data.open_image(pathlib.Path(path)).convert("L"))
    seen = image < 128
    if not seen.any():
        raise InputError(f"the mask {path} is white everywhere, so nothing is known")
    return seen


def read_kernel(path: str) -> np.ndarray:
    """A blur kernel from a .npy array or the grey values of an image; scaled to sum 1 later."""
    if path.endswith(".npy"):
        try:
            return np.asarray(np.load(path), np.float64)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"cannot read {path} as an array: {error}") from error
    return np.asarray(data.open_image(pathlib.Path(path)).convert("L"), np.float64)


def check_measured(task: str, options: operators.OperatorOptions) -> None:
    """Measured inputs need the operator to be known, not drawn.

    Raises:
      InputError: says what to give.
    """
    if task == "motion_deblur" and options.kernel is None:
        raise InputError("--measured with motion_deblur needs the kernel: --kernel=FILE")
    if task in ("box_inpaint", "random_inpaint"):
        raise InputError(f"--measured with {task} needs the mask: --task=mask_inpaint --mask=FILE")
