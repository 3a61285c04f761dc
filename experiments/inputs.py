"""What a restoration job reads: images, masks, kernels."""

import dataclasses
import pathlib
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax import data, operators
from cvsa_jax.data import InputError


class Entry(NamedTuple):
    """One image of a job, not yet read. shape: (H, W, C) of its restoration."""

    path: pathlib.Path
    name: str
    shape: tuple[int, int, int]


class Measured(NamedTuple):
    """One image ready to be restored. truth is None for measured inputs."""

    entry: Entry
    truth: np.ndarray | None
    measurement: np.ndarray
    operator: operators.Operator
    factor: int


def output_names(files: list[pathlib.Path], root: pathlib.Path) -> list[str]:
    """Names relative to the folder, without the suffix where that stays unambiguous."""
    relative = [f.relative_to(root) if root.is_dir() else pathlib.Path(f.name) for f in files]
    stems = [str(r.with_suffix("")) for r in relative]
    return [s if stems.count(s) == 1 else str(r) for s, r in zip(stems, relative, strict=True)]


def key_of(entry: Entry, seed: int, purpose: int) -> jax.Array:
    """JAX randomness of one image; each purpose (0 measurement noise, 1 restoration) has its own.

    Fixed by the name alone, so that an image is restored the same way in any company.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _number(entry.name)), purpose)


def _number(name: str) -> int:
    return zlib.crc32(name.encode())


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads images and measures them, one at a time, so that a folder of any length fits in memory.

    Args:
      task: name in TASKS. options: its settings.
      channels: of the prior; grey files stay grey under a colour prior.
      image_size: side of the centre square to take, or None for the image as it is.
      measured: whether the inputs are measurements.
      noise_std: of the simulated noise.
      seed: of masks, kernels and noise.
    """

    task: str
    options: operators.OperatorOptions
    channels: int
    image_size: int | None
    measured: bool
    noise_std: float
    seed: int

    def _read(self, path: pathlib.Path) -> np.ndarray:
        image = data.open_image(path)
        if self.channels == 1:
            image = image.convert("L")
        if self.image_size:
            image = data.centre_square(image, self.image_size)
        return data.to_float(image)

    def _operator(self, name: str, shape) -> operators.Operator:
        generator = np.random.default_rng([self.seed, _number(name)])
        return operators.make_operator(self.task, generator, *shape[:2], self.options)

    def check(self, files: list[tuple[pathlib.Path, str]]) -> tuple[list[Entry], dict[str, str]]:
        """(images that can be restored, reason by name of those that cannot); nothing is kept."""
        factor = operators.TASKS[self.task].factor if self.measured else 1
        entries, failures, buildable = [], {}, set()
        for path, name in files:
            try:
                height, width, channels = self._read(path).shape
                shape = (height * factor, width * factor, channels)
                if shape not in buildable:
                    self._operator(name, shape)
                    buildable.add(shape)
                entries.append(Entry(path, name, shape))
            except ValueError as error:
                failures[name] = str(error)
        return entries, failures

    def measure(self, entry: Entry) -> Measured:
        """Draw the operator and, for clean inputs, the measurement."""
        image, factor = self._read(entry.path), operators.TASKS[self.task].factor
        operator = self._operator(entry.name, entry.shape)
        if self.measured:
            return Measured(entry, None, image, operator, factor)
        y = operators.simulate(key_of(entry, self.seed, 0), operator, jnp.asarray(image), self.noise_std)
        return Measured(entry, image, np.asarray(y), operator, factor)


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
