"""The mask and the kernel of one image: from the files that its job names, at the size at which it is restored."""

import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from cvsa_jax.jobs import measurements
from cvsa_jax.operators import Mask, Operator, Task
from cvsa_jax.operators.kernel_files import KernelFile, scaled_kernel
from cvsa_jax.operators.known_pixels import keeps_pixels
from cvsa_jax.operators.mask_files import Hole, MaskPicture, recognise
from cvsa_jax.operators.misplaced import misplaced
from cvsa_jax.operators.painted import photograph
from cvsa_jax.operators.paired_files import PairedFiles
from cvsa_jax.operators.registry import parts
from cvsa_jax.pictures.picture import centre_box
from cvsa_jax.settings import values
from cvsa_jax.types import InputError

# A pixel of a resized mask is missing where more than this share of its area is.
TOUCHED = 1 / 16


@dataclasses.dataclass(frozen=True)
class Source:
    """The file of one image of a job.

    Args:
      path: of the file. root: the job's input. measured: whether it is a measurement.
      image_size: side of the centre square to which it is cut and resized, or None.
    """

    path: pathlib.Path
    root: pathlib.Path
    measured: bool
    image_size: int | None

    @property
    def name(self) -> pathlib.PurePath:
        """Its path relative to the input."""
        return self.path.relative_to(self.root) if self.root in self.path.parents else pathlib.PurePath(self.path.name)

    @functools.cached_property
    def pixels(self) -> np.ndarray | None:
        """(H, W, 3) in [0, 1] as stored; None of an array."""
        return None if measurements.is_array(self.path) else photograph(self.path)

    @property
    def size(self) -> tuple[int, int] | None:
        """(H, W) as stored; None of an array, which is never resized."""
        return None if self.pixels is None else (self.pixels.shape[0], self.pixels.shape[1])

    @property
    def scale(self) -> float:
        """How its pixels are resized: the new length over the old."""
        return self.image_size / min(self.size) if self.image_size and self.size else 1.0


def depends_on_image(settings: Any, resized: bool) -> bool:
    """Whether the settings of a task, files read, have something that is another for each image.

    Args:
      resized: whether kernels are resized with the images.
    """
    kinds = PairedFiles | MaskPicture | KernelFile if resized else PairedFiles | MaskPicture
    return any(isinstance(v, kinds) for v in values(settings).values())


def settings_of(task: Task, settings: Any, source: Source, tell: bool = True) -> tuple[Any, list[str]]:
    """The settings of a task for one image: arrays in place of files; and, to `tell`, what people should know of them.

    With --measured and --image_size, a photograph that is resized takes its mask, its kernel and the deviation of its
    blur with it. Of clean images these are those of the resized image, but a mask of the file's own size is resized.

    Raises:
      InputError: if a file is missing, cannot be read, or does not fit.
    """
    found, remarks = {}, []
    for name, value in values(settings).items():
        if isinstance(value, PairedFiles):
            value = value.of(source.name, source.path)
        if isinstance(value, MaskPicture):
            value, remark = _seen(task, settings, value, source, tell)
        elif isinstance(value, KernelFile):
            value, remark = _kernel(value, source)
        elif name == "kernel_std" and value is not None and source.measured and source.scale != 1:
            value, remark = value * source.scale, f"--kernel_std={value:g} is of the files, and is resized with them"
        else:
            continue
        found[name] = value
        remarks += [remark] if remark else []
    return dataclasses.replace(settings, **found) if found else settings, remarks


def pairs_of(settings: Any, source: Source) -> dict[str, pathlib.Path]:
    """The files of folders of masks or kernels that belong to an image, by the setting, as far as they are there."""
    found = {}
    for name, value in values(settings).items():
        if isinstance(value, PairedFiles):
            with contextlib.suppress(InputError):
                found[name] = value.find(source.name, source.path)
    return found


def weighed(measurement: np.ndarray, operator: Operator) -> np.ndarray:
    """A photograph as the measurement of a soft mask: y = seen x, so that each pixel counts as much as it is seen."""
    last = parts(operator)[-1]
    if not isinstance(last, Mask):
        return measurement
    seen = np.asarray(last.seen)
    if not ((seen > 0) & (seen < 1)).any():
        return measurement
    return np.asarray(last.restrict(jnp.asarray(measurement))) * seen


