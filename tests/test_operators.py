"""Laws that every operator obeys, over the registry, and the known values of each."""

import contextlib
import dataclasses
import io

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from PIL import Image

from cvsa_jax import images, operators, spectral
from cvsa_jax.door import check_fit
from cvsa_jax.noise import GaussianNoise
from cvsa_jax.operators import Chain, Operator, View, adjoint, as_operator, find_task, make_operator
from cvsa_jax.operators.algebra import conjugate_gradients, solve_gram
from cvsa_jax.operators.base import OPTIONAL, measured_shapes
from cvsa_jax.operators.chain import chain
from cvsa_jax.operators.registry import fits
from cvsa_jax.operators.separable import gaussian_weights
from cvsa_jax.operators.singular import singular_form
from cvsa_jax.operators.stacked import stack
from cvsa_jax.presets import ACCURACY, POSTERIOR, preset_of
from cvsa_jax.settings import values
from cvsa_jax.types import UnsuitableError

SIZES = [(32, 32, 3), (13, 18, 1)]


def draw(task: str, shape, seed: int = 0, **settings) -> Operator:
    """An operator of a task; where that takes a mask and none is given, two of three pixels are known."""
    if "mask" in values(find_task(task).settings()):
        settings = {"mask": np.arange(shape[0] * shape[1]).reshape(shape[:2]) % 3 > 0} | settings
    return make_operator(task, np.random.default_rng(seed), *shape[:2], **settings)


# The blur encoder, which needs its weights, is in test_importers.py.
EVERY = [*(task for task in operators.TASKS if task != "bkse_deblur"), "motion_deblur+sr4", "hdr+jpeg"]
LINEAR = [task for task in EVERY if find_task(task).linear]
NONLINEAR = [task for task in EVERY if not find_task(task).linear and not find_task(task).blind]
CASES = [(task, shape, {}) for task in LINEAR for shape in SIZES]
CASES += [("motion_deblur", shape, {"boundary": "circular"}) for shape in SIZES]
CASES += [("gaussian_deblur", (13, 18, 1), {"kernel": np.arange(15.0).reshape(3, 5)})]


@pytest.mark.parametrize(("task", "shape", "settings"), CASES)
def test_adjoint(task, shape, settings):
    """<H x, y> = <x, H' y> for random x and y."""
    operator = references.packed(draw(task, shape, **settings), shape)
    x = jax.random.normal(jax.random.key(0), shape)
    forward = operator(x)
    y = jax.random.normal(jax.random.key(1), forward.shape)
    left, right = jnp.vdot(forward, y), jnp.vdot(x, adjoint(operator, shape)(y))
    assert float(left) == pytest.approx(float(right), abs=1e-4 * float(jnp.linalg.norm(forward) * jnp.linalg.norm(y)))


CLOSED = [c for c in CASES if c[1][2] == 1 and c[0] != "checkout" and "+" not in c[0]]


@pytest.mark.parametrize(("task", "shape", "settings"), CLOSED)
@pytest.mark.parametrize("grey", [False, True])
def test_inner_solve(task, shape, settings, grey):
    """solve_gram is (a I + b H H')^-1, also behind a crop and an average of channels."""
    height, width, _ = shape
    operator = View(draw(task, shape, **settings), height, width, 3 if grey else 1)
    canvas = (height + 3, width + 2, 3 if grey else 1)
    iterated = isinstance(operator.operator, operators.Convolution | operators.Radon)
    operator = references.packed(operator, canvas)
    matrix = references.dense_matrix(operator, canvas)
    r = jax.random.normal(jax.random.key(0), jax.eval_shape(operator, jnp.zeros(canvas)).shape)
    for noise_variance, prior_variance in [(0.05**2, 0.01), (0.3, 0.3)]:
        exact = np.linalg.solve(
            noise_variance * np.eye(len(matrix)) + prior_variance * matrix @ matrix.T, np.asarray(r).ravel()
        )
        backward = adjoint(operator, canvas)
        found = np.asarray(solve_gram(operator, operator, backward, r, noise_variance, prior_variance)).ravel()
        # Motion blur is solved by iteration, whose error is at the image's border, and so are sums along rays.
        tolerance = 0.02 if iterated else 1e-4
        assert np.linalg.norm(found - exact) < tolerance * np.linalg.norm(exact)


def test_conjugate_gradients_serve_operators_without_a_solve():
    matrix = np.random.default_rng(0).normal(size=(5, 12)) / 4
    operator = as_operator(lambda x: jnp.asarray(matrix, jnp.float32) @ x.ravel())
    r = jnp.arange(5.0)
    found = solve_gram(operator, operator, adjoint(operator, (2, 6, 1)), r, 0.1, 0.5)
    np.testing.assert_allclose(found, np.linalg.solve(0.1 * np.eye(5) + 0.5 * matrix @ matrix.T, r), rtol=2e-3)


KINDS = {find_task(t).makes: t for t in EVERY if not find_task(t).blind}
DENSE = operators.Matrix(jnp.ones((5, 1024)))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("operator", [*KINDS.values(), "gaussian_deblur", DENSE])
def test_operators_of_short_numbers_measure_in_the_images_precision(operator, dtype):
    """Their derivatives, inner solves and singular values too."""
    shape = (32, 32, 1)
    whole = draw(operator, shape) if isinstance(operator, str) else operator
    short = lambda a: a.astype(dtype) if jnp.issubdtype(jnp.result_type(a), jnp.floating) else a  # noqa: E731
    whole = jax.tree.map(lambda a: short(jnp.asarray(a)), whole)
    y = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), measured_shapes(whole, shape))
    check_fit(y, whole, shape)
    y, h, _ = stack(y, whole, GaussianNoise(0.1))
    image = jax.ShapeDtypeStruct(shape, jnp.float32)
    assert jax.eval_shape(lambda x, w: jax.vjp(h, x)[1](w)[0], image, y).dtype == jnp.float32
    if h.offers("solve_gram"):
        assert jax.eval_shape(lambda r: h.solve_gram(r, 0.1, 0.1), y).dtype == jnp.float32
    with contextlib.suppress(UnsuitableError):
        form = jax.eval_shape(lambda x: singular_form(whole, shape).pseudo_inverse(whole(x)), image)
        assert form.dtype in (jnp.float32, jnp.complex64)


