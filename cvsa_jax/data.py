"""Images by background threads: the training pipeline, and a job's. The only module that imports grain."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from PIL import Image

from cvsa_jax.images import as_channels, centre_square, open_image, to_float
from cvsa_jax.operators import kernels
from cvsa_jax.types import InputError

TRIES = 20


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


def readable(files: list) -> list:
    """The files that can be read as images; the others are reported.

    Raises:
      InputError: what is wrong with the first, if none can be read.
    """
    found, errors = [], []
    for file in files:
        try:
            open_image(file)
            found.append(file)
        except InputError as error:
            errors.append(error)
    if errors and not found:
        raise errors[0]
    for error in errors:
        print(f"skipped: {error}", file=sys.stderr)
    return found


def training_batches(files: list, image_size: int, channels: int, batch_size: int, seed: int):
    """An endless, seeded, resumable stream of float32 batches (B, H, W, C) in [-1, 1].

    Its iterator has `get_state()` and `set_state()`: the data position in a checkpoint. In place of a file that cannot
    be read, which is reported once, another one is drawn; an error is raised if TRIES in a row cannot be read.
    """
    reported = set()

    def opened(path, generator):
        for _ in range(TRIES):
            try:
                return open_image(path)
            except InputError as error:
                if path not in reported:
                    reported.add(path)
                    print(f"skipped: {error}", file=sys.stderr)
                path = files[int(generator.integers(len(files)))]
        return open_image(path)

    def load(path, generator):
        return to_float(random_square(as_channels(opened(path, generator), channels), image_size, generator))

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


@contextlib.contextmanager
def prefetched(items: Sequence, function: Callable, ahead: int, threads: int = 2) -> Iterator[Iterator[Any]]:
    """An iterator of function(item), in order, which threads compute before they are asked for.

    When the context ends, by whatever, no thread is in `function` any more, and none enters it again.

    Args:
      items: what is read. function: of one; what it raises ends the iterator, and what gives None is left out.
      ahead: how many results at most wait to be asked for. threads: that read, as far as so many may wait.
    """
    threads = min(threads, ahead)
    ended, busy = threading.Event(), threading.Semaphore(threads)

    def read(item):
        with busy:
            return None if ended.is_set() else function(item)

    if not items:
        yield iter(())
        return
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead)
    iterator = iter(grain.MapDataset.source(items).map(read).to_iter_dataset(options))
    try:
        yield iterator
    finally:
        ended.set()
        iterator.close()
        for _ in range(threads):  # all of them: then nobody reads
            busy.acquire()
        busy.release(threads)
