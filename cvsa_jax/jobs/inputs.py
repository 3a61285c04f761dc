"""What a restoration job reads: images and measurements, and the operators that go with them."""

import dataclasses
import pathlib
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax import images
from cvsa_jax.door import UNKNOWN
from cvsa_jax.jobs import measurements
from cvsa_jax.noise import NoiseModel
from cvsa_jax.operators import Operator, Task, simulate
from cvsa_jax.types import InputError


class Entry(NamedTuple):
    """One image of a job, not yet read. shape: (H, W, C) of its restoration."""

    path: pathlib.Path
    name: str
    shape: tuple[int, int, int]


class Measured(NamedTuple):
    """One image ready to be restored. truth is None for measured inputs.

    operator: what was, or would be, measured with; of a blind task restoration does not know it.
    noise_std: of a measured input, given or estimated; None where it is no single number.
    """

    entry: Entry
    truth: np.ndarray | None
    measurement: np.ndarray
    operator: Operator
    noise_std: float | None = None


def key_of(entry: Entry, seed: int, purpose: int) -> jax.Array:
    """JAX randomness of one image; each purpose (0 measurement noise, 1 restoration, 2 search) has its own.

    Fixed by the name alone, so that an image is restored the same way in any company.
    """
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _number(entry.name)), purpose)


def _number(name: str) -> int:
    return zlib.crc32(name.encode())


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads images and measures them, one at a time, so that a folder of any length fits in memory.

    Args:
      task: the degradation. settings: its settings, files read.
      channels: of the prior; grey files stay grey under a colour prior.
      image_size: side of the centre square to take, or None for the image as it is.
      measured: whether the inputs are measurements.
      noise: of the simulated measurements.
      seed: of masks, kernels and noise.
      operator: one to use for every image in place of drawn ones, or None.
      needs_guess: whether restoration starts at the operator's own guess.
    """

    task: Task
    settings: Any
    channels: int
    image_size: int | None
    measured: bool
    noise: NoiseModel
    seed: int
    operator: Operator | None = None
    needs_guess: bool = False

    def _read(self, path: pathlib.Path) -> np.ndarray:
        if path.suffix == ".npy":
            if self.image_size:
                raise InputError(f"--image_size does not go with {path}: an array is taken as it is")
            if not self.measured:
                raise InputError(f"{path} is an array; only measurements may be: --measured")
            return measurements.read_measurement(path, self.channels)
        if self.measured and not self.task.picture:
            raise InputError(f"{path} is a picture, which cannot hold what {self.task.name} measures: give a .npy file")
        image = images.open_image(path)
        if self.channels == 1:
            image = image.convert("L")
        if self.image_size:
            image = images.centre_square(image, self.image_size)
        return images.to_float(image)

    def _operator(self, name: str, shape) -> Operator:
        if self.operator is not None:
            return self.operator
        generator = np.random.default_rng([self.seed, _number(name)])
        return self.task.build(generator, shape[0], shape[1], self.settings)

    def _image_shape(self, measured: np.ndarray) -> tuple[int, int, int]:
        """The shape of the image that a measurement is of."""
        height, width, channels = measured.shape
        return *self.task.image_of((height, width), self.settings), channels

    def check(self, files: list[tuple[pathlib.Path, str]]) -> tuple[list[Entry], dict[str, str]]:
        """(images that can be restored, reason by name of those that cannot); nothing is kept."""
        entries, failures, buildable = [], {}, set()
        for path, name in files:
            try:
                read = self._read(path)
                shape = self._image_shape(read) if self.measured else read.shape
                finite = bool(np.isfinite(read).all())
                if shape not in buildable or not finite:
                    operator = self._operator(name, shape)
                    self._check_operator(operator, shape, read)
                    if not (finite or np.isfinite(operator.restrict(jnp.asarray(read))).all()):
                        raise InputError(f"{path} holds NaN or infinite numbers: {UNKNOWN}")
                    buildable.add(shape)
                entries.append(Entry(path, name, shape))
            except ValueError as error:
                failures[name] = str(error)
        return entries, failures

    def _check_operator(self, operator: Operator, shape, read: np.ndarray) -> None:
        """Raises InputError if the operator does not serve images of that shape, or not what was read."""
        try:
            measures = jax.eval_shape(operator, jax.ShapeDtypeStruct(shape, jnp.float32))
        except (TypeError, ValueError) as error:
            raise InputError(f"the operator does not fit an image of {shape[0]}x{shape[1]}: {error}") from error
        if self.needs_guess and not operator.offers("first_guess"):
            raise InputError(f"--start=guess: {self.task.name} has no first guess to start from")
        found, kinds = measures.shape, [np.iscomplexobj(read), jnp.issubdtype(measures.dtype, jnp.complexfloating)]
        if self.measured and found != read.shape:
            raise InputError(f"the operator measures {found[0]}x{found[1]}, but the input has {read.shape[:2]}")
        if self.measured and kinds[0] != kinds[1]:
            has, wants = ("complex numbers" if kind else "real numbers" for kind in kinds)
            raise InputError(f"{self.task.name} measures {wants}, but the input has {has}")
        wanted = tuple(-(-n // self.task.factor) for n in shape[:2])
        if self.operator is not None and self.task.picture and found[:2] != wanted:
            of = "x".join(map(str, wanted))
            raise InputError(f"the operator measures {found[0]}x{found[1]}, but {self.task.name} of this image is {of}")

    def measure(self, entry: Entry) -> Measured:
        """Draw the operator and, for clean inputs, the measurement."""
        image, operator = self._read(entry.path), self._operator(entry.name, entry.shape)
        if self.measured:
            if not np.isfinite(image).all():  # only where nothing is measured, or `check` had refused it
                image = np.asarray(operator.restrict(jnp.asarray(image)))
            return Measured(entry, None, image, operator)
        y = simulate(key_of(entry, self.seed, 0), operator, jnp.asarray(image), self.noise)
        return Measured(entry, image, np.asarray(y), operator)


def check_measured(task: Task, settings: Any, has_operator: bool) -> None:
    """Measured inputs need the operator to be known, not drawn.

    Raises:
      InputError: says what to give.
    """
    missing = [name for name in task.drawn_by if getattr(settings, name, None) is None]
    if has_operator or not missing:
        return
    files = " and ".join(f"--{name}=FILE" for name in missing if hasattr(settings, name))
    way = f"{files}, or " if files else ""
    raise InputError(f"--measured with {task.name} needs {way}the operator of an earlier job: --operator=FILE.npz")
