"""Both ways to a prior against the closed form for a mixture."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from cvsa_jax import CLD, Calibration, Gaussian, GaussianMixture, prior_from_denoiser, prior_from_velocity_network
from cvsa_jax.priors import coefficients

WEIGHTS, MEANS, VARIANCE = np.array([0.2, 0.5, 0.3]), np.array([-0.8, 0.1, 0.7]), 0.02
TIMES = [1e-3, 0.02, 0.1, 0.3, 0.7, 1.0]


def mixture() -> GaussianMixture:
    return GaussianMixture(jnp.asarray(WEIGHTS), jnp.asarray(MEANS)[:, None, None, None], VARIANCE)


def states(cld, t, count=20):
    """u_t drawn from the diffusion, (count, 2)."""
    generator = np.random.default_rng(0)
    x0 = generator.choice(MEANS, count, p=WEIGHTS) + VARIANCE**0.5 * generator.normal(size=count)
    noise = generator.normal(size=(count, 2)) @ np.linalg.cholesky(cld.covariance(t)).T
    return x0[:, None] * cld.data_direction(t) + noise


def exact_means(cld, t, u):
    a, s = cld.data_direction(t), cld.covariance(t)
    return np.array([references.mixture_posterior_mean(row, WEIGHTS, MEANS, VARIANCE, a, s) for row in u])


def exact_score(u, cld, t):
    """The velocity's part of the gradient of log p(u_t), by autodiff of the mixture's density."""
    a = cld.data_direction(t)
    total = VARIANCE * np.outer(a, a) + cld.covariance(t)

    def log_density(u):
        rest = u - a * jnp.asarray(MEANS)[:, None]
        return jax.nn.logsumexp(jnp.log(WEIGHTS) - jnp.sum(rest * jnp.linalg.solve(total, rest.T).T, 1) / 2)

    return np.asarray(jax.vmap(jax.grad(log_density))(jnp.asarray(u)))[:, 1]


def evaluate(method, u, t):
    image = lambda a: jnp.asarray(a)[:, None, None, None]  # noqa: E731
    return np.asarray(jax.vmap(lambda x, v: method(x, v, t))(image(u[:, 0]), image(u[:, 1]))).ravel()


@pytest.mark.parametrize("friction", [None, 0.4, 2.5])
@pytest.mark.parametrize("t", TIMES)
def test_denoiser_prior_is_exact(float64, friction, t):
    cld = CLD(friction=friction)
    prior, u = prior_from_denoiser(mixture(), cld), states(cld, t)
    np.testing.assert_allclose(evaluate(prior.posterior_mean, u, t), exact_means(cld, t, u), atol=1e-8)


@pytest.mark.parametrize("friction", [None, 0.4, 2.5])
@pytest.mark.parametrize("t", TIMES)
def test_velocity_score_gives_the_same_mean(float64, friction, t):
    """The paper's formula, from the exact score through a velocity network's mixed form."""
    cld = CLD(friction=friction)
    u = states(cld, t)
    c = coefficients(cld, t)
    alpha = -(exact_score(u, cld, t) + u[:, 1] / c.variance_v) * c.std_v

    def apply(params, u, time):
        del time
        return params["alpha"][jnp.argmin(jnp.abs(params["x"] - u[0, 0, 0]))][None, None, None]

    params = {"alpha": jnp.asarray(alpha), "x": jnp.asarray(u[:, 0])}
    prior = prior_from_velocity_network(apply, params, cld)
    np.testing.assert_allclose(evaluate(prior.posterior_mean, u, t), exact_means(cld, t, u), atol=1e-8)


@pytest.mark.parametrize("t", TIMES)
def test_velocity_score_is_the_densitys_gradient(float64, t):
    cld = CLD()
    prior, u = prior_from_denoiser(mixture(), cld), states(cld, t)
    score = exact_score(u, cld, t)
    np.testing.assert_allclose(evaluate(prior.velocity_score, u, t), score, atol=1e-9 * np.abs(score).max())


def test_gaussian_denoiser_forms_agree(float64):
    """A variance per pixel and the same as a matrix; Tweedie's formula for the matrix."""
    generator = np.random.default_rng(0)
    mean, variance = generator.normal(size=(2, 3, 1)), generator.uniform(0.1, 1, (2, 3, 1))
    x, sigma = generator.normal(size=(2, 3, 1)), 0.4
    diagonal = Gaussian(mean, variance)(x, sigma)
    matrix = Gaussian(mean, np.diag(variance.ravel()))(x, sigma)
    np.testing.assert_allclose(diagonal, matrix, atol=1e-12)
    root = generator.normal(size=(6, 6))
    covariance = root @ root.T

    def log_density(x):
        rest = (x - mean).ravel()
        return -rest @ jnp.linalg.solve(covariance + sigma**2 * np.eye(6), rest) / 2

    tweedie = x + sigma**2 * jax.grad(log_density)(jnp.asarray(x))
    np.testing.assert_allclose(Gaussian(mean, covariance)(x, sigma), tweedie, atol=1e-10)


def test_mixture_samples_have_its_moments():
    samples = np.asarray(mixture().sample(jax.random.key(0), 50000)).ravel()
    mean = WEIGHTS @ MEANS
    variance = VARIANCE + WEIGHTS @ MEANS**2 - mean**2
    assert abs(samples.mean() - mean) < 4 * (variance / 50000) ** 0.5
    assert abs(samples.var() - variance) < 0.02 * variance


def test_error_variance_follows_the_calibration():
    noise = np.array([0.01, 0.1, 1.0, 10.0], np.float32)
    error = np.array([8e-5, 3e-3, 0.03, 0.2], np.float32)
    prior = prior_from_denoiser(mixture(), CLD(), Calibration(noise, error))
    np.testing.assert_allclose(jax.vmap(prior.error_variance)(noise), error, rtol=1e-5)
    assert float(prior.error_variance(jnp.float32(1e-4))) == pytest.approx(0.8 * 1e-8, rel=0.01)
    assert float(prior.error_variance(jnp.float32(1e3))) == pytest.approx(0.2, rel=0.01)
    uncalibrated = prior_from_denoiser(mixture(), CLD())
    assert float(uncalibrated.error_variance(jnp.float32(0.5))) == pytest.approx(0.125)


def test_params_are_arguments_not_constants():
    """A prior passes through jit as a pytree: other parameters need no other program."""
    count = 0

    def denoise(scale, x, sigma):
        nonlocal count
        count += 1
        return scale * x

    mean = jax.jit(lambda prior, x: prior.posterior_mean(x, x, 0.1))
    x, c = jnp.ones((1, 1, 1)), coefficients(CLD(), 0.1)
    for scale in (0.5, 2.0):
        prior = prior_from_denoiser(jax.tree_util.Partial(denoise, jnp.float32(scale)), CLD())
        np.testing.assert_allclose(mean(prior, x), scale * (c.mean_x + c.mean_v), rtol=1e-5)
    assert count == 1