@pytest.mark.parametrize("task", NONLINEAR)
def test_gradient_of_nonlinear_operators(task, float64):
    """The derivative along a direction is the central difference, and its transpose the gradient, in float64."""
    shape = (24, 16, 3)
    operator = draw(task, shape)
    generator = np.random.default_rng(3)
    x, direction = jnp.asarray(generator.uniform(-0.9, 0.9, shape)), jnp.asarray(generator.normal(size=shape))
    if "hdr" in task:  # away from the kink, where there is no derivative
        x = jnp.where(jnp.abs(jnp.abs(2 * x) - 1) < 0.02, 0.1, x)
    h = 1e-6
    difference = (operator(x + h * direction) - operator(x - h * direction)) / (2 * h)
    value, derivative = jax.jvp(operator, (x,), (direction,))
    scale = float(jnp.linalg.norm(difference))
    assert scale > 0.1
    assert float(jnp.linalg.norm(derivative - difference)) < 1e-6 * scale
    weights = jnp.asarray(generator.normal(size=value.shape))
    (gradient,) = jax.vjp(operator, x)[1](weights)
    assert float(jnp.vdot(gradient, direction)) == pytest.approx(float(jnp.vdot(weights, difference)), rel=1e-6)


@pytest.mark.parametrize("task", EVERY)
def test_stored_operators_measure_bit_for_bit(task, tmp_path):
    operator = draw(task, (32, 32, 3))
    operators.save_operator(tmp_path / "new" / "a.npz", operator)
    again = operators.load_operator(tmp_path / "new" / "a.npz")
    assert jax.tree.structure(again) == jax.tree.structure(operator)
    x = jax.random.uniform(jax.random.key(0), (32, 32, 3), minval=-1.0)
    first, second = (operators.simulate(jax.random.key(1), h, x, 0.05) for h in (operator, again))
    np.testing.assert_array_equal(first, second)