def without_own(
    files: list[pathlib.Path], settings: Any, root: pathlib.Path, named: Iterable[str] = ()
) -> list[pathlib.Path]:
    """The files of a folder, less what the job itself takes from there: masks, kernels, weights, a stored operator.

    Of a folder of masks or kernels that holds the images too, those are left out that belong to another image.

    Args:
      files: of the folder root. settings: of the task, files read. named: paths of what else it takes.

    Raises:
      InputError: if two pictures there may each belong to the other.
    """
    if not root.is_dir():
        return files
    found = [v for v in values(settings).values() if isinstance(v, PairedFiles | MaskPicture | KernelFile)]
    paired = [v for v in found if isinstance(v, PairedFiles)]
    own = [v.folder if isinstance(v, PairedFiles) else pathlib.Path(v.path) for v in found]
    own = {path.resolve() for path in (*own, *map(pathlib.Path, named))}
    around = {root.resolve(), *root.resolve().parents}
    left = [f for f in files if not {place := f.resolve(), *place.parents} & (own - around)]
    for folder in paired:
        if folder.folder.resolve() in around:
            left = _without_pairs(left, folder, root)
    return left


def _without_pairs(files: list[pathlib.Path], paired: PairedFiles, root: pathlib.Path) -> list[pathlib.Path]:
    """Of a picture and an array that may belong to each other the array belongs to the picture."""
    owner: dict[pathlib.Path, pathlib.Path] = {}
    for file in sorted(files, key=measurements.is_array):
        try:
            found = paired.find(file.relative_to(root), file).resolve()
        except InputError:  # none, which is said when the image is read
            continue
        if owner.get(file.resolve()) != found:
            owner[found] = file.resolve()
        elif not measurements.is_array(file):
            both = f"{found.name} and {file.name} of {root}"
            raise InputError(f"{both} may each be the {paired.kind} of the other: name one as in a_{paired.kind}.png")
    return [f for f in files if f.resolve() not in owner]


def keeps(task: Task, given: bool | None, measured: bool) -> bool:
    """Whether measured pixels are put back: as it is given, else for measured images that are hidden in places."""
    return measured and keeps_pixels(task) if given is None else given


def idle(task: Task, settings: Any) -> dict[str, str]:
    """Why flags of masks have no effect, by name."""
    found = {} if getattr(settings, "mask", None) is not None else {"mask_means": "without --mask"}
    if not keeps_pixels(task):
        found["keep_known"] = f"with --task={task.name}, whose measurement has no pixels of the image itself"
    return found


def _seen(task: Task, settings: Any, mask: MaskPicture, source: Source, tell: bool) -> tuple[np.ndarray, str]:
    """(H, W), one where the pixel is measured and zero where it is missing."""
    hole = recognise(mask, settings.mask_means, lambda: source.pixels, source.measured)
    share = hole.share
    for where in ("", " within the centre square"):
        if share.min() > 1 - 1 / 255:
            white = " (white everywhere)" if mask.levels.grey.min() > 0.5 else ""
            raise mask.refuse(f"is missing everywhere{where}{white}, so nothing is known")
        if share.max() < 1 / 255:
            black = " (black everywhere)" if mask.levels.grey.max() < 0.5 else ""
            raise mask.refuse(f"has nothing missing{where}{black}, so there is nothing to fill")
        if where or not source.image_size or source.size is None:
            break
        share = _resized(task, settings, share, source)
    return 1 - share, _told(mask, hole, source) if tell else ""


def _told(mask: MaskPicture, hole: Hole, source: Source) -> str:
    """How a hole was found, and whether it lies on that of a measured photograph."""
    remarks = [hole.remark] if hole.remark else []
    picture = source.pixels if source.measured else None
    if picture is not None and (moved := misplaced(hole.share >= 0.5, picture)):
        remarks.append(f"the mask {mask.path} may be misplaced: it would fit what is of one colour if it were {moved}")
    return "; ".join(remarks)


def _resized(task: Task, settings: Any, share: np.ndarray, source: Source) -> np.ndarray:
    """A mask of the photograph's size is cut and resized as the photograph is; others stay."""
    assert source.size is not None
    assert source.image_size is not None
    square = (source.image_size, source.image_size)
    sizes = {source.size: square}
    if source.measured:
        sizes[task.image_of(source.size, settings)] = task.image_of(square, settings)
    if share.shape not in sizes or share.shape == sizes[share.shape]:
        return share
    rows, columns = sizes[share.shape]
    image = Image.fromarray(share.astype(np.float32))
    box = centre_box(image)
    area = np.clip(np.asarray(image.resize((columns, rows), Image.Resampling.BOX, box), np.float64), 0, 1)
    hard = ((share == 0) | (share == 1)).all()
    return (area > TOUCHED).astype(np.float64) if hard else area


def _kernel(kernel: KernelFile, source: Source) -> tuple[KernelFile, str]:
    if not source.measured or source.scale == 1:
        return kernel, kernel.remark
    values = scaled_kernel(np.asarray(kernel), source.scale)
    before, after = ("x".join(map(str, a.shape)) for a in (kernel.values, values))
    remark = f"the kernel {kernel.path} is of the files, and is resized with them: {before} to {after}"
    return KernelFile(kernel.path, values), f"{kernel.remark}; {remark}" if kernel.remark else remark
