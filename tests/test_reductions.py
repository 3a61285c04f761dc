"""Small images as Pillow, OpenCV, MATLAB and NumPy make them."""

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from cvsa_jax import make_operator
from cvsa_jax.operators import REDUCTIONS, reduction
from cvsa_jax.operators.reductions import sampling_matrix
from cvsa_jax.operators.separable import bicubic_matrix

PICTURE = np.random.default_rng(0).uniform(-1, 1, (24, 40, 1)).astype(np.float32)
PILLOW = {
    "area": Image.Resampling.BOX, "bicubic_pillow": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS, "nearest": Image.Resampling.NEAREST,
}  # fmt: skip


def reduced(image, factor, method):
    return np.asarray(reduction(*image.shape[:2], factor, method)(image))[..., 0]


def pillow(image, factor, method):
    height, width = (-(-n // factor) for n in image.shape[:2])
    return np.asarray(Image.fromarray(image[..., 0]).resize((width, height), PILLOW[method]))


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("method", PILLOW)
def test_reduction_is_pillows(method, factor):
    np.testing.assert_allclose(reduced(PICTURE, factor, method), pillow(PICTURE, factor, method), atol=1e-5)


@pytest.mark.parametrize("method", ["bicubic_pillow", "bilinear", "lanczos", "nearest"])
def test_and_of_sides_that_the_factor_does_not_divide(method):
    odd = PICTURE[:23, :37]
    np.testing.assert_allclose(reduced(odd, 4, method), pillow(odd, 4, method), atol=1e-5)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_opencvs_conventions(factor):
    """Nearest takes the first pixel; linear and area those around the middle; area all of the block."""
    np.testing.assert_array_equal(reduced(PICTURE, factor, "nearest_opencv"), PICTURE[::factor, ::factor, 0])
    blocks = PICTURE.reshape(24 // factor, factor, 40 // factor, factor)
    np.testing.assert_allclose(reduced(PICTURE, factor, "area"), blocks.mean((1, 3)), atol=1e-6)
    middle = blocks[:, factor // 2 - 1 : factor // 2 + 1][..., factor // 2 - 1 : factor // 2 + 1]
    np.testing.assert_allclose(reduced(PICTURE, factor, "bilinear_opencv"), middle.mean((1, 3)), atol=1e-6)


def test_opencvs_cubic_repeats_the_border():
    """Halfway between two pixels a = -3/4 weighs its four neighbours by -3/32, 19/32, 19/32, -3/32."""
    weights = np.array([-3, 19, 19, -3]) / 32
    wide = PICTURE[..., 0].astype(float)
    for axis in (0, 1):
        wide = scipy.ndimage.correlate1d(wide, weights, axis, mode="nearest", origin=-1)
    np.testing.assert_allclose(reduced(PICTURE, 2, "bicubic_opencv"), wide[::2, ::2], atol=1e-5)


def test_area_weighs_pixels_that_it_covers_in_part():
    """Of five pixels in two, the middle one belongs to both by half."""
    row = reduction(5, 1, 4, "area").rows
    np.testing.assert_allclose(row, np.array([[2, 2, 1, 0, 0], [0, 0, 1, 2, 2]]) / 5, atol=1e-7)


@pytest.mark.parametrize("method", REDUCTIONS)
def test_every_method_keeps_constants_and_solves(method, float64):
    operator = make_operator("sr4", np.random.default_rng(0), 12, 10, sr_method=method)
    np.testing.assert_allclose(operator(np.full((12, 10, 1), 0.3)), 0.3, atol=1e-12)
    y = np.random.default_rng(1).normal(size=(3, 3, 1))
    solved = operator.solve_gram(y, 0.1, 2.0)
    matrix = np.kron(operator.rows, operator.columns)
    gram = 0.1 * np.eye(9) + 2.0 * matrix @ matrix.T
    np.testing.assert_allclose(gram @ np.asarray(solved).ravel(), y.ravel(), atol=1e-9)


def test_the_default_is_what_it_was(float64):
    operator = make_operator("sr2", np.random.default_rng(0), 12, 9)
    np.testing.assert_array_equal(operator.rows, bicubic_matrix(12, 2))
    np.testing.assert_array_equal(operator.columns, bicubic_matrix(9, 2))


def test_samples_are_one_pixel_each():
    np.testing.assert_array_equal(sampling_matrix(8, 4, True).argmax(1), [2, 6])
    np.testing.assert_array_equal(sampling_matrix(8, 4, False).argmax(1), [0, 4])