def test_damaged_and_foreign_operator_files_are_refused(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 but no more")
    np.savez(tmp_path / "b.npz", kernel=np.ones((3, 3)))
    for name in "abc":
        with pytest.raises(ValueError, match=f"cannot read .*{name}.npz as an operator"):
            operators.load_operator(tmp_path / f"{name}.npz")


@pytest.mark.parametrize("task", EVERY)
def test_operators_are_pytrees_for_vmap(task):
    """A batch of operators gives what each gives alone."""
    drawn = [draw(task, (32, 32, 3), seed) for seed in range(3)]
    images = jax.random.uniform(jax.random.key(0), (3, 32, 32, 3))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
    together = jax.vmap(lambda h, x: h(x))(stacked, images)
    for operator, image, result in zip(drawn, images, together, strict=True):
        np.testing.assert_allclose(operator(image), result, atol=1e-5)


@pytest.mark.parametrize("task", [t for t in LINEAR if "inpaint" not in t and t != "checkout" and find_task(t).picture])
def test_flat_images_stay_flat(task):
    """Blurs and reductions keep the mean, up to the border: their weights sum to one."""
    operator = draw(task, (32, 32, 3))
    result = np.asarray(operator(jnp.full((32, 32, 3), 0.37)))
    np.testing.assert_allclose(result, 0.37, atol=1e-5)


@pytest.mark.parametrize("boundary", operators.BOUNDARIES)
def test_convolution_of_a_point_is_the_kernel(boundary):
    kernel = np.arange(1.0, 16).reshape(3, 5)
    operator = operators.convolution(kernel, boundary)
    point = np.zeros((11, 12, 1), np.float32)
    point[5, 6] = 1
    expected = np.zeros((11, 12))
    expected[4:7, 4:9] = kernel / kernel.sum()
    np.testing.assert_allclose(operator(jnp.asarray(point))[..., 0], expected, atol=1e-6)


def test_reflected_convolution_is_the_direct_sum():
    kernel = np.random.default_rng(0).uniform(size=(5, 3))
    image = np.random.default_rng(1).normal(size=(9, 8, 2))
    padded = np.pad(image, ((2, 2), (1, 1), (0, 0)), mode="reflect")
    flipped = (kernel / kernel.sum())[::-1, ::-1]
    expected = np.zeros_like(image)
    for i, j in np.ndindex(9, 8):
        expected[i, j] = np.einsum("ab,abc->c", flipped, padded[i : i + 5, j : j + 3])
    found = operators.convolution(kernel)(jnp.asarray(image, jnp.float32))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_gaussian_blur_is_the_convolution_by_a_gaussian():
    weights = gaussian_weights(0.9)
    image = jax.random.normal(jax.random.key(0), (20, 24, 3))
    blurred = operators.gaussian_blur(20, 24, 0.9)(image)
    np.testing.assert_allclose(blurred, operators.convolution(np.outer(weights, weights))(image), atol=1e-5)


@pytest.mark.parametrize("std", [0.75, 4.0])
def test_blind_gaussian_is_the_gaussian_of_any_width(std):
    """Also where the kernel reaches over both borders, so that `blur_kernel` of the separable form is None."""
    image = jax.random.normal(jax.random.key(0), (20, 24, 3))
    blind, known = (draw(task, image.shape, kernel_std=std) for task in ("blind_gaussian_deblur", "gaussian_deblur"))
    np.testing.assert_allclose(blind(image), known(image), atol=1e-5)
    assert blind.blur_kernel().shape == (2 * round(4 * std) + 1,) * 2


@pytest.mark.parametrize(("size", "factor"), [(32, 2), (32, 4), (64, 8)])
def test_bicubic_is_the_librarys_inside(size, factor):
    """Equal to jax.image.resize, which treats the border otherwise."""
    image = jax.random.normal(jax.random.key(0), (size, size, 3))
    found = operators.bicubic_downsample(size, size, factor)(image)
    expected = jax.image.resize(image, (size // factor, size // factor, 3), "cubic", antialias=True)
    np.testing.assert_allclose(found[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-5)


def test_kernel_of_a_blur_gives_the_same_blur():
    for task in ("gaussian_deblur", "motion_deblur"):
        blur = draw(task, (32, 48, 3))
        again = operators.convolution(blur.blur_kernel())
        image = jax.random.normal(jax.random.key(0), (32, 48, 3))
        np.testing.assert_allclose(again(image), blur(image), atol=1e-5)
    assert draw("sr4", (32, 32, 3)).blur_kernel() is None
    assert operators.gaussian_blur(32, 10, 2.0).blur_kernel() is None  # folded at the border


def test_masks_lose_what_they_say():
    seen = np.asarray(draw("random_inpaint", (32, 32, 3)).seen)
    assert int((seen == 0).sum()) == round(0.92 * 32 * 32)
    box = np.asarray(draw("box_inpaint", (32, 32, 3)).seen)[..., 0]
    rows, columns = np.nonzero(box == 0)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1, len(rows)) == (16, 16, 256)
    assert min(rows.min(), columns.min(), 31 - rows.max(), 31 - columns.max()) >= 2


def test_sizes_scale_with_the_image_as_the_papers_at_256():
    assert operators.default_kernel_size(256) == 61
    assert operators.default_kernel_size(64) == 15
    assert draw("motion_deblur", (256, 300, 3)).kernel.shape == (61, 61)
    assert int((np.asarray(draw("box_inpaint", (256, 256, 3)).seen) == 0).sum()) == 128 * 128
    blur = np.asarray(draw("gaussian_deblur", (256, 256, 3)).rows)[128]
    assert blur.max() / blur[129] == pytest.approx(np.exp(0.5 / 9), rel=1e-5)  # deviation 3


@pytest.mark.parametrize("intensity", [0.0, 0.5, 1.0])
def test_motion_kernels_are_centred_distributions(intensity):
    index = np.arange(-15, 16)
    for seed in range(20):
        kernel = operators.motion_kernel(np.random.default_rng(seed), 31, intensity)
        assert kernel.shape == (31, 31)
        assert kernel.min() >= 0
        assert kernel.sum() == pytest.approx(1)
        assert abs(kernel.sum(1) @ index) < 1
        assert abs(kernel.sum(0) @ index) < 1
    again = operators.motion_kernel(np.random.default_rng(19), 31, intensity)
    np.testing.assert_array_equal(kernel, again)


def test_small_motion_kernels_are_reductions_of_large_ones():
    large = operators.motion_kernel(np.random.default_rng(4), 61, 0.5)
    small = operators.motion_kernel(np.random.default_rng(4), 15, 0.5)
    spread = [
        ((np.arange(len(k)) - len(k) // 2) ** 2 @ k.sum(axis)) ** 0.5 / len(k)
        for k in (large, small)
        for axis in (0, 1)
    ]
    np.testing.assert_allclose(spread[:2], spread[2:], atol=0.03)


def test_phase_retrieval_knows_its_ambiguities():
    """The image turned, and its negative, have the same measurement; alignment undoes them and a shift."""
    image = np.random.default_rng(0).uniform(-1, 1, (20, 24, 3)).astype(np.float32)
    operator = draw("phase_retrieval", image.shape)
    y = operator(jnp.asarray(image))
    assert y.shape == (30, 36, 3)
    for other in operators.trivial_ambiguities(image):
        np.testing.assert_allclose(operator(jnp.asarray(other)), y, atol=2e-4)
        np.testing.assert_array_equal(operators.aligned(other, image), image)
    mixed = np.stack([image[..., 0], -image[::-1, ::-1, 1], np.roll(image[..., 2], (2, -3), (0, 1))], -1)
    found = operators.aligned(mixed, image)
    np.testing.assert_array_equal(found[..., :2], image[..., :2])
    np.testing.assert_array_equal(found[:-2, 3:, 2], image[:-2, 3:, 2])


def test_projections_never_grow_the_residual(photos):
    """Error reduction from any image; and the true image, measured without noise, stays where it is."""
    image = jnp.asarray(photos[2])
    operator = draw("phase_retrieval", (32, 32, 3))
    y = operator(image)
    residual = lambda x: float(jnp.linalg.norm(operator(x) - y))  # noqa: E731
    start = jnp.asarray(photos[5])
    assert residual(operator.project(start, y)) < 0.7 * residual(start)
    np.testing.assert_allclose(operator.project(image, y), image, atol=5e-3)


def test_first_guess_is_near_the_magnitudes(photos):
    """Fienup's iteration from noise: a tenth of the residual of another photograph, channels agreeing."""
    image = jnp.asarray(photos[2])
    operator = draw("phase_retrieval", (32, 32, 3))
    y = operator(image)
    guess = jax.jit(operator.first_guess)(y, jax.random.key(0))
    residual = lambda x: float(jnp.linalg.norm(operator(x) - y))  # noqa: E731
    assert guess.shape == image.shape
    assert residual(guess) < 0.1 * residual(jnp.asarray(photos[5]))
    centred = guess - guess.mean((0, 1))
    assert float(jnp.sum(centred[..., 0] * centred[..., 1])) > 0


def test_phase_retrieval_keeps_the_energy():
    """Parseval: the magnitudes' squares sum to the image's."""
    image = np.random.default_rng(0).normal(size=(16, 16, 1))
    y = np.asarray(draw("phase_retrieval", image.shape)(jnp.asarray(image, jnp.float32)), np.float64)
    assert (y**2).sum() == pytest.approx((image**2).sum(), rel=1e-3)


@pytest.mark.parametrize("quality", [10, 60, 95])
def test_quantisation_is_that_of_jpeg_files(quality, photos):
    """Against the library's encoder without chroma reduction, which rounds its pixels too."""
    picture = Image.fromarray(images.to_bytes(photos[2]))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality, subsampling=0)
    expected = np.asarray(Image.open(file), np.float64)
    found = images.to_bytes(np.asarray(operators.quantised(quality).measure(jnp.asarray(photos[2])))).astype(np.float64)
    difference = np.abs(found - expected).mean()
    assert difference < 0.15 * np.abs(np.asarray(picture, np.float64) - expected).mean() + 1.5


def test_camera_shake_averages_light():
    """Two poses without turning: the response of the mean of two moved lights; white saturates."""
    image = np.random.default_rng(0).uniform(-1, 1, (12, 14, 1))
    poses, exposure = np.array([[1.0, -2.0, 0.0], [0.0, 3.0, 0.0]]), 1.3
    found = operators.CameraShake(jnp.asarray(poses), jnp.asarray(exposure))(jnp.asarray(image, jnp.float32))
    light = ((image + 1) / 2) ** 2.2
    mean = (np.roll(light, (-1, 2), (0, 1)) + np.roll(light, (0, -3), (0, 1))) / 2 * exposure
    mean = (mean + np.sqrt(mean**2 + 0.01**2)) / 2
    seen = mean / (1 + mean**8) ** (1 / 8)
    curve = lambda l: (l + 0.01) ** (1 / 2.2)  # noqa: E731, E741
    expected = 2 * (curve(seen) - curve(0)) / (curve(1) - curve(0)) - 1
    np.testing.assert_allclose(found[2:-3, 3:-3], expected[2:-3, 3:-3], atol=1e-4)
    still = operators.CameraShake(jnp.zeros((1, 3)), jnp.asarray(4.0))
    assert float(still(jnp.ones((4, 4, 1))).max()) == pytest.approx(1.0, abs=1e-3)


def test_hands_hide_a_part_from_the_border():
    for seed in range(8):
        seen = np.asarray(operators.hand_mask(np.random.default_rng(seed), 64, 64).seen)[..., 0]
        assert 0.05 < 1 - seen.mean() < 0.3
        assert (seen[-1] == 0).any()


def test_kernels_and_their_images():
    kernel = operators.motion_kernel(np.random.default_rng(1), 15, 0.5)
    image = operators.kernel_to_image(kernel, 16)
    assert (image.min(), image.max(), image.shape) == (-1, 1, (16, 16, 1))
    for whole in (kernel, kernel[4:11, 4:11]):  # up to the floor; smaller ones in the middle
        kept = np.maximum(whole / whole.max() - 0.03, 0)
        found = operators.image_to_kernel(jnp.asarray(operators.kernel_to_image(whole, 16)))
        margin = (15 - len(whole)) // 2
        np.testing.assert_allclose(found, np.pad(kept / kept.sum(), margin), atol=1e-6)
    with pytest.raises(ValueError, match="does not fit"):
        operators.kernel_to_image(kernel, 14)


def test_masked_entries_of_a_measurement_carry_no_data():
    mask = draw("random_inpaint", (32, 32, 3))
    y = operators.simulate(jax.random.key(0), mask, jnp.ones((32, 32, 3)), 0.5)
    assert (np.asarray(y)[np.asarray(mask.seen)[..., 0] == 0] == 0).all()
    np.testing.assert_array_equal(mask.restrict(jnp.ones((32, 32, 3)))[..., :1], mask.seen)


def test_simulated_noise_has_its_deviation():
    y = operators.simulate(jax.random.key(0), operators.Identity(), jnp.zeros((64, 64, 3)), 0.2)
    assert float(y.std()) == pytest.approx(0.2, rel=0.03)


def test_simulated_noise_is_in_the_real_and_the_imaginary_part():
    """And in every array of a tuple, each drawn by itself; a float64 image gives the working precision."""
    operator = lambda x: (jnp.fft.fft2(x, axes=(0, 1)), x)  # noqa: E731
    z, y = operators.simulate(jax.random.key(0), operator, np.zeros((64, 64, 3)), 0.2)
    assert (z.dtype, y.dtype) == (jnp.complex64, jnp.float32)
    for part in (z.real, z.imag, y):
        assert float(part.std()) == pytest.approx(0.2, rel=0.03)
    correlation = np.corrcoef([np.asarray(part).ravel() for part in (z.real, z.imag, y)])
    assert np.abs(correlation - np.eye(3)).max() < 4 / (64 * 64 * 3) ** 0.5


@pytest.mark.parametrize("stds", [(0.1, 0.4), (np.full((64, 64, 3), 0.1), np.full((64, 1, 1), 0.4))])
def test_each_part_of_a_measurement_has_its_own_noise(stds):
    """As `restore` takes it; what it would refuse is refused here too."""
    operator = lambda x: {"fourier": jnp.fft.fft2(x, axes=(0, 1)), "pixels": x}  # noqa: E731
    image, noise = np.zeros((64, 64, 3)), dict(zip(("fourier", "pixels"), stds, strict=True))
    y = operators.simulate(jax.random.key(0), operator, image, noise)
    for part, std in ((y["fourier"].real, 0.1), (y["fourier"].imag, 0.1), (y["pixels"], 0.4)):
        assert float(part.std()) == pytest.approx(std, rel=0.03)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        ((0.1, 0.2, 0.3), "noise_std has 3 parts, but the measurement has 2"),
        (np.full((8, 8, 1), 0.1), "noise_std has 1 parts, but the measurement has 2"),
        ((0.1, np.ones(5)), r"noise_std of shape \(5,\) does not go with a measurement of shape \(4, 8, 1\)"),
        (-1.0, "noise_std must be positive"),
        ((0.1, -1.0), "noise_std must be positive"),
    ],
)
def test_noise_that_does_not_fit_is_not_simulated(noise, message):
    with pytest.raises(ValueError, match=message):
        operators.simulate(jax.random.key(0), lambda x: (x, x[::2]), np.zeros((8, 8, 1)), noise)


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("unblur", {}, "task must be one of"),
        ("motion_deblu", {}, "did you mean motion_deblur"),
        ("motion_deblur", {"kernel_size": 4}, "kernel_size must be odd and at least 3 pixels, got 4"),
        ("motion_deblur", {"motion_intensity": 2.0}, "motion_intensity must be at least 0 and at most 1, got 2"),
        ("motion_deblur", {"kernel": np.zeros((3, 3))}, "positive sum"),
        ("motion_deblur", {"kernel": np.ones((2, 3))}, "odd sides"),
        ("motion_deblur", {"boundary": "zero"}, "boundary must be one of reflect, circular"),
        ("gaussian_deblur", {"kernel_std": 0.0}, "kernel_std must be positive pixels, got 0.0"),
        ("box_inpaint", {"box_size": 40}, "does not fit"),
        ("random_inpaint", {"missing": 1.0}, "missing must be at least 0 and below 1, got 1"),
        ("mask_inpaint", {}, "needs a mask"),
        ("mask_inpaint", {"mask": np.ones((5, 6), bool)}, "5x6"),
        ("checkout", {"mask": np.ones((5, 6), bool)}, "5x6"),
        ("sr4+unblur", {}, "got 'unblur'"),
        ("blind_motion_deblur+sr4", {}, "cannot be combined"),
        ("phase_retrieval+jpeg", {}, "nothing can follow phase_retrieval"),
        ("jpeg", {"jpeg_quality": 0}, "jpeg_quality must be at least 1 and at most 100, got 0"),
        ("hdr", {"hdr_gain": 0.5}, "hdr_gain must be at least 1, got 0.5"),
        ("nonlinear_deblur", {"exposure": 0.0}, "exposure must be positive, got 0"),
        ("phase_retrieval", {"oversampling": -1.0}, "oversampling must be at least 0 and at most 8, got -1"),
        ("bkse_deblur", {}, "needs the published weights"),
        ("denoise", {"missing": 0.5}, "denoise has no setting missing; it has none"),
        ("sr4+hdr", {"kernel_std": 1.0}, "has no setting kernel_std; it has sr_method, hdr_gain"),
    ],
)
def test_bad_settings_are_refused(task, settings, message):
    with pytest.raises(ValueError, match=message):
        make_operator(task, np.random.default_rng(0), 32, 32, **settings)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (operators.motion_kernel, (4, 0.5), "odd and at least 3"),
        (operators.motion_kernel, (5, 2.0), "intensity"),
        (operators.random_mask, (32, 32, 1.0), "missing share"),
        (operators.box_mask, (32, 32, 30, 2), "does not fit"),
        (operators.camera_shake, (32, 32, 2.0, 1.0), "intensity"),
        (operators.camera_shake, (32, 32, 0.5, 0.0), "exposure"),
        (lambda _, std: operators.gaussian_blur(8, 8, std), (0.0,), "must be positive"),
        (lambda _, quality: operators.quantised(quality), (0,), "JPEG quality"),
        (lambda _, boundary: operators.convolution(np.ones((3, 3)), boundary), ("zero",), "boundary"),
    ],
)
def test_bad_arguments_are_refused(function, arguments, message):
    """By those who build operators without the settings, too."""
    with pytest.raises(ValueError, match=message):
        function(np.random.default_rng(0), *arguments)


