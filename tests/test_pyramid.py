"""The pyramid: one denoiser at several resolutions."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SAMPLES

from cvsa_jax import CLD, checkpoints, spectral
from cvsa_jax.calibration import Calibration
from cvsa_jax.experts import experts
from cvsa_jax.jobs.calibrate import CalibrateSettings, prepare
from cvsa_jax.priors import denoiser_of, prior_from_denoiser
from cvsa_jax.pyramid import FREQUENCIES, Level, best_weights, blended, halved, levels_of, measure_levels, pyramid
from cvsa_jax.types import InputError

KNOTS = len(FREQUENCIES)
NOISES = np.array([0.1, 1.0, 10.0])


def level(weight: float) -> Level:
    curve = Calibration(NOISES, np.array([0.001, 0.02, 0.1]))
    return Level(np.full((3, KNOTS), weight), curve, spectral.Spectrum(((1.0,) * 12,) * 3, (0.1,) * 3))


def smooth(height: int, width: int) -> jax.Array:
    """An image of three low frequencies, (H, W, 3)."""
    rows, columns = (np.arange(n) + 0.5 for n in (height, width))
    image = 0.3 + 0.4 * np.cos(np.pi * rows / height)[:, None] * np.cos(2 * np.pi * columns / width)[None]
    return jnp.asarray(np.stack([image, -image, 0.5 * image], -1), jnp.float32)


def shrink(x, sigma):
    """A denoiser that works by pixel: that of white images of variance 1/4."""
    return x / (1 + 4 * sigma**2)


def test_an_image_halved_keeps_its_values_and_halves_its_noise():
    for height, width in ((32, 32), (32, 48), (30, 44)):
        np.testing.assert_allclose(halved(smooth(height, width)), smooth(height // 2, width // 2), atol=1e-5)
    noise = jax.random.normal(jax.random.key(0), (128, 128, 3))
    np.testing.assert_allclose(halved(noise).std(), 0.5, rtol=0.02)


@pytest.mark.parametrize("shape", [(32, 32, 3), (30, 46, 3)])
def test_a_blend_of_weight_zero_is_the_fine_image_and_of_weight_one_has_the_low_frequencies_of_the_coarse(shape):
    fine = jax.random.normal(jax.random.key(0), shape)
    height, width = shape[0] // 2, shape[1] // 2
    coarse = jax.random.normal(jax.random.key(1), (height, width, 3))
    np.testing.assert_allclose(blended(fine, coarse, jnp.zeros((height, width, 1))), fine, atol=1e-5)
    both = blended(fine, coarse, jnp.ones((height, width, 1)))
    np.testing.assert_allclose(halved(both), coarse, atol=1e-5)
    high = np.asarray(spectral.forward(both) - spectral.forward(fine))
    assert np.abs(high[height:]).max() < 1e-5 and np.abs(high[:, width:]).max() < 1e-5


def test_levels_are_counted_from_the_training_images():
    counted = [levels_of((side, 4 * side, 3), 64) for side in (32, 64, 127, 128, 255, 256, 512)]
    assert counted == [0, 0, 0, 1, 1, 2, 3]
    assert levels_of((512, 512, 3), None) == 0


def test_images_of_the_training_size_are_denoised_as_before():
    tall = pyramid(shrink, (level(1.0),), 16)
    x = jax.random.normal(jax.random.key(0), (31, 24, 3))
    np.testing.assert_array_equal(tall(x, 0.7), shrink(x, 0.7))
    assert pyramid(shrink, (), 16)(jnp.ones((64, 64, 3)), 0.7).shape == (64, 64, 3)


def test_each_level_is_asked_for_its_own_noise_and_the_last_weights_serve_beyond_them():
    """Of a denoiser that returns its noise everywhere, the mean is that of the lowest level: sigma / 2^levels."""
    told = lambda x, sigma: jnp.full(x.shape, sigma, x.dtype)  # noqa: E731
    for side, levels in ((16, 0), (32, 1), (64, 2), (128, 3)):
        found = pyramid(told, (level(1.0),), 16)(jnp.zeros((side, side, 3)), 0.8)
        np.testing.assert_allclose(found.mean(), 0.8 / 2**levels, rtol=1e-4)


def test_weights_lie_between_their_noise_levels_in_the_logarithm():
    rising = level(0.0)._replace(weights=np.array([0.0, 0.5, 1.0])[:, None] * np.ones((3, KNOTS)))
    told = lambda x, sigma: jnp.full(x.shape, jnp.asarray(x.shape[0] == 32, x.dtype))  # noqa: E731
    for noise, weight in ((0.01, 0.0), (10**-0.5, 0.25), (1.0, 0.5), (10.0, 1.0), (100.0, 1.0)):
        found = pyramid(told, (rising,), 16)(jnp.zeros((32, 32, 3)), noise)
        np.testing.assert_allclose(found.mean(), 1 - weight, atol=1e-4)


def test_a_halved_image_is_extended_to_the_stride_of_the_network():
    seen = []

    def told(x, sigma):
        seen.append(x.shape)
        return x

    x = smooth(40, 56)
    found = pyramid(told, (level(1.0),), 16, stride=8)(x, 0.5)
    assert seen == [(40, 56, 3), (24, 32, 3)]
    np.testing.assert_allclose(found, x, atol=1e-5)


def test_it_can_be_differentiated_mapped_and_compiled():
    tall = pyramid(shrink, (level(0.5),), 16)
    xs = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    each = jnp.stack([tall(x, 0.7) for x in xs])
    np.testing.assert_allclose(jax.jit(jax.vmap(tall, (0, None)))(xs, 0.7), each, atol=1e-6)
    _, back = jax.vjp(lambda x: tall(x, 0.7), xs[0])
    _, forward = jax.jvp(lambda x: tall(x, 0.7), (xs[0],), (xs[1],))
    np.testing.assert_allclose(jnp.vdot(back(xs[1])[0], xs[0]), jnp.vdot(forward, xs[0]), rtol=1e-4)


def test_best_weights_are_those_of_least_error():
    """Where fine and coarse err by independent noise of variance a and b, the weight of the coarse is a / (a + b)."""
    keys = jax.random.split(jax.random.key(0), 3)
    truth = np.asarray(jax.random.normal(keys[0], (24, 32, 32, 3)))
    fine = truth + 0.3 * np.asarray(jax.random.normal(keys[1], truth.shape))
    coarse = np.stack([halved(x) for x in truth])
    coarse = coarse + 0.3 * np.asarray(jax.random.normal(keys[2], coarse.shape))  # of variance 4 at the full size
    found = best_weights(fine, coarse, truth)
    np.testing.assert_allclose(found[2:-1], 1 / 5, atol=0.07)
    assert ((found >= 0) & (found <= 1)).all()


def test_levels_that_were_measured_are_better_than_the_plain_denoiser():
    """The plain denoiser is a mean over few pixels, which of a halved image are more of the whole one."""
    keys = jax.random.split(jax.random.key(0), 2)
    truth = np.stack([np.asarray(smooth(64, 64)) * np.float32(a) for a in np.linspace(-1, 1, 6)])
    plain = lambda x, sigma: sum(jnp.roll(x, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9  # noqa: E731
    levels = measure_levels(plain, truth, 16, (0.5, 5.0), keys[0])
    assert len(levels) == 2 and all(each.checked() is each for each in levels)
    tall, noise = pyramid(plain, levels, 16), np.asarray(jax.random.normal(keys[1], truth.shape))
    for number, sigma in enumerate((0.5, 5.0)):
        pairs = list(zip(truth + np.float32(sigma) * noise, truth, strict=True))
        errors = [np.mean([(f(x, sigma) - t) ** 2 for x, t in pairs]) for f in (plain, tall)]
        assert errors[1] < 0.8 * errors[0]
        np.testing.assert_allclose(levels[-1].calibration.error[number], errors[1], rtol=0.05)
    with pytest.raises(ValueError, match="at least 32 pixels"):
        measure_levels(plain, truth[:, :31, :31], 16, (0.5,), keys[0])


def test_guidance_takes_the_calibration_and_the_spectrum_of_the_images_size(tiny_checkpoint):
    levels = (level(0.2), level(0.4)._replace(calibration=Calibration(NOISES, np.array([0.002, 0.04, 0.2]))))
    stored = checkpoints.read_prior(tiny_checkpoint).description
    size = stored.spec.image_size
    prior = dataclasses.replace(
        prior_from_denoiser(pyramid(shrink, levels, size), CLD()), image_size=size,
        larger=tuple(each.calibration for each in levels), larger_spectra=tuple(each.spectrum for each in levels),
    )  # fmt: skip
    assert prior.at((size, size, 3)) is prior
    for shape, error in (((2 * size, 3 * size, 3), 0.02), ((4 * size,) * 2, 0.04), ((16 * size,) * 2, 0.04)):
        sized = prior.at(shape)
        np.testing.assert_allclose(sized.error_variance(jnp.asarray(1.0)), error, rtol=1e-5)
        assert sized.spectrum == levels[0].spectrum and denoiser_of(sized) is denoiser_of(prior)


def test_experts_have_the_levels_of_either(tiny_prior):
    curve = Calibration(NOISES, np.array([0.002, 0.04, 0.2]))
    known = dataclasses.replace(
        prior_from_denoiser(shrink, CLD()), image_size=16, larger=(curve,), channels=tiny_prior.channels,
        larger_spectra=(level(0.0).spectrum,),
    )  # fmt: skip
    low = dataclasses.replace(tiny_prior, image_size=256, highest_noise=2.0, cld=known.cld)
    both = experts(low, known)
    assert both.image_size == 16
    noise = jnp.asarray(5.0)
    wanted = known.at((40, 40)).error_variance(noise)
    np.testing.assert_allclose(both.at((40, 40, 3)).error_variance(noise), wanted, rtol=1e-3)
    noise = jnp.asarray(0.5)
    np.testing.assert_allclose(both.at((40, 40, 3)).error_variance(noise), low.error_variance(noise), rtol=0.05)


def test_levels_are_stored_and_read_back(tiny_checkpoint, tmp_path):
    stored = checkpoints.read_prior(tiny_checkpoint)
    spec, calibration, spectrum, training, on, _ = stored.description
    levels = (level(0.25),)
    checkpoints.save_prior(tmp_path, spec, stored.params, calibration, training, spectrum, on, levels)
    loaded = checkpoints.load_prior(tmp_path).prior
    np.testing.assert_allclose(loaded.larger[0].error, levels[0].calibration.error)
    assert loaded.larger_spectra == (levels[0].spectrum,)
    x = jax.random.normal(jax.random.key(0), (2 * spec.image_size,) * 2 + (3,))
    plain = checkpoints.load_prior(tmp_path, pyramid=False).prior
    assert np.abs(loaded.denoise(x, 3.0) - plain.denoise(x, 3.0)).max() > 1e-3 and not plain.larger
    wanted = pyramid(denoiser_of(plain), levels, spec.image_size, spec.stride)(x, jnp.float32(3.0))
    np.testing.assert_allclose(loaded.denoise(x, 3.0), wanted, atol=1e-5)


def test_calibrate_measures_levels_and_stores_them(tiny_checkpoint, tmp_path):
    folder = tmp_path / "prior"
    shutil.copytree(tiny_checkpoint, folder)
    own = CalibrateSettings(str(folder), str(SAMPLES), levels=1, limit=2, overwrite=True)
    base, larger = prepare(own).run()
    prior = checkpoints.load_prior(folder).prior
    np.testing.assert_allclose(prior.larger[0].error, larger.error, rtol=1e-5)
    np.testing.assert_allclose(prior.calibration.error, base.error, rtol=1e-5)
    with pytest.raises(InputError, match="levels=6 needs"):
        prepare(dataclasses.replace(own, levels=6))
    with pytest.raises(InputError, match="counts from the side"):
        prepare(dataclasses.replace(own, image_size=2 * checkpoints.read_prior(folder).description.spec.image_size))
