"""Noise models: what is drawn, and what guidance takes it for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from scipy import stats

from cvsa_jax import CLD, Gaussian, guidance, prior_from_denoiser, restore
from cvsa_jax.baselines import BASELINES, baseline_loop
from cvsa_jax.noise import GaussianNoise, PoissonGaussianNoise, PoissonNoise, as_noise
from cvsa_jax.operators import Identity, Mask, convolution, simulate
from cvsa_jax.priors import coefficients
from cvsa_jax.samplers import run_steps

SHAPE = (6, 5, 1)


@pytest.mark.parametrize("noise", [GaussianNoise(0.3), PoissonNoise(40.0), PoissonGaussianNoise(40.0, 0.2)])
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


@pytest.mark.parametrize("rate", [40.0, 1e6, 1e9])
def test_photons_are_counted_up_to_what_they_may_be(rate):
    """The mean of 4096 is .5; brighter counts than whole numbers hold are no numbers, rather than others."""
    noise = PoissonNoise(rate)
    y = np.asarray(noise.sample(jax.random.key(0), jnp.full((64, 64, 1), 0.5)), np.float64)
    assert y.mean() == pytest.approx(0.5, abs=4 * (3 / rate / 4096) ** 0.5 + 1e-6)
    assert np.isnan(noise.sample(jax.random.key(0), jnp.full(3, 6e9 / rate))).all()


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


UNEVEN = np.linspace(0.1, 0.7, 30).reshape(SHAPE)


@pytest.mark.parametrize("form", ["covariance", "spectral_covariance", "second_moment", "diagonal_covariance"])
def test_each_entry_has_its_own_variance(float64, form):
    """Under a white Gaussian prior the conditional mean weighs each entry by its own noise, exactly."""
    t = 0.2
    prior = prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), 0.25), CLD())
    generator = np.random.default_rng(0)
    x, v, y = (jnp.asarray(generator.normal(size=SHAPE)) for _ in range(3))
    dual = jnp.zeros(SHAPE)
    mean, *_ = guidance.conditional_mean(y, Identity(), prior, UNEVEN, form, np.array([t]))(x, v, 0, dual)
    estimate, noise = prior.posterior_mean(x, v, t), float(coefficients(prior.cld, t).noise)
    left = 0.25 * noise**2 / (0.25 + noise**2)
    np.testing.assert_allclose(mean, estimate + left / (left + UNEVEN**2) * (y - estimate), atol=1e-8)


@pytest.mark.parametrize("form", ["covariance", "second_moment"])
def test_each_entry_of_a_blur_has_its_own_variance(float64, form):
    """The dense solution of (D + r H H') w = r, by four iterations: D spans a hundredfold."""
    t = 0.2
    prior = prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), 0.25), CLD())
    blur, generator = convolution(np.ones((3, 3)), "circular"), np.random.default_rng(0)
    x, v, y = (jnp.asarray(generator.normal(size=SHAPE)) for _ in range(3))
    variance = np.geomspace(0.01, 1.0, 30)[generator.permutation(30)]
    mean, *_ = guidance.conditional_mean(y, blur, prior, variance.reshape(SHAPE) ** 0.5, form, np.array([t]))(
        x, v, 0, jnp.zeros(SHAPE)
    )
    estimate, noise = prior.posterior_mean(x, v, t), float(coefficients(prior.cld, t).noise)
    h, left = references.dense_matrix(blur, SHAPE), 0.25 * noise**2 / (0.25 + noise**2)
    w = np.linalg.solve(np.diag(variance) + left * h @ h.T, np.asarray(y - blur(estimate)).ravel())
    expected = left * (h.T @ w).reshape(SHAPE)
    assert np.linalg.norm(mean - estimate - expected) < 0.1 * np.linalg.norm(expected)


@pytest.mark.parametrize("huge", [1e3, 1e9, 1e19, 1e30])
def test_an_entry_of_huge_deviation_is_as_good_as_masked(tiny_prior, photos, huge):
    seen = np.random.default_rng(0).random((16, 16, 1)) < 0.5
    y = jnp.asarray(photos[0, :16, :16])

    def run(operator, std):
        keys = {"image_shape": (16, 16, 3), "noise_std": std, "num_steps": 10}
        return restore(jax.random.key(0), y, operator, tiny_prior, **keys).image

    masked = run(Mask(jnp.asarray(seen, jnp.float32)), 0.05)
    noisy = run(Identity(), jnp.asarray(np.where(seen, 0.05, huge) * np.ones(3), jnp.float32))
    assert float(jnp.sqrt(jnp.mean((masked - noisy) ** 2))) < 0.01