# A new task is walked through all that programs need of it; so is the blur encoder, in small.
WALKED = [*operators.TASKS, "motion_deblur+sr4", "hdr+jpeg"]


def walk(task: str, weights) -> Operator:
    """The operator of a task for an image of 24x16."""
    needed = {"bkse_weights": weights} if "bkse_weights" in find_task(task).requires else {}
    return draw(task, (24, 16, 3), **needed)


@pytest.mark.parametrize("task", WALKED)
def test_every_task_is_described_in_full(task):
    """Each of its settings is known to programs, what it requires is one of them, and its presets can be made."""
    found = find_task(task)
    known = values(found.settings())
    assert [f.name for f in dataclasses.fields(found.settings)] == list(known)
    assert set(found.requires) <= set(known)
    assert found.summary
    assert set(found.drawn_by) <= {"kernel", "mask", "operator"}
    assert (found.family is not None) == found.blind
    for aim, changes in ((ACCURACY, found.accuracy), (POSTERIOR, found.posterior)):
        if changes is None:
            with pytest.raises(UnsuitableError, match="no posterior samples"):
                preset_of(task, aim)
        else:
            assert changes.items() <= preset_of(task, aim).values().items()


@pytest.mark.parametrize("task", WALKED)
def test_every_task_is_built_measured_stored_and_drawn(task, small_encoder, tmp_path):
    """Its operator is of its kind and of its size; a file of it gives the same bits; its picture is one."""
    found, operator = find_task(task), walk(task, small_encoder)
    assert fits(found, operator)
    others = (other for other in operators.TASKS.values() if not set(other.makes) & set(found.makes))
    assert not any(fits(other, operator) for other in others)
    x = jax.random.uniform(jax.random.key(0), (24, 16, 3), minval=-1.0)
    y = operators.simulate(jax.random.key(1), operator, x, 0.05)
    assert np.isfinite(y).all()
    if found.picture:
        assert y.shape == (24 // found.factor, 16 // found.factor, 3)
    operators.save_operator(tmp_path / "a.npz", operator)
    again = operators.load_operator(tmp_path / "a.npz")
    assert jax.tree.structure(again) == jax.tree.structure(operator)
    np.testing.assert_array_equal(operators.simulate(jax.random.key(1), again, x, 0.05), y)
    picture = operator.picture()
    assert picture is not None or not set(found.drawn_by) & {"kernel", "mask"}
    if picture is not None:
        assert picture.ndim == 3
        assert picture.shape[-1] == 1
        assert np.isfinite(picture).all()
        assert np.abs(picture).max() <= 1 + 1e-6
        np.testing.assert_array_equal(again.picture(), picture)


@pytest.mark.parametrize("task", WALKED)
def test_every_task_has_a_derivative(task, small_encoder, float64):
    """<H x, w> = <x, H' w> of a linear one, else <H'(x) d, w> = <d, H'(x)' w> by central differences."""
    shape = (24, 16, 3)
    measure = references.packed(walk(task, small_encoder), shape)
    operator = jax.jit(lambda x: measure(x))
    generator = np.random.default_rng(3)
    x, direction = jnp.asarray(generator.uniform(-0.9, 0.9, shape)), jnp.asarray(generator.normal(size=shape))
    value, pullback = jax.vjp(operator, x)
    w = jnp.asarray(generator.normal(size=value.shape))
    if find_task(task).linear:
        change = operator(direction)
        assert float(jnp.vdot(adjoint(operator, shape)(w), direction)) == pytest.approx(float(jnp.vdot(change, w)))
    else:
        h = 1e-7
        change = (operator(x + h * direction) - operator(x - h * direction)) / (2 * h)
    assert float(jnp.linalg.norm(change)) > 0.1
    off = float(jnp.vdot(pullback(w)[0], direction) - jnp.vdot(change, w))
    assert abs(off) < 1e-5 * float(jnp.linalg.norm(change) * jnp.linalg.norm(w))


@flax.struct.dataclass
class Everything(Operator):
    """An operator with its own form of every method, each a different function of its gain."""

    gain: jax.Array

    def __call__(self, x):
        return self.gain * x

    def restrict(self, y):
        return y.at[0].set(0.0) * self.gain

    def measure(self, x):
        return jnp.round(self.gain * x)

    def expected(self, x, std):
        return jnp.tanh(self.gain * x) + std

    def project(self, x, y):
        return x + self.gain * (y - x) / 3

    def first_guess(self, y, key):
        return self.gain * y + jax.random.normal(key, y.shape)

    def solve_gram(self, r, noise_variance, prior_variance):
        return r / (noise_variance + self.gain**2 * prior_variance)

    def near_gram(self, r, noise_variance, variances):
        return r / (noise_variance + self.gain**2 * variances)

    def blur_kernel(self):
        return np.asarray(self.gain) * np.ones((3, 5))

    def picture(self):
        return np.asarray(self.gain / 9) * np.ones((4, 3, 1))

    def reduced(self, y, noise, factor):
        return y[::factor, ::factor] / factor, Everything(self.gain / factor), noise


ALL, OTHER = Everything(jnp.asarray(2.0)), Everything(jnp.asarray(3.0))


@flax.struct.dataclass
class Plain(Operator):
    """An operator that has nothing but the defaults."""

    def __call__(self, x):
        return x


def test_operators_have_a_default_of_every_method():
    """None where there is no such thing, and `offers` tells that they are not the operator's own."""
    plain, x, key = Plain(), jnp.arange(12.0).reshape(2, 2, 3), jax.random.key(0)
    assert [name for name in OPTIONAL if plain.offers(name)] == []
    assert [name for name in OPTIONAL if ALL.offers(name)] == list(OPTIONAL)
    for found in (plain.restrict(x), plain.measure(x), plain.expected(x, jnp.float32(0.5))):
        np.testing.assert_array_equal(found, x)
    assert plain.project(x, x) is None
    assert plain.first_guess(x, key) is None
    assert plain.reduced(x, GaussianNoise(0.1), 2) is None
    assert plain.solve_gram(x, 0.1, 0.2) is None
    assert plain.near_gram(x, 0.1, x) is None
    assert plain.blur_kernel() is None
    assert plain.picture() is None


@pytest.mark.parametrize("averaged", [1, 2, 3])
def test_views_hand_on_every_method(averaged):
    """Each on the part of the canvas that is looked at."""
    view, key, std = View(ALL, 4, 5, averaged), jax.random.key(0), jnp.float32(0.5)
    x = jax.random.normal(key, (6, 7, averaged if averaged > 1 else 3))
    part = x[:4, :5].mean(-1, keepdims=True) if averaged > 1 else x[:4, :5]
    y = 3 * part[::-1]
    moved = ALL.project(part, y) - part
    # White variances: those of a mean of channels are the mean's alone.
    white = jnp.full((4, 5, averaged if averaged > 1 else 3), 0.2)
    noise = GaussianNoise(0.1)
    small, seen, _ = view.reduced(y, noise, 2)
    expected = {
        "restrict": (view.restrict(y), ALL.restrict(y)),
        "measure": (view.measure(x), ALL.measure(part)),
        "expected": (view.expected(x, std), ALL.expected(part, std)),
        "project": (view.project(x, y), x.at[:4, :5].add(moved)),
        "first_guess": (view.first_guess(y, key), ALL.first_guess(y, key)),
        "reduced": (small, ALL.reduced(y, noise, 2)[0]),
        "solve_gram": (view.solve_gram(y, 0.1, 0.2), ALL.solve_gram(y, 0.1, 0.2 / averaged)),
        "near_gram": (view.near_gram(y, 0.1, white), ALL.solve_gram(y, 0.1, 0.2 / averaged)),
        "blur_kernel": (view.blur_kernel(), ALL.blur_kernel()),
        "picture": (view.picture(), ALL.picture()),
    }
    assert set(expected) == set(OPTIONAL)
    for name, (found, wanted) in expected.items():
        np.testing.assert_allclose(found, wanted, rtol=1e-6, err_msg=name)
        assert view.offers(name)
        assert not View(Plain(), 4, 5, averaged).offers(name)
    assert seen(x).shape == small.shape  # of a part of half the side, its sides rounded up
    assert View(Plain(), 4, 5, averaged).reduced(y, noise, 2) is None
    np.testing.assert_allclose(view.crop(view.project(x, y)), ALL.project(part, y), rtol=1e-5, atol=1e-6)
    assert View(Plain(), 4, 5, averaged).project(x, y) is None


def test_chains_hand_on_every_method():
    """In their order; what has no closed form of two is not offered, and the rest only where it can be done."""
    both, key, std = Chain(ALL, OTHER), jax.random.key(0), jnp.float32(0.5)
    x = jax.random.normal(key, (4, 5, 3))
    y = 3 * x[::-1]
    last_key, first_key = jax.random.split(key)
    expected = {
        "restrict": (both.restrict(y), OTHER.restrict(y)),
        "measure": (both.measure(x), OTHER.measure(ALL.measure(x))),
        "expected": (both.expected(x, std), OTHER.expected(ALL.expected(x, std), std)),
        "project": (both.project(x, y), ALL.project(x, OTHER.project(ALL(x), y))),
        "first_guess": (both.first_guess(y, key), ALL.first_guess(OTHER.first_guess(y, last_key), first_key)),
        "picture": (both.picture()[:, [0, 2, 3, 4, 5, 7], 0], np.tile([2 / 9, 2 / 9, 0, 0, 3 / 9, 3 / 9], (4, 1))),
    }
    assert set(expected) | {"reduced", "solve_gram", "near_gram", "blur_kernel"} == set(OPTIONAL)
    for name in OPTIONAL:
        if name in expected:
            np.testing.assert_allclose(*expected[name], rtol=1e-6, err_msg=name)
        assert both.offers(name) == (name in expected), name
        for mixed in (Chain(Plain(), ALL), Chain(ALL, Plain())):
            assert mixed.offers(name) == (name in ("restrict", "measure", "expected", "picture")), name
    assert both.reduced(y, GaussianNoise(0.1), 2) is None
    assert both.solve_gram(y, 0.1, 0.2) is None
    assert both.blur_kernel() is None
    for mixed in (Chain(Plain(), ALL), Chain(ALL, Plain())):
        assert mixed.project(x, y) is None
        assert mixed.first_guess(y, key) is None
        np.testing.assert_array_equal(mixed.picture(), ALL.picture())


def test_chains_leave_out_what_does_nothing():
    """`denoise+hdr` is the clip itself; behind another operator it is the clip's own expectation that is seen."""
    clip, x, std = operators.Clip(jnp.asarray(2.0)), jnp.linspace(-1, 1, 12).reshape(2, 2, 3), jnp.float32(0.3)
    assert chain(operators.Identity(), clip) is clip
    assert chain(clip, operators.Identity()) is clip
    assert isinstance(draw("denoise+hdr", (8, 8, 3)), operators.Clip)
    assert isinstance(chain(Plain(), clip), Chain)
    np.testing.assert_array_equal(Chain(Plain(), clip).expected(x, std), clip.expected(x, std))
    assert float(jnp.abs(clip.expected(x, std) - clip(x)).max()) > 0.05


def test_a_mirrored_blurs_preconditioner_is_symmetric_and_positive():
    """Of any kernel; and the inverse itself where nothing is blurred. A circular blur mirrors nothing."""
    shape, noise = (6, 5, 1), 0.02
    variances = jnp.asarray(np.random.default_rng(0).uniform(0.1, 9.0, shape), jnp.float32)
    kernel = np.arange(9.0).reshape(3, 3)
    assert not draw("motion_deblur", shape, kernel=kernel, boundary="circular").offers("near_gram")
    blur = draw("motion_deblur", shape, kernel=kernel)
    matrix = references.dense_matrix(lambda r: blur.near_gram(r, noise, variances), shape)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-4)
    assert np.linalg.eigvalsh(matrix).min() > 0
    still = draw("motion_deblur", shape, kernel=np.pad([[1.0]], 1))
    spread = references.dense_matrix(lambda x: spectral.backward(variances * spectral.forward(x)), shape)
    found = references.dense_matrix(lambda r: still.near_gram(r, noise, variances), shape)
    np.testing.assert_allclose(found, np.linalg.inv(noise * np.eye(30) + spread), atol=1e-4)


