"""Pictures of results: grids of images, panels of curves."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

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


class Curve(NamedTuple):
    """Points of one kind: y over x; where x are names, they stand on the vertical axis and y on the horizontal one.

    style: of matplotlib, a marker and a line.
    """

    label: str
    x: Sequence[float] | Sequence[str]
    y: Sequence[float]
    style: str = "o-"


class Panel(NamedTuple):
    """One plot.

    x_label, y_label: with their units. logarithmic: the axes that are, among "xy". mark: a value at which a line stands
    across the axis of y. doubling: whether the marks of x are its values, powers of two. from_zero: whether y begins
    at 0.
    """

    title: str
    x_label: str
    y_label: str
    curves: Sequence[Curve]
    logarithmic: str = ""
    mark: float | None = None
    doubling: bool = False
    from_zero: bool = False


def save_panels(path: pathlib.Path, panels: Sequence[Panel], width: float = 3.8, columns: int = 3) -> None:
    """Write some plots beside each other as a PNG, at most so many in a row of `width` inches each."""
    import matplotlib  # here, since hardly a program needs it, and it takes long to load

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    height = 0.21 * max((len(c.x) for p in panels for c in p.curves if isinstance(c.x[0], str)), default=0)
    canvas, axes = pyplot.subplots(rows, columns, figsize=(width * columns, max(3.2, 1 + height) * rows), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.remove()
    for axis, panel in zip(axes.flat, panels, strict=False):
        _draw(axis, panel)
    canvas.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=110)
    pyplot.close(canvas)


def _draw(axis, panel: Panel) -> None:
    from matplotlib import ticker

    named = isinstance(panel.curves[0].x[0], str)
    for curve in panel.curves:
        axis.plot(*((curve.y, curve.x) if named else (curve.x, curve.y)), curve.style, label=curve.label, markersize=5)
    if named:
        axis.invert_yaxis()  # the first name on top
    if "x" in panel.logarithmic:
        axis.set_xscale("log", base=2 if panel.doubling else 10)
    if "y" in panel.logarithmic:
        axis.set_yscale("log")
    if "x" in panel.logarithmic and not panel.doubling:
        axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axis.xaxis.set_minor_formatter(ticker.NullFormatter())
    if panel.doubling:
        places = sorted({float(x) for curve in panel.curves for x in curve.x})
        axis.set_xticks(places, [f"{x:g}" for x in places])
        axis.minorticks_off()
    if panel.mark is not None:
        (axis.axvline if named else axis.axhline)(panel.mark, color="black", linewidth=0.8, linestyle=":")
    if panel.from_zero:
        axis.set_ylim(bottom=0)
    axis.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    axis.grid(alpha=0.3)
    if len(panel.curves) > 1:
        axis.legend(fontsize=8)
