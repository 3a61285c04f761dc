"""Noise models: what is drawn, and what guidance takes it for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from cvsa_jax import CLD, Gaussian, guidance, prior_from_denoiser, restore
from cvsa_jax.noise import GaussianNoise, PoissonNoise, as_noise
from cvsa_jax.operators import Identity, convolution
from cvsa_jax.priors import coefficients

SHAPE = (6, 5, 1)


@pytest.mark.parametrize("noise", [GaussianNoise(0.3), PoissonNoise(40.0)])
def test_moments_of_the_draws_are_those_that_are_stated(noise):
    clean = jnp.full((200, 200, 1), 0.2)
    y = np.asarray(noise.sample(jax.random.key(0), clean), np.float64)
    variance = float(np.mean(noise.variance(clean)))
    assert y.mean() == pytest.approx(0.2, abs=4 * (variance / y.size) ** 0.5)
    assert y.var() == pytest.approx(variance, rel=0.04)


def test_photons_are_whole_numbers():
    y = np.asarray(PoissonNoise(40.0).sample(jax.random.key(0), jnp.zeros((8, 8, 1))), np.float64)
    counts = (y + 1) / 2 * 40
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-4)


def test_a_number_is_a_deviation():
    assert as_noise(0.1) == GaussianNoise(0.1)
    assert as_noise(PoissonNoise(3.0)) == PoissonNoise(3.0)


def test_plug_in_is_the_gradient_of_the_poisson_likelihood(float64):
    """d_t p = grad_v log p(N | rate (H(x_0hat) + 1)/2), by central differences of scipy's Poisson."""
    rate, t = 30.0, 0.2
    blur = convolution(np.ones((3, 3)))
    prior = prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), 0.05), CLD())
    generator = np.random.default_rng(0)
    x, v = (jnp.asarray(0.3 * generator.normal(size=SHAPE)) for _ in range(2))
    counts = generator.poisson(rate / 2, SHAPE)
    y = jnp.asarray(2 * counts / rate - 1)

    def log_likelihood(v):
        mean = rate * (np.asarray(blur(prior.posterior_mean(x, v, t))) + 1) / 2
        return stats.poisson.logpmf(counts, mean).sum()

    mean, *_ = guidance.conditional_mean(y, blur, prior, PoissonNoise(rate), "printed_plug_in", np.array([t]))(x, v, 0)
    found = np.asarray(coefficients(prior.cld, t).data * (mean - prior.posterior_mean(x, v, t))).ravel()
    for i in range(0, v.size, 4):
        shift = jnp.zeros(v.size).at[i].set(1e-5).reshape(SHAPE)
        slope = (log_likelihood(v + shift) - log_likelihood(v - shift)) / 2e-5
        assert float(slope) == pytest.approx(found[i], rel=1e-5, abs=1e-5 * np.abs(found).max())


@pytest.mark.parametrize("form", ["covariance", "spectral_covariance", "second_moment", "diagonal_covariance"])
def test_each_entry_has_its_own_variance(float64, form):
    """Under a white Gaussian prior the conditional mean weighs each entry by its own noise, exactly."""

    class Uneven(GaussianNoise):
        def variance(self, predicted):
            return jnp.linspace(0.01, 0.5, predicted.size).reshape(predicted.shape)

    t = 0.2
    prior = prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), 0.25), CLD())
    generator = np.random.default_rng(0)
    x, v, y = (jnp.asarray(generator.normal(size=SHAPE)) for _ in range(3))
    dual = jnp.zeros(SHAPE)
    mean, *_ = guidance.conditional_mean(y, Identity(), prior, Uneven(1.0), form, np.array([t]))(x, v, 0, dual)
    estimate, noise = prior.posterior_mean(x, v, t), float(coefficients(prior.cld, t).noise)
    left = 0.25 * noise**2 / (0.25 + noise**2)
    expected = estimate + left / (left + Uneven(1.0).variance(y)) * (y - estimate)
    # Four or five iterations of conjugate gradients, and a line search, for thirty different variances.
    assert float(jnp.linalg.norm(mean - expected)) < 0.15 * float(jnp.linalg.norm(expected - estimate))


def test_restoration_under_few_photons(photos, tiny_prior):
    y = PoissonNoise(50.0).sample(jax.random.key(1), jnp.asarray(photos[0]))
    settings = {"image_shape": (32, 32, 3), "noise_std": PoissonNoise(50.0), "num_steps": 20}
    found = restore(jax.random.key(0), y, Identity(), tiny_prior, **settings)
    error, before = (float(jnp.mean((a - photos[0]) ** 2)) for a in (found.image, y))
    assert error < before


def test_bad_rates_are_refused(tiny_prior):
    with pytest.raises(ValueError, match=r"photons must be positive, got 0\.0"):
        restore(
            jax.random.key(0), jnp.zeros((8, 8, 3)), Identity(), tiny_prior, image_shape=(8, 8, 3),
            noise_std=PoissonNoise(0.0),
        )  # fmt: skip