def test_a_blurs_preconditioner_saves_iterations():
    """Of a residual as photographs' spectra have it, three with it are ten times nearer than four without."""
    side, noise = 20, 0.00125
    shape, blur = (side, side, 1), draw("motion_deblur", (side, side, 1), kernel_size=5)
    frequency = np.hypot(*np.meshgrid(np.arange(side), np.arange(side))) / (2 * side)
    frequency[0, 0] = 1 / (4 * side)
    variances = 1 / (1 / 100 * (128 * frequency) ** 2.6 + 1)  # V s^2 / (V + s^2), s = 1
    spread = references.dense_matrix(spectral.forward, shape)
    moved = references.dense_matrix(blur, shape) @ spread.T
    matrix = noise * np.eye(side**2) + moved @ np.diag(variances.ravel()) @ moved.T
    drawn = np.linalg.cholesky(matrix) @ np.random.default_rng(0).normal(size=side**2)
    exact, power, narrow = np.linalg.solve(matrix, drawn), jnp.asarray(variances, jnp.float32)[..., None], jnp.float32

    def error(precondition, count):
        apply = lambda w: (jnp.asarray(matrix, narrow) @ w.ravel()).reshape(shape)  # noqa: E731
        found = conjugate_gradients(apply, jnp.asarray(drawn.reshape(shape), narrow), precondition, count)
        change = np.ravel(found) - exact
        return change @ matrix @ change

    near = error(lambda r: blur.near_gram(r, noise, power), 3)
    assert 10 * near < error(lambda r: blur.solve_gram(r, noise, jnp.mean(power)), 4)


