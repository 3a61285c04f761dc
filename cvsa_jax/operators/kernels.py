"""How blur kernels are drawn (the path of a shaken camera as a line; Gaussians), and kernels as images."""

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

FINE_SIZE = 61
FLOOR = 0.03
FAMILIES = ("motion", "gaussian")


def camera_path(generator: np.random.Generator, intensity: float, diagonal: float) -> NDArray[np.complex128]:
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
    return centred(kernel / kernel.sum())


def centred(kernel: np.ndarray) -> np.ndarray:
    """Shifted by whole pixels so that the centre of mass is nearest the middle, sum 1; nothing wraps."""
    middle = len(kernel) // 2
    index = np.arange(len(kernel))
    down = middle - round(float((kernel.sum(1) * index).sum() / kernel.sum()))
    right = middle - round(float((kernel.sum(0) * index).sum() / kernel.sum()))
    moved = np.zeros_like(kernel)
    source = kernel[max(0, -down) : len(kernel) - max(0, down), max(0, -right) : len(kernel) - max(0, right)]
    moved[max(0, down) : max(0, down) + source.shape[0], max(0, right) : max(0, right) + source.shape[1]] = source
    return moved / moved.sum()


def gaussian_kernel(size: int, std: float, std_across: float | None = None, angle: float = 0.0) -> np.ndarray:
    """A Gaussian (size, size), sum 1, of deviation `std` along `angle` (radians) and `std_across` across it.

    Raises:
      ValueError: if a deviation is not positive.
    """
    across = std if std_across is None else std_across
    if not (std > 0 and across > 0):
        raise ValueError(f"the deviations must be positive, got {std} and {across}")
    row, column = np.mgrid[:size, :size] - (size - 1) / 2
    along = np.cos(angle) * column + np.sin(angle) * row
    beside = np.cos(angle) * row - np.sin(angle) * column
    kernel = np.exp(-0.5 * ((along / std) ** 2 + (beside / across) ** 2))
    return kernel / kernel.sum()


def draw_kernel(generator: np.random.Generator, size: int, family: str | None = None) -> np.ndarray:
    """A kernel (size, size) as a prior over kernels should know them.

    Motion kernels of intensity U(0, 1), and Gaussians whose deviation is uniform in the logarithm
    over [.015, .15] of the side, one in two of these with another one across.

    Args:
      family: 'motion' or 'gaussian', by default either at even odds.

    Raises:
      ValueError: on another family.
    """
    if family not in (None, *FAMILIES):
        raise ValueError(f"a family of kernels is one of {', '.join(FAMILIES)}, got {family!r}")
    if family == "motion" or (family is None and generator.random() < 0.5):
        return motion_kernel(generator, size, generator.uniform())
    std, across = size * np.exp(generator.uniform(np.log(0.015), np.log(0.15), 2))
    return gaussian_kernel(size, std, across if generator.random() < 0.5 else None, generator.uniform(0, np.pi))


def draw_kernels(generator: np.random.Generator, count: int, size: int, family: str | None = None) -> np.ndarray:
    """`count` of them, (count, size, size)."""
    return np.stack([draw_kernel(generator, size, family) for _ in range(count)])


def default_kernel_size(side: int) -> int:
    """61 of 256 pixels, as an odd number of at least 3."""
    return max(3, 2 * int(side * 61 / 256 / 2) + 1)


def kernel_to_image(kernel: np.ndarray, side: int) -> np.ndarray:
    """A kernel as the image that a kernel prior knows: (side, side, 1), 2 k / max k - 1.

    Its middle is at pixel (side - 1) // 2; what is beyond it is -1, weight zero.

    Raises:
      ValueError: if the kernel is larger than that.
    """
    middle = (side - 1) // 2
    top, left = (middle - n // 2 for n in kernel.shape)
    if min(top, left) < 0 or top + kernel.shape[0] > side or left + kernel.shape[1] > side:
        raise ValueError(f"a kernel of {kernel.shape[0]}x{kernel.shape[1]} does not fit an image of side {side}")
    image = np.full((side, side, 1), -1.0)
    image[top : top + kernel.shape[0], left : left + kernel.shape[1], 0] += 2 * kernel / kernel.max()
    return image


def image_to_kernel(image: jax.Array) -> jax.Array:
    """The kernel that an image (side, side, 1) stands for: max(0, (image + 1)/2 - FLOOR), scaled to sum 1.

    (size, size) with the largest odd size that fits, the middle as in `kernel_to_image`. Without the
    floor, errors of a hundredth all over a prior's background would be a third of the kernel's sum.
    """
    size = image.shape[0] - (image.shape[0] + 1) % 2
    weights = jnp.maximum((image[:size, :size, 0] + 1) / 2 - FLOOR, 0.0)
    return weights / jnp.maximum(weights.sum(), 1e-3)


def weights_to_image(weights: jax.Array) -> jax.Array:
    """The image (side, side, 1) that stands for weights >= 0 (side, side): `image_to_kernel` scales them to sum 1."""
    return 2 * (weights[..., None] + FLOOR) - 1
