"""Images on disk: reading, writing, and the training pipeline. The only module that imports grain."""

import pathlib

import grain
import numpy as np
from PIL import Image

from cvsa_jax.operators import kernels

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


class InputError(ValueError):
    """A problem with what the user gave; its message is one line meant for them."""


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


def open_image(path: pathlib.Path) -> Image.Image:
    """An image file as 8-bit RGB, or grey if it is stored so, turned upright by its EXIF tag.

    Raises:
      InputError: if it cannot be read as an image.
    """
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(0x0112, 1)
            turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270, 8: Image.Transpose.ROTATE_90}
            if orientation in turns:
                image = image.transpose(turns[orientation])
            if image.mode.startswith("I;16"):
                return Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
            return image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read {path} as an image: {error}") from error


def as_channels(image: Image.Image, channels: int) -> Image.Image:
    """As RGB (3) or grey (1)."""
    return image.convert("RGB" if channels == 3 else "L")


def to_float(image: Image.Image) -> np.ndarray:
    """8-bit pixels to float32 in [-1, 1], shape (H, W, C)."""
    array = np.asarray(image, np.float32) / 127.5 - 1
    return array[..., None] if array.ndim == 2 else array


def read_image(path: pathlib.Path) -> np.ndarray:
    """An image file as (H, W, C) in [-1, 1]; raises as `open_image`."""
    return to_float(open_image(path))


def to_bytes(image: np.ndarray) -> np.ndarray:
    """[-1, 1] to 8-bit, clipped and rounded: the values are never stretched."""
    return np.round((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)


def save_image(path: pathlib.Path, image: np.ndarray) -> None:
    """Write (H, W, 3) or (H, W, 1) in [-1, 1] as a PNG, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = to_bytes(np.asarray(image))
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """The centre square, resized to size x size with a Lanczos filter."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.resize((size, size), Image.Resampling.LANCZOS, (left, top, left + side, top + side))


def random_square(image: Image.Image, size: int, generator: np.random.Generator) -> Image.Image:
    """A training view: half the time the whole centre square, else a random square.

    The random one has a side between `size` (or the whole image, if that is smaller)
    and the whole image, so the network sees objects at their full range of scales.
    Either is flipped left to right with probability one half.
    """
    side = min(image.size)
    if generator.random() < 0.5:
        view = centre_square(image, size)
    else:
        crop = int(generator.integers(min(size, side), side + 1))
        left = int(generator.integers(0, image.width - crop + 1))
        top = int(generator.integers(0, image.height - crop + 1))
        view = image.resize((size, size), Image.Resampling.LANCZOS, (left, top, left + crop, top + crop))
    flip = generator.random() < 0.5
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else view


def split_validation(files: list, count: int, seed: int = 0) -> tuple[list, list]:
    """(training, validation): `count` files held out, the choice fixed by the seed."""
    if count >= len(files):
        raise InputError(f"{count} validation images asked for, but there are {len(files)} in all")
    order = np.random.default_rng(seed).permutation(len(files))
    return [files[i] for i in sorted(order[count:])], [files[i] for i in sorted(order[:count])]


def training_batches(files: list, image_size: int, channels: int, batch_size: int, seed: int):
    """An endless, seeded, resumable stream of float32 batches (B, H, W, C) in [-1, 1].

    Its iterator has `get_state()` and `set_state()`: the data position in a checkpoint.
    """

    def load(path, generator):
        return to_float(random_square(as_channels(open_image(path), channels), image_size, generator))

    dataset = grain.MapDataset.source(files).seed(seed).shuffle().repeat(None)
    dataset = dataset.random_map(load).batch(batch_size, drop_remainder=True)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)))


def kernel_batches(image_size: int, batch_size: int, seed: int):
    """The same kind of stream of blur kernels as images, drawn as they are needed; no files."""

    def draw(_, generator):
        kernel = kernels.draw_kernel(generator, image_size - 1)
        return kernels.kernel_to_image(kernel, image_size).astype(np.float32)

    dataset = grain.MapDataset.range(1 << 40).seed(seed)
    dataset = dataset.random_map(draw).batch(batch_size, drop_remainder=True)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=8)))


def draw_kernels(count: int, image_size: int, seed: int) -> np.ndarray:
    """Kernels as images, (count, size, size, 1) in [-1, 1], apart from those of `kernel_batches`."""
    drawn = kernels.draw_kernels(np.random.default_rng([seed, 2**31]), count, image_size - 1)
    return np.stack([kernels.kernel_to_image(k, image_size) for k in drawn]).astype(np.float32)


def load_squares(files: list, image_size: int, channels: int) -> np.ndarray:
    """The centre squares of some files as one array (N, size, size, C) in [-1, 1]."""
    squares = (centre_square(as_channels(open_image(f), channels), image_size) for f in files)
    return np.stack([to_float(s) for s in squares])