@pytest.mark.parametrize("averaged", [2, 3])
def test_solve_behind_an_average_of_channels(averaged, float64):
    """(a I + b H G G' H')^-1 for the mean G of any number of channels, in closed form."""
    view = View(draw("random_inpaint", (3, 4, 1), missing=0.4), 3, 4, averaged)
    canvas = (4, 5, averaged)
    matrix = references.dense_matrix(view, canvas)
    r = view.restrict(jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 1))))
    exact = np.linalg.solve(0.01 * np.eye(12) + 0.3 * matrix @ matrix.T, np.asarray(r).ravel())
    found = solve_gram(view, view, adjoint(view, canvas), r, 0.01, 0.3)
    np.testing.assert_allclose(np.asarray(found).ravel(), exact, rtol=1e-5)


def test_functions_become_operators():
    """An operator stays itself; what has an operator's methods and is none would lose them, and is refused."""
    clip, x = operators.Clip(jnp.asarray(2.0)), jnp.ones((2, 2, 1))
    assert as_operator(clip) is clip
    wrapped = as_operator(lambda x: 3 * x)
    np.testing.assert_array_equal(wrapped(x), 3 * x)
    assert not any(wrapped.offers(name) for name in OPTIONAL)
    scaled = jax.vmap(lambda h: h(x))(as_operator(jax.tree_util.Partial(jnp.multiply, jnp.array([1.0, 2.0]))))
    np.testing.assert_array_equal(scaled[:, 0, 0, 0], [1, 2])  # its arrays are leaves

    class Projected:
        def __call__(self, image):
            return image

        def project(self, image, measurement):
            return measurement

    with pytest.raises(ValueError, match=r"derive Projected from cvsa_jax.Operator, so that its project is used"):
        as_operator(Projected())
    with pytest.raises(ValueError, match="must be a function of one image, got a float"):
        as_operator(0.5)


