"""The benchmark's closed forms and distances, against sampling and against each other."""

import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax.posterior import interval
from experiments import posteriors


def test_mixture_posterior_is_the_prior_weighed_by_the_likelihood():
    problem = posteriors.mixture_problem(3, 2, 1)
    generator = np.random.default_rng(0)
    component = generator.choice(25, 400_000, p=problem.weights)
    x = problem.means[component] + generator.normal(size=(400_000, 2))
    rest = (problem.measurement - x @ problem.matrix.T)[:, 0]
    weights = np.exp(-(rest**2) / (2 * problem.noise_std**2))
    weights /= weights.sum()
    mean = weights @ x
    covariance = (x - mean).T @ (weights[:, None] * (x - mean))
    exact = problem.posterior_samples(generator, 100_000)
    error = np.sqrt(np.diag(covariance) * (np.sum(weights**2) + 1 / len(exact)))
    assert (np.abs(exact.mean(0) - mean) < 4 * error).all()
    np.testing.assert_allclose(np.cov(exact.T), covariance, atol=0.05 * covariance.max())


def test_sliced_wasserstein_of_a_shift():
    """A shift by m in the plane is seen as |u . m|, whose mean over directions is 2/pi |m|."""
    x = np.random.default_rng(0).normal(size=(300, 2))
    found = posteriors.sliced_wasserstein(x, x + np.array([3.0, 4.0]), np.random.default_rng(1), 20_000)
    assert found == pytest.approx(2 / np.pi * 5, rel=0.02)
    assert posteriors.sliced_wasserstein(x, x[::-1], np.random.default_rng(1)) == 0


def test_field_posterior_conditions_the_field():
    """The truths' standardised errors against the exact posterior have mean square one."""
    problem = posteriors.field_problem("random_inpaint", 16, 400, 0.05, 0)
    noise = 0.05 * np.random.default_rng(1).normal(size=problem.truths.shape)
    measured = np.asarray(problem.operator(jnp.asarray(problem.truths))) + noise
    measured = np.asarray(problem.operator.restrict(jnp.asarray(measured)))
    mean, deviation = problem.exact(measured)
    scores = (problem.truths - mean) / deviation
    assert np.mean(scores**2) == pytest.approx(1, abs=0.03)
    samples = mean[:, None] + deviation * np.random.default_rng(2).normal(size=(400, 30, 16, 16, 1))
    error, chance, ratio, coverage = posteriors.field_figures(samples, problem.truths, mean, deviation)
    assert error == pytest.approx(chance, rel=0.05)
    assert ratio == pytest.approx(1, abs=0.01)
    assert coverage == pytest.approx(0.9, abs=0.01)


@pytest.mark.parametrize("count", [2, 5, 40])
def test_interval_covers_one_more_draw(count):
    x = np.random.default_rng(count).normal(2.0, 3.0, size=(count + 1, 40_000))
    low, high = interval(x[:-1], 0.9)
    assert np.mean((low <= x[-1]) & (x[-1] <= high)) == pytest.approx(0.9, abs=4 * (0.09 / 40_000) ** 0.5)