BOUND = prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), 0.25), CLD())
SEEN = jnp.asarray(np.arange(30).reshape(SHAPE) % 3 > 0, jnp.float32)


@pytest.mark.parametrize("std", [1e-8, 1e-20])
@pytest.mark.parametrize("method", ["covariance", "pigdm"])
def test_as_good_as_no_noise_at_all(method, std):
    """What is seen is kept, whatever the square of the deviation is in float32; the rest is the prior's."""
    y = SEEN * 0.7
    keys = {"image_shape": SHAPE, "noise_std": std, "num_steps": 10}
    if method in BASELINES:
        loop = baseline_loop(method, y, Mask(SEEN), BOUND, **keys)
        state, _ = run_steps(loop, loop.init(jax.random.key(0), SHAPE), 0, 10)
        image = state.x
    else:
        image = restore(jax.random.key(0), y, Mask(SEEN), BOUND, guidance=method, **keys).image
    assert np.isfinite(image).all()
    np.testing.assert_allclose(SEEN * image, y, atol=1e-2)


BLUR = convolution(np.ones((3, 3)), "circular")


@pytest.mark.parametrize(
    ("operator", "guidance"), [(lambda x: 1.0 * x, "covariance"), (BLUR, "covariance"), (BLUR, "plug_in")]
)
def test_no_deviation_overflows(operator, guidance):
    std = jnp.asarray(np.where(np.arange(30).reshape(SHAPE) % 2, 1e25, 0.05), jnp.float32)
    keys = {"image_shape": SHAPE, "noise_std": std, "num_steps": 3, "guidance": guidance}
    found = restore(jax.random.key(0), 1e3 * jnp.ones(SHAPE), operator, BOUND, **keys)
    assert np.isfinite(found.image).all()


@pytest.mark.parametrize(("shape", "fine"), [((6, 5, 1), True), ((5, 1), True), ((6, 1, 1), True), ((6,), False),
                                             ((2, 6, 5, 1), False), ((6, 5, 3), False)])  # fmt: skip
def test_deviations_go_with_the_measurement(shape, fine):
    prior = prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), 0.25), CLD())

    def run():
        keys = {"image_shape": SHAPE, "noise_std": jnp.full(shape, 0.1), "num_steps": 2}
        return restore(jax.random.key(0), jnp.zeros(SHAPE), Identity(), prior, **keys)

    if fine:
        assert run().image.shape == SHAPE
        return
    with pytest.raises(ValueError, match=r"noise_std of shape .* does not go with a measurement of shape \(6, 5, 1\)"):
        run()


@pytest.mark.parametrize("noise", [PoissonNoise(60.0), PoissonGaussianNoise(60.0, 0.1)])
def test_photons_weigh_as_much_as_their_number_says(float64, noise):
    """A bright entry is less certain: x_0hat moves by r^2 / (r^2 + variance(x_0hat)) towards y, entry by entry."""
    prior, t = prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), 0.25), CLD()), 0.2
    generator = np.random.default_rng(0)
    x, v, y = (jnp.asarray(0.4 * generator.normal(size=SHAPE)) for _ in range(3))
    mean, *_ = guidance.conditional_mean(y, Identity(), prior, noise, "covariance", np.array([t]))(
        x, v, 0, jnp.zeros(SHAPE)
    )
    estimate, level = prior.posterior_mean(x, v, t), float(coefficients(prior.cld, t).noise)
    left = 0.25 * level**2 / (0.25 + level**2)
    p = left / (left + noise.variance(estimate)) * (y - estimate)
    r = np.asarray(y - estimate)
    length = np.clip(np.vdot(r, p) / np.vdot(p, p), 0, 1)
    np.testing.assert_allclose(mean - estimate, length * p, atol=1e-8)


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (PoissonNoise(0.0), r"photons must be positive and at most 1e\+09, got 0\.0"),
        (PoissonGaussianNoise(0.0, 0.1), r"photons must be positive and at most 1e\+09, got 0\.0"),
        (PoissonNoise(2e9), r"photons must be positive and at most 1e\+09, got 2000000000"),
        (PoissonGaussianNoise(9.0, -1.0), r"noise_std must be positive for images in \[-1, 1\], got -1\.0"),
        (np.array([0.1, np.nan]), "noise_std must be positive"),
    ],
)
def test_bad_noise_is_refused(tiny_prior, noise, message):
    with pytest.raises(ValueError, match=message):
        simulate(jax.random.key(0), Identity(), jnp.zeros((2, 1, 1)), noise)
    with pytest.raises(ValueError, match=message):
        restore(jax.random.key(0), jnp.zeros((8, 8, 3)), Identity(), tiny_prior, image_shape=(8, 8, 3), noise_std=noise)