def test_operators_of_your_own_are_stored(tmp_path):
    """By module and name, so that two classes of one name do not meet; what a file cannot hold is refused."""
    operators.save_operator(tmp_path / "a.npz", Chain(ALL, View(OTHER, 4, 5, 3)))
    again = operators.load_operator(tmp_path / "a.npz")
    assert type(again.first) is Everything
    assert again.last.averaged == 3
    np.testing.assert_array_equal(again.last.operator.gain, OTHER.gain)
    with pytest.raises(ValueError, match="cannot store"):
        operators.save_operator(tmp_path / "b.npz", as_operator(lambda x: x))


def test_tasks_of_your_own_are_registered_once(monkeypatch):
    """A task is found by name, joins others, and keeps their names and settings from being taken."""
    from cvsa_jax.operators import Task, registry
    from cvsa_jax.settings import Settings, setting

    @dataclasses.dataclass(frozen=True)
    class Gain(Settings):
        gain: float = setting(2.0, "The gain.", above=0)

    @dataclasses.dataclass(frozen=True)
    class Taken(Settings):
        missing: float = setting(0.1, "Another meaning.")

    monkeypatch.setattr(registry, "TASKS", dict(registry.TASKS))
    build = lambda generator, height, width, settings: Everything(jnp.asarray(settings.gain))  # noqa: E731
    operators.register_task(Task("everything", "all of it", build, (Everything,), Gain))
    found = make_operator("everything+sr2", np.random.default_rng(0), 8, 8, gain=4.0)
    np.testing.assert_allclose(found(jnp.ones((8, 8, 1))), 4.0, rtol=1e-5)
    with pytest.raises(ValueError, match="gain must be positive"):
        make_operator("everything", np.random.default_rng(0), 8, 8, gain=0.0)
    for name, settings, message in (
        ("hdr", Gain, "there is a task hdr already"),
        ("a+b", Gain, r"cannot have a \+"),
        ("lost", Taken, "two different settings are called missing"),
    ):
        with pytest.raises(ValueError, match=message):
            operators.register_task(Task(name, "", build, (Everything,), settings))
