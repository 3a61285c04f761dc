"""Tomography against scikit-image, magnetic resonance against the dense matrix, and jobs of both."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from skimage.transform import radon as reference_radon

from cvsa_jax import CLD, Gaussian, check_operator, make_operator, operators, prior_from_denoiser, restore, simulate
from cvsa_jax.operators import SubsampledFourier, adjoint, cartesian_mask, radon
from cvsa_jax.operators.fourier import EQUISPACED, PATTERNS

FEW = ["--num_steps=2", "--num_samples=1", "--image_size=32", "--sampler=ancestral"]


@pytest.mark.parametrize("shape", [(8, 8), (9, 9), (12, 7), (5, 16)])
def test_projections_are_scikit_images(shape):
    """Of any size and any angle, to 1e-5 of the largest reading: the same pixels, detectors and steps."""
    image = np.random.default_rng(0).normal(size=(*shape, 2))
    angles = np.arange(0, 180, 13.0)
    found = np.asarray(radon(angles)(jnp.asarray(image, jnp.float32))) * max(shape) ** 0.5
    for c in range(2):
        expected = reference_radon(image[..., c], angles, circle=False)
        np.testing.assert_allclose(found[..., c], expected, atol=1e-5 * np.abs(expected).max())


def test_a_view_is_an_isometry():
    """H H' y = y of a view along the columns, where its rays meet the image; and a flat image's reading is n^1/2."""
    view = radon(np.zeros(1))
    y = view(jnp.zeros((16, 16, 1)).at[:].set(jax.random.normal(jax.random.key(0), (1, 16, 1))))
    again = view(adjoint(view, (16, 16, 1))(y))
    np.testing.assert_allclose(again, y, atol=1e-5)
    assert float(view(jnp.ones((16, 16, 1))).max()) == pytest.approx(4, rel=1e-5)


def test_a_transform_of_all_lines_is_numpys_and_is_undone():
    x = jax.random.normal(jax.random.key(0), (10, 7, 2))
    h = SubsampledFourier(jnp.ones((1, 1, 1)))
    expected = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x, (0, 1)), axes=(0, 1), norm="ortho"), (0, 1))
    np.testing.assert_allclose(h(x), expected, atol=1e-5)
    assert float(jnp.abs(h(jnp.ones((10, 7, 1)))[5, 3, 0])) == pytest.approx(70**0.5, rel=1e-5)  # zero in the middle
    np.testing.assert_allclose(h.zero_filled(h(x)), x, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 6, 1), (5, 7, 1), (6, 5, 2)])
def test_the_solve_of_any_mask_is_exact(shape, float64):
    """Also of one that is not the same at k and -k, where the adjoint takes the real part of what is not conjugate."""
    seen = np.random.default_rng(3).integers(0, 2, (*shape[:2], 1)).astype(float)
    packed = references.packed(SubsampledFourier(jnp.asarray(seen)), shape)
    matrix = references.dense_matrix(lambda unit: packed(jnp.asarray(unit, float)), shape)
    r = np.random.default_rng(4).normal(size=len(matrix))  # of entries without data too
    for n, p in ((0.0025, 1.0), (0.3, 0.1)):
        exact = np.linalg.solve(n * np.eye(len(matrix)) + p * matrix @ matrix.T, r)
        np.testing.assert_allclose(packed.solve_gram(jnp.asarray(r), n, p), exact, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("width", [32, 65, 368])
def test_masks_have_their_lines(pattern, width):
    """One in four, the middle all of them; evenly spaced ones are so; another seed, other lines."""
    first, second = (cartesian_mask(np.random.default_rng(s), width, 4.0, 0.08, pattern)[0, :, 0] for s in (0, 2))
    middle = round(0.08 * width)
    start = width // 2 - middle // 2
    for seen in (first, second):
        assert set(np.unique(seen)) == {0, 1}
        assert seen.sum() == round(width / 4)
        assert seen[start : start + middle].all()
        if pattern == EQUISPACED:
            gaps = np.diff(np.flatnonzero(np.delete(seen, range(start, start + middle))))
            assert np.ptp(gaps) <= 1
    assert (first != second).any()


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("mri", {"acceleration": 0.5}, "acceleration must be at least 1"),
        ("mri", {"acceleration": 16.0, "center_fraction": 0.2}, "a centre of 6 of 32 lines is more than the 2"),
        ("mri", {"pattern": "spiral"}, "pattern must be one of random, equispaced"),
        ("ct", {"num_angles": 0}, "num_angles must be at least 1"),
        ("ct", {"angle_range": 200.0}, "angle_range must be positive and at most 180"),
        ("mri+jpeg", {}, "nothing can follow mri"),
    ],
)
def test_bad_settings_are_refused(task, settings, message):
    with pytest.raises(ValueError, match=message):
        make_operator(task, np.random.default_rng(0), 32, 32, **settings)
    with pytest.raises(ValueError, match="at least one number"):
        radon(np.zeros(0))
    with pytest.raises(ValueError, match="pattern must be one of"):
        cartesian_mask(np.random.default_rng(0), 32, pattern="spiral")


def test_views_are_spread_and_grow_with_the_image():
    assert make_operator("ct", np.random.default_rng(0), 64, 48).directions.shape == (15, 2)
    assert make_operator("ct", np.random.default_rng(0), 256, 256).directions.shape == (60, 2)
    found = make_operator("ct", np.random.default_rng(0), 8, 8, num_angles=3, angle_range=90.0).directions
    np.testing.assert_allclose(found, [[np.cos(a), np.sin(a)] for a in np.radians([0, 30, 60])], atol=1e-6)


def test_a_complex_measurement_has_its_posterior():
    """Under a white Gaussian the mean is H' (n I + p H H')^-1 y: y is noisy in both parts, the lost lines are zero."""
    shape, variance, noise = (16, 16, 1), 0.25, 0.3
    h = make_operator("mri", np.random.default_rng(0), *shape[:2], acceleration=2.0)
    x = variance**0.5 * jax.random.normal(jax.random.key(0), shape)
    y = simulate(jax.random.key(1), h, x, noise)
    assert float(jnp.abs(y * (1 - h.seen)).max()) == 0
    off = np.asarray(y - h(x))[:, np.asarray(h.seen)[0, :, 0] > 0]
    assert (off.real.std(), off.imag.std()) == pytest.approx((noise, noise), rel=0.25)
    exact = variance * h.zero_filled(h.seen * h.solve_gram(y, noise**2, variance))
    prior = prior_from_denoiser(Gaussian(jnp.zeros(()), jnp.asarray(variance)), CLD())
    answer = jax.jit(jax.vmap(lambda key: restore(
        key, y, h, prior, image_shape=shape, noise_std=noise, num_steps=40, sampler="ancestral", guidance="covariance"
    ).image))  # fmt: skip
    mean = answer(jax.random.split(jax.random.key(2), 64)).mean(0)
    # 64 samples of a deviation of at most 1/2 each: a standard error of at most 1/16 a pixel.
    assert float(jnp.sqrt(jnp.mean((mean - exact) ** 2))) < 0.07
    assert float(jnp.sqrt(jnp.mean(exact**2))) > 0.2


def test_several_coils_are_a_function_of_ones_own():
    coils = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    lines = jnp.asarray(cartesian_mask(np.random.default_rng(0), 8, 2.0))
    report = check_operator(lambda x: lines * operators.centred_transform(coils * x), (8, 8, 1))
    assert report.linear
    assert report.measurement == "complex64 (3, 8, 8, 1)"


@pytest.mark.parametrize("task", ["mri", "ct"])
def test_jobs_measure_and_restore_what_was_measured(run_restore, tiny_checkpoint, photos, task, tmp_path):
    """The array that a job writes is taken again, with the operator's file where lines were drawn."""
    from cvsa_jax import images

    images.save_image(tmp_path / "in" / "a.png", photos[2])
    prior = f"--checkpoint={tiny_checkpoint}"
    done = run_restore(f"--task={task}", f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'a'}", prior, *FEW)
    assert done.returncode == 0, done.stderr
    means = json.loads((tmp_path / "a" / "summary.json").read_text())["means"]
    assert "psnr" in means
    assert "psnr_aligned" not in means
    y = np.load(tmp_path / "a" / "measurement" / "a.npy")
    assert (y.shape, np.iscomplexobj(y)) == {"mri": ((32, 32, 3), True), "ct": ((46, 8, 3), False)}[task]
    stored = [f"--operator={tmp_path / 'a' / 'operator' / 'a.npz'}"] if task == "mri" else []
    again = [f"--task={task}", "--measured", f"--input={tmp_path / 'a' / 'measurement' / 'a.npy'}", prior]
    few = [flag for flag in FEW if "image_size" not in flag]
    if stored:
        assert "--operator=FILE.npz" in run_restore(*again, f"--output={tmp_path / 'c'}", *few).stderr
        np.save(tmp_path / "real.npy", y.real)
        bad = run_restore(*again[:2], f"--input={tmp_path / 'real.npy'}", *stored, f"--output={tmp_path / 'd'}", prior)
        assert "mri measures complex numbers, but the input has real numbers" in bad.stderr
    done = run_restore(*again, *stored, f"--output={tmp_path / 'b'}", *few)
    assert done.returncode == 0, done.stderr
    assert images.read_image(tmp_path / "b" / "restored" / "a.png").shape == (32, 32, 3)
