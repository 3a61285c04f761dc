"""How motion-blur kernels are drawn: the path of a shaken camera, rendered as a line."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

FINE_SIZE = 61


def camera_path(generator: np.random.Generator, intensity: float, diagonal: float) -> np.ndarray:
    """A random path as complex positions, centred on its mean.

    Steps of length beta(1, 30) (1.1 - intensity) diagonal turn by triangular angles up to
    a maximum drawn from U(0, intensity pi); the sense of turning flips with probability
    beta(2, 20). It ends at a length of .75 diagonal (U + intensity^2 U').

    References: the generator of the DPS and BlindDPS papers (github LeviBorodenko/motionblur).
    """
    longest = 0.75 * diagonal * (generator.uniform() + intensity**2 * generator.uniform())
    lengths = []
    while sum(lengths) < longest:
        lengths.append(generator.beta(1, 30) * (1.1 - intensity) * diagonal)
    lengths = np.array(lengths or [0.0])
    largest_turn = generator.uniform(0, intensity * np.pi)
    flip = generator.beta(2, 20)
    turns = generator.triangular(0, largest_turn / 2, max(largest_turn, 1e-9), len(lengths))
    signs = np.cumprod(np.where(generator.uniform(size=len(lengths)) < flip, -1, 1))
    headings = generator.uniform(0, 2 * np.pi) + np.cumsum(signs * turns)
    path = np.concatenate([[0], np.cumsum(lengths * np.exp(1j * headings))])
    return path - path.mean()


def motion_kernel(generator: np.random.Generator, size: int, intensity: float) -> np.ndarray:
    """A motion-blur kernel (size, size), non-negative, sum 1, its centre of mass in the middle.

    The path is drawn on a grid of twice the paper's 61 pixels (or twice `size`, if larger)
    and reduced, so that a kernel for a small image is a small picture of one for a large.

    Args:
      generator: source of randomness.
      size: odd, at least 3.
      intensity: in [0, 1], 0 straight and 1 shaky.

    Raises:
      ValueError: if size or intensity is out of range.
    """
    if size < 3 or size % 2 == 0:
        raise ValueError(f"the kernel size must be odd and at least 3, got {size}")
    if not 0 <= intensity <= 1:
        raise ValueError(f"the intensity must be in [0, 1], got {intensity}")
    fine = 2 * max(size, FINE_SIZE)
    diagonal = fine * 2**0.5
    path = camera_path(generator, intensity, diagonal) + (fine - 1) / 2 * (1 + 1j)
    canvas = Image.new("L", (fine, fine))
    points = [(z.real, z.imag) for z in path]
    ImageDraw.Draw(canvas).line(points, 255, max(1, round(diagonal / 150)), "curve")
    canvas = canvas.filter(ImageFilter.GaussianBlur(0.01 * diagonal))
    canvas = canvas.resize((size, size), Image.Resampling.LANCZOS)
    kernel = np.asarray(canvas, np.float64)
    if kernel.sum() == 0:  # a path that left the canvas or never moved
        kernel[size // 2, size // 2] = 1
    return _centre(kernel / kernel.sum())


def _centre(kernel: np.ndarray) -> np.ndarray:
    """Shift by whole pixels so that the centre of mass is nearest the middle; nothing wraps."""
    middle = len(kernel) // 2
    index = np.arange(len(kernel))
    down = middle - round(float((kernel.sum(1) * index).sum()))
    right = middle - round(float((kernel.sum(0) * index).sum()))
    moved = np.zeros_like(kernel)
    source = kernel[max(0, -down) : len(kernel) - max(0, down), max(0, -right) : len(kernel) - max(0, right)]
    moved[max(0, down) : max(0, down) + source.shape[0], max(0, right) : max(0, right) + source.shape[1]] = source
    return moved / moved.sum()
