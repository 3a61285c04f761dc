"""The transform and the spectrum's estimate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import photographs, spectral


def test_transform_is_orthonormal():
    x = jax.random.normal(jax.random.key(0), (2, 10, 14, 3))
    z = spectral.forward(x)
    np.testing.assert_allclose(jnp.sum(z**2), jnp.sum(x**2), rtol=1e-5)
    np.testing.assert_allclose(spectral.backward(z), x, atol=1e-5)
    y = jax.random.normal(jax.random.key(1), x.shape)
    np.testing.assert_allclose(jnp.vdot(z, y), jnp.vdot(x, spectral.backward(y)), rtol=1e-4)


def test_flat_images_have_one_coefficient_for_each_colour():
    z = np.array(spectral.forward(jnp.full((8, 8, 3), 0.5)))
    assert abs(z[0, 0, 0] - 0.5 * 8 * 3**0.5) < 1e-5
    z[0, 0, 0] = 0
    np.testing.assert_allclose(z, 0, atol=1e-5)


def test_small_images_do_not_make_up_low_frequencies():
    """Of 16x16 the lowest frequency is 1/32: below it the law is constant, and above it is found."""
    truth = spectral.Spectrum((tuple(1e-2 / np.array(spectral.KNOTS) ** 2),), (0.3,))
    noise = np.random.default_rng(0).normal(size=(400, 16, 16, 1))
    found = spectral.estimate_spectrum(np.asarray(spectral.backward(jnp.asarray(noise * truth.grid(16, 16) ** 0.5))))
    below = np.array(spectral.KNOTS) < 1 / 32
    assert len(set(np.array(found.variance[0])[below])) == 1
    ratio = found.grid(16, 16)[1:, 1:] / truth.grid(16, 16)[1:, 1:]
    assert 0.7 < ratio.min() < ratio.max() < 1.4


def test_spectrum_of_a_known_field_is_found():
    """Images drawn from a power law: the estimate is that law, at another size too."""
    truth = spectral.Spectrum(
        tuple(tuple(a / np.array(spectral.KNOTS) ** 2) for a in (1e-2, 1e-3, 1e-4)), (0.3, 0.1, 0.02)
    )
    noise = np.random.default_rng(0).normal(size=(400, 32, 32, 3))
    images = spectral.backward(jnp.asarray(noise * truth.grid(32, 32) ** 0.5, jnp.float32))
    found = spectral.estimate_spectrum(np.asarray(images))
    for size in ((32, 32), (24, 48)):  # the chance in one coefficient of 400 images is 7 percent
        ratio = (found.grid(*size) / truth.grid(*size))[1:, 1:]
        assert 0.85 < ratio.min() < ratio.max() < 1.2
        np.testing.assert_allclose(found.grid(*size)[0, 0], truth.grid(*size)[0, 0], rtol=0.3)


def test_photographs_of_the_nearest_size_are_taken():
    """By the ratio of the sides; grey is a third of the light's power, as light is sqrt(3) times grey."""
    curve, spectrum = photographs.statistics(256, 3)
    assert photographs.statistics(300, 3)[1] == spectrum == photographs.statistics(2000, 3)[1]
    assert photographs.statistics(64, 3)[1] != spectrum
    assert photographs.statistics(90, 3)[1] == photographs.statistics(64, 3)[1]
    curve.check()
    grey = photographs.statistics(256, 1)[1]
    np.testing.assert_allclose(3 * grey.grid(8, 8)[..., 0], spectrum.grid(8, 8)[..., 0])
    with pytest.raises(ValueError, match="3 channels or 1, not 2"):
        photographs.statistics(64, 2)
