"""Calibration measures what is known of Gaussians: their error at each noise, and their spectrum."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import CLD, Calibration, Gaussian, calibrate, prior_from_denoiser, restore
from cvsa_jax.denoising import VALIDATION_NOISES
from cvsa_jax.operators import Identity
from cvsa_jax.spectral import KNOTS, SpectralGaussian, Spectrum, backward

PINK = Spectrum(
    tuple(tuple(scale * (0.05 / np.array(KNOTS)) ** 2) for scale in (0.3, 0.05, 0.02)), (0.02, 0.004, 0.003)
)
SIDE = 32


def draw_pink(count: int) -> np.ndarray:
    e = np.random.default_rng(0).normal(size=(count, SIDE, SIDE, 3))
    return np.asarray(backward(jnp.asarray(PINK.grid(SIDE, SIDE) ** 0.5 * e, jnp.float32)))


def test_the_curve_of_a_white_gaussian():
    """c s^2/(c + s^2), within four standard errors of 64 images of 256 pixels: 4 sqrt(2 / 16384) = 4.4 %."""
    variance = 0.3
    images = variance**0.5 * np.random.default_rng(0).normal(size=(64, 16, 16, 1))
    bare = prior_from_denoiser(Gaussian(jnp.zeros(()), jnp.asarray(variance)), CLD())
    prior = calibrate(bare, images, batch_size=40, spectrum=False)
    assert prior.spectrum is None
    assert prior.mean is bare.mean
    noise = np.array(VALIDATION_NOISES)
    np.testing.assert_array_equal(prior.calibration.noise, noise)
    np.testing.assert_allclose(prior.calibration.error, variance * noise**2 / (variance + noise**2), rtol=0.044)
    between = float(prior.error_variance(jnp.float32(0.6)))
    assert between == pytest.approx(variance * 0.36 / (variance + 0.36), rel=0.05)
    few = calibrate(bare, images, noises=(0.1, 1.0), spectrum=False, key=jax.random.key(3))
    np.testing.assert_allclose(few.calibration.error, [0.3 * 0.01 / 0.31, 0.3 / 1.3], rtol=0.044)


def test_the_spectrum_of_a_pink_gaussian_and_its_curve():
    """Of 200 images: 2 % of each variance where there are many coefficients, 10 % (sqrt(2/200)) of the one mean."""
    grid = PINK.grid(SIDE, SIDE)
    bare = prior_from_denoiser(SpectralGaussian(jnp.asarray(grid, jnp.float32)), CLD())
    prior = calibrate(bare, draw_pink(200))
    found = prior.spectrum.grid(SIDE, SIDE) / grid
    assert np.abs(np.log(found[8:, 8:])).max() < 0.05
    assert np.abs(np.log(found)).max() < 0.4
    noise = np.array(VALIDATION_NOISES)[:, None]
    exact = np.mean(grid.reshape(1, -1) * noise**2 / (grid.reshape(1, -1) + noise**2), 1)
    np.testing.assert_allclose(prior.calibration.error[:8], exact[:8], rtol=0.02)
    np.testing.assert_allclose(prior.calibration.error, exact, rtol=0.2)


def test_a_calibrated_prior_restores_better():
    """Guidance that knows how far the prior errs, and where, finds the posterior mean of a pink image more nearly."""
    images = draw_pink(100)
    grid = jnp.asarray(PINK.grid(SIDE, SIDE), jnp.float32)
    bare, exact = prior_from_denoiser(SpectralGaussian(grid), CLD()), SpectralGaussian(grid)
    y = jnp.asarray(images[0]) + 0.2 * jax.random.normal(jax.random.key(1), images[0].shape)
    answers = [
        restore(jax.random.key(2), y, Identity(), prior, image_shape=y.shape, noise_std=0.2, num_steps=60,
                sampler="multistep", guidance="spectral_covariance").image
        for prior in (bare, calibrate(bare, images[1:]))
    ]  # fmt: skip
    # The chain without noise ends at a draw, whose mean square distance from the mean is the posterior's variance.
    spread = float(jnp.mean(grid * 0.04 / (grid + 0.04)))
    far = [float(jnp.mean((x - exact(y, jnp.float32(0.2))) ** 2)) / spread for x in answers]
    assert far[1] == pytest.approx(1, abs=0.1)
    assert abs(far[0] - 1) > 2 * abs(far[1] - 1)


def test_the_batch_does_not_matter():
    images = np.random.default_rng(0).normal(size=(5, 8, 8, 3))
    prior = prior_from_denoiser(Gaussian(jnp.zeros(()), jnp.asarray(0.3)), CLD())
    curves = [
        calibrate(prior, images, batch_size=n, noises=(0.1, 1.0), spectrum=False).calibration.error for n in (2, 64)
    ]
    np.testing.assert_allclose(*curves, rtol=1e-5)


def test_a_prior_of_measured_colours_is_of_those_colours():
    """Grey is then restored through them, as under any prior of colours, and another number of them refused."""
    bare = prior_from_denoiser(Gaussian(jnp.zeros(()), jnp.asarray(0.3)), CLD())
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 3))
    keys = {"noise_std": 0.1, "num_steps": 3, "guidance": "spectral_covariance"}
    assert calibrate(bare, images, noises=(0.1, 1.0), spectrum=False).channels is None
    prior = calibrate(bare, images, noises=(0.1, 1.0))
    found = restore(jax.random.key(0), jnp.zeros((8, 8, 1)), Identity(), prior, image_shape=(8, 8, 1), **keys)
    assert found.image.shape == (8, 8, 1)
    with pytest.raises(ValueError, match="the prior is of 3 channels, and cannot restore 2"):
        restore(jax.random.key(0), jnp.zeros((8, 8, 2)), Identity(), prior, image_shape=(8, 8, 2), **keys)


@pytest.mark.parametrize(("side", "spectra"), [(4, (PINK, PINK)), (8, ()), (16, (PINK, PINK)), (32, (PINK, PINK))])
def test_what_was_measured_is_what_images_of_that_size_are_restored_by(side, spectra):
    """Of a prior that knows its error on images of once, twice and four times the side, at each of them."""
    curves = [Calibration(np.array([0.1, 1.0]), np.array([0.009, 0.2]) / n) for n in (1, 2, 3)]
    prior = prior_from_denoiser(Gaussian(jnp.zeros(()), jnp.asarray(0.3)), CLD(), curves[0])
    prior = prior.replace(image_size=4, larger=tuple(curves[1:]), larger_spectra=spectra, spectrum=PINK)
    images = np.random.default_rng(0).normal(size=(2, side, side, 3))
    found = calibrate(prior, images, noises=(0.2, 2.0))
    shapes = [(n, n, 3) for n in (4, 8, 16)]
    for shape in shapes:
        old, new = prior.at(shape), found.at(shape)
        own = shape == shapes[min((4, 8, 16, 32).index(side), 2)]
        assert (new.calibration.noise[0] == 0.2) == own
        assert (new.spectrum != old.spectrum) == own


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (np.zeros((8, 8, 1)), {}, r"must be \(N, H, W, C\)"),
        (np.zeros((0, 8, 8, 1)), {}, "at least one of them"),
        (np.zeros((2, 8, 8, 1), np.uint8), {}, "uint8, but numbers"),
        (np.full((2, 8, 8, 1), np.nan), {}, "NaN"),
        (np.zeros((2, 9, 8, 1)), {}, "are 9x8x1, but the prior takes 12x8x1"),
        (np.zeros((2, 8, 8, 1)), {"noises": (1.0, 0.5)}, "must be positive and increase"),
    ],
)
def test_bad_images_are_refused(images, options, message):
    prior = prior_from_denoiser(Gaussian(jnp.zeros(()), jnp.ones(())), CLD()).replace(stride=4)
    with pytest.raises(ValueError, match=message):
        calibrate(prior, images, **options)
