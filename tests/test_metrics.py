"""Image quality against its definition."""

import math

import numpy as np
import pytest

from cvsa_jax import metrics


def test_psnr_is_its_definition_on_bytes():
    generator = np.random.default_rng(0)
    a, b = (generator.integers(0, 256, (12, 13, 3)) for _ in range(2))
    expected = 10 * math.log10(255**2 / np.mean((a - b) ** 2.0))
    assert metrics.psnr(a / 127.5 - 1, b / 127.5 - 1) == pytest.approx(expected, rel=1e-5)
    assert metrics.psnr(a / 127.5 - 1, a / 127.5 - 1) == math.inf


def test_psnr_is_of_the_written_file():
    """Values beyond the range are judged as they are saved."""
    white = np.ones((12, 12, 1))
    assert metrics.psnr(white, 3 * white) == math.inf


def test_ssim(photos):
    image = photos[0]
    noisy = image + 0.1 * np.random.default_rng(0).normal(size=image.shape)
    worse = image + 0.4 * np.random.default_rng(0).normal(size=image.shape)
    assert metrics.ssim(image, image) == pytest.approx(1)
    assert 0 < metrics.ssim(image, worse) < metrics.ssim(image, noisy) < 1
    assert metrics.ssim(image, noisy) == pytest.approx(metrics.ssim(noisy, image), abs=1e-5)
    assert math.isnan(metrics.ssim(image[:8], image[:8]))


def test_ssim_of_flat_images_is_the_luminance_term():
    a, b, c1 = 102 / 255, 153 / 255, 0.01**2
    expected = (2 * a * b + c1) / (a**2 + b**2 + c1)
    flat = lambda value: np.full((16, 16, 1), 2 * value - 1)  # noqa: E731
    assert metrics.ssim(flat(a), flat(b)) == pytest.approx(expected, rel=1e-3)


def test_kernel_error_forgets_scale_and_shift():
    generator = np.random.default_rng(0)
    kernel = np.zeros((9, 9))
    kernel[3:6, 3:6] = generator.uniform(0.2, 1, (3, 3))
    moved = np.roll(kernel, (1, -2), (0, 1))
    assert metrics.kernel_mse(kernel, 7 * moved) == pytest.approx(0, abs=1e-12)
    assert metrics.kernel_mse(kernel[2:7, 2:7], kernel) == pytest.approx(0, abs=1e-12)
    point = np.zeros((9, 9))
    point[4, 4] = 1
    other = kernel.copy()
    other[4, 4] = 0.0
    expected = min(
        np.sum((np.roll(point, (i, j), (0, 1)) - other / other.max()) ** 2) for i in (-1, 0, 1) for j in (-1, 0, 1)
    ) / 81  # fmt: skip
    assert metrics.kernel_mse(other, point) == pytest.approx(expected)
    assert metrics.kernel_mse(point, np.zeros((9, 9))) == pytest.approx(1 / 81)  # nothing found is no way out
