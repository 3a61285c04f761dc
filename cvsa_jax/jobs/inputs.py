"""What a restoration job reads: images and measurements, and the operators that go with them."""

import dataclasses
import pathlib
import sys
import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax import folders
from cvsa_jax.door import UNKNOWN
from cvsa_jax.jobs import measurements, pairing
from cvsa_jax.jobs.selection import Chosen
from cvsa_jax.noise import NoiseModel
from cvsa_jax.operators import Operator, Task, simulate
from cvsa_jax.pictures import Carried, formats, read_picture
from cvsa_jax.seeds import key_of_seed
from cvsa_jax.types import InputError


class Entry(NamedTuple):
    """One image of a job, not yet read.

    shape: (H, W, C) of its restoration. stem: its name without a suffix. form: the shapes in its operator, where these
    differ between images.
    """

    path: pathlib.Path
    name: str
    shape: tuple[int, int, int]
    stem: str
    form: tuple = ()


class Measured(NamedTuple):
    """One image ready to be restored. truth is None for measured inputs.

    operator: what was, or would be, measured with; of a blind task restoration does not know it.
    carried: what the restored picture has of the input's file; of a clean input its depth alone.
    noise_std: of a measured input, given or estimated; None where it is no single number.
    origin: digests of the files that it is made of, as `origins.of_image` has them.
    """

    entry: Entry
    truth: np.ndarray | None
    measurement: np.ndarray
    operator: Operator
    carried: Carried = Carried()
    noise_std: float | None = None
    origin: dict[str, str] | None = None


def key_of(entry: Entry, seed: int, purpose: int) -> jax.Array:
    """JAX randomness of one image; each purpose (0 measurement noise, 1 restoration, 2 search) has its own.

    Fixed by the stem alone, so that an image is restored the same way in any company.
    """
    return jax.random.fold_in(jax.random.fold_in(key_of_seed(seed), _number(entry.stem)), purpose)


def _number(name: str) -> int:
    return zlib.crc32(name.encode())


def _form(operator: Operator) -> tuple:
    return tuple(map(np.shape, jax.tree.leaves(operator)))


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
      value_range: the values that stand for black and white in arrays, floating-point pictures and those of more than 8
        bits, or None.
      form: of the pictures to be written, a name of `FORMATS`, or None.
      root: the job's input, to which the names of masks and kernels are relative.
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
    value_range: tuple[float, ...] | None = None
    form: str | None = None
    root: pathlib.Path = pathlib.Path()

    def _read(self, path: pathlib.Path, say: bool = False) -> tuple[np.ndarray, Carried]:
        """The image or the measurement of a file, and what goes with it; `say`: print what people should know."""
        if measurements.is_array(path) and (self.measured or path.suffix.lower() not in measurements.TIFFS):
            if self.image_size:
                raise InputError(f"--image_size does not go with {path}: an array is taken as it is")
            if not self.measured:
                raise InputError(f"{path} is an array; only measurements may be: --measured")
            found = measurements.read_measurement(path, self.channels, self.task, self.settings, self.value_range)
            return found, Carried()
        if self.measured and not self.task.picture:
            raise InputError(f"{path} is a picture, which cannot hold what {self.task.name} measures: give a .npy file")
        limits = None if self.value_range is None else (self.value_range[0], self.value_range[1])
        picture = read_picture(path, limits)
        picture = picture.grey() if self.channels == 1 else picture
        picture = picture.square(self.image_size) if self.image_size else picture
        carried = picture.carried if self.measured else Carried(picture.depth)
        for note in (*picture.notes, *formats.losses(self.form, carried)) if say else ():
            folders.note(f"{path}: {note}")
        return picture.pixels, carried

    def _operator(self, path: pathlib.Path, stem: str, shape, said: set[str] | None = None) -> Operator:
        """The operator of an image; what people should know of its files is printed, unless it is in `said`."""
        if self.operator is not None:
            return self.operator
        source = pairing.Source(path, self.root, self.measured, self.image_size)
        generator = np.random.default_rng([self.seed, _number(stem)])
        try:
            settings, remarks = pairing.settings_of(self.task, self.settings, source, said is not None)
            operator = self.task.build(generator, shape[0], shape[1], settings)
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error
        if said is not None:
            for remark in [r for r in remarks if r not in said]:
                print(remark, file=sys.stderr)
            said |= {*remarks}
        return operator

    def _image_shape(self, measured: np.ndarray) -> tuple[int, int, int]:
        """The shape of the image that a measurement is of."""
        height, width, channels = measured.shape
        return *self.task.image_of((height, width), self.settings), channels

    def check(self, files: list[Chosen]) -> tuple[list[Entry], dict[str, str]]:
        """(images that can be restored, reason by name of those that cannot); nothing is kept."""
        entries, failures, buildable, said, form = [], {}, set(), set(), ()
        each = pairing.depends_on_image(self.settings, bool(self.measured and self.image_size))
        for path, name, _, stem in files:
            try:
                read, _ = self._read(path, say=True)
                shape = self._image_shape(read) if self.measured else read.shape
                finite = bool(np.isfinite(read).all())
                kind = (shape, read.shape, read.dtype)
                if each or kind not in buildable or not finite:
                    operator = self._operator(path, stem, shape, said)
                    self._check_operator(operator, shape, read)
                    if not (finite or np.isfinite(operator.restrict(jnp.asarray(read))).all()):
                        raise InputError(f"{path} holds NaN or infinite numbers: {UNKNOWN}")
                    buildable.add(kind)
                    form = _form(operator) if each else ()
                formats.check_size(self.form, shape)
                entries.append(Entry(path, name, shape, stem, form))
            except ValueError as error:
                failures[name] = str(error) if str(path) in str(error) else f"{path}: {error}"
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

    def files_of(self, image: Chosen | Entry) -> dict[str, pathlib.Path]:
        """The files that one image is made of and no other: its own as `input`, and its mask and kernel of a folder."""
        source = pairing.Source(image.path, self.root, self.measured, self.image_size)
        return {"input": image.path, **({} if self.operator is not None else pairing.pairs_of(self.settings, source))}

    def measure(self, entry: Entry) -> Measured:
        """Draw the operator and, for clean inputs, the measurement.

        Raises:
          InputError: if a file cannot be read any more, or is of another size than it was.
        """
        image, carried = self._read(entry.path)
        shape = self._image_shape(image) if self.measured else image.shape
        if shape != entry.shape:
            sides = ("x".join(map(str, each)) for each in (entry.shape, shape))
            raise InputError(f"{entry.path} has changed since the job began, from {' to '.join(sides)}")
        operator = self._operator(entry.path, entry.stem, entry.shape)
        if entry.form and _form(operator) != entry.form:
            raise InputError(f"{entry.path}: its kernel or mask has changed its size since the job began")
        if self.measured and measurements.is_array(entry.path):  # which may have become complex
            self._check_operator(operator, entry.shape, image)
        if self.measured:
            if not np.isfinite(image).all():  # only where nothing is measured, or `check` had refused it
                image = np.asarray(operator.restrict(jnp.asarray(image)))
            if self.operator is None:
                image = pairing.weighed(image, operator)
            return Measured(entry, None, image, operator, carried)
        y = simulate(key_of(entry, self.seed, 0), operator, jnp.asarray(image), self.noise)
        return Measured(entry, image, np.asarray(y), operator, carried)


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
