"""Pictures of results: grids of images."""

import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cvsa_jax.images import to_bytes
from cvsa_jax.writing import whole

TITLE = 16


def image_grid(rows: Sequence[Sequence[np.ndarray]], scale: int = 1, gap: int = 2) -> np.ndarray:
    """Images in [-1, 1] as one 8-bit picture; smaller ones are centred in their cell.

    Args:
      rows: rows of images (H, W, 1 or 3).
      scale: whole-number magnification, by repetition, so that pixels stay visible.
      gap: white pixels between cells, after magnification.
    """
    height = max(image.shape[0] for row in rows for image in row) * scale
    width = max(image.shape[1] for row in rows for image in row) * scale
    columns = max(len(row) for row in rows)
    shape = (len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3)
    canvas = np.full(shape, 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            pixels = np.repeat(np.repeat(to_bytes(image), scale, 0), scale, 1)
            top = i * (height + gap) + (height - pixels.shape[0]) // 2
            left = j * (width + gap) + (width - pixels.shape[1]) // 2
            canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas


def magnified(image: np.ndarray, side: int) -> np.ndarray:
    """A small image by repetition, as large as fits in `side` rows, to be seen beside larger ones."""
    return np.kron(image, np.ones((max(1, side // image.shape[0]),) * 2 + (1,)))


def save_grid(
    path: pathlib.Path, rows: Sequence[Sequence[np.ndarray]], titles: Sequence[str] = (), scale: int = 1
) -> None:
    """Write `image_grid` as a PNG, with a title above each column."""
    save_blocks(path, [(titles, rows)], scale)


def save_blocks(
    path: pathlib.Path, blocks: Sequence[tuple[Sequence[str], Sequence[Sequence[np.ndarray]]]], scale: int = 1
) -> None:
    """Write several (titles, rows), one below the other, as a PNG; too long titles are set smaller, then cut."""
    grids = [(titles, image_grid(rows, scale), max(len(row) for row in rows)) for titles, rows in blocks if rows]
    heights = [grid.shape[0] + (TITLE if titles else 0) + 2 for titles, grid, _ in grids]
    canvas = Image.new("RGB", (max(grid.shape[1] for _, grid, _ in grids), sum(heights) - 2), "white")
    top = 0
    for (titles, grid, columns), height in zip(grids, heights, strict=True):
        canvas.paste(Image.fromarray(grid), (0, top + (TITLE if titles else 0)))
        width = (grid.shape[1] + 2) // columns
        for j, title in enumerate(titles):
            canvas.paste(_label(title, width - 2), (j * width, top))
        top += height
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        canvas.save(part, "PNG")


def _label(title: str, width: int) -> Image.Image:
    """A title in the largest of a few sizes in which it fits. The font that comes with Pillow has no Greek."""
    label, title = Image.new("RGB", (width, TITLE), "white"), title.replace("Π", "Pi")
    fonts = [ImageFont.load_default(size) for size in (10, 9, 8)]
    font = next((f for f in fonts if f.getlength(title) <= width - 4), fonts[-1])
    ImageDraw.Draw(label).text((2, 2), title, "black", font)
    return label
