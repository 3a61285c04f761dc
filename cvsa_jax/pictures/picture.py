"""A picture that was read, and what goes with it to the picture that is made of it."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from cvsa_jax.pictures.levels import to_bytes, to_float

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # Pillow's own


class Carried(NamedTuple):
    """What a restored picture has of the file that it came from.

    depth: bits of a value of the file. alpha: (H, W) in [0, 1], or None. exif: its bytes, upright, or None.
    icc: the profile of its colours as they were read, or None. dpi: pixels an inch, across and down, or None.
    """

    depth: int = 8
    alpha: np.ndarray | None = None
    exif: bytes | None = None
    icc: bytes | None = None
    dpi: tuple[float, float] | None = None


class Picture(NamedTuple):
    """A picture in sRGB or grey, turned upright.

    levels: (H, W, C), uint8 of a file of 8 bits, else float32 in [-1, 1]. carried: what goes with it.
    notes: what was not as it should be, in words.
    """

    levels: np.ndarray
    carried: Carried
    notes: tuple[str, ...] = ()

    @property
    def pixels(self) -> np.ndarray:
        """Float32 in [-1, 1], (H, W, C), at full depth."""
        return to_float(self.levels) if self.levels.dtype == np.uint8 else self.levels

    @property
    def alpha(self) -> np.ndarray | None:
        """The opacity, (H, W) in [0, 1]; None of an opaque picture."""
        return self.carried.alpha

    @property
    def depth(self) -> int:
        """Bits of a value of the file."""
        return self.carried.depth

    @property
    def image(self) -> Image.Image:
        """With 8 bits, L or RGB."""
        levels = self.levels if self.levels.dtype == np.uint8 else to_bytes(self.levels)
        return Image.fromarray(levels[..., 0] if levels.shape[-1] == 1 else levels)

    def grey(self) -> "Picture":
        """Without its colours."""
        if self.levels.shape[-1] == 1:
            return self
        if self.levels.dtype == np.uint8:
            return self._replace(levels=np.asarray(self.image.convert("L"))[..., None])
        return self._replace(levels=(self.levels @ LUMA)[..., None])

    def square(self, size: int) -> "Picture":
        """The centre square, resized to size x size with a Lanczos filter."""
        if self.levels.dtype == np.uint8:
            levels = np.asarray(centre_square(self.image, size))
            levels = levels[..., None] if levels.ndim == 2 else levels
        else:
            planes = [_square_plane(plane, size) for plane in np.moveaxis(self.levels, -1, 0)]
            levels = np.stack(planes, -1)
        if self.alpha is None:
            return self._replace(levels=levels)
        alpha = _square_plane(self.alpha, size)
        return self._replace(levels=levels, carried=self.carried._replace(alpha=alpha))


def centre_square(image: Image.Image, size: int) -> Image.Image:
    """The centre square, resized to size x size with a Lanczos filter."""
    return image.resize((size, size), Image.Resampling.LANCZOS, centre_box(image))


def centre_box(image: Image.Image) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the centre square."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return left, top, left + side, top + side


def _square_plane(plane: np.ndarray, size: int) -> np.ndarray:
    """The same of one channel of floats, which stays in its range: a Lanczos filter overshoots at edges."""
    small = centre_square(Image.fromarray(np.ascontiguousarray(plane, np.float32)), size)
    return np.clip(np.asarray(small), np.nanmin(plane), np.nanmax(plane))


def resized_alpha(alpha: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """An opacity (H, W) at the size of the picture that it goes with, bicubically."""
    if alpha.shape == shape:
        return alpha
    large = Image.fromarray(alpha.astype(np.float32)).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(large), 0, 1)
