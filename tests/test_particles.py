"""Sequential Monte Carlo and correction steps against known posteriors."""

import math
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import (
    CLD,
    Gaussian,
    GaussianMixture,
    Operator,
    PoissonGaussianNoise,
    PoissonNoise,
    prior_from_denoiser,
    restore,
    time_grid,
)
from cvsa_jax.operators import Matrix
from cvsa_jax.samplers import SAMPLERS, particles, with_corrections
from cvsa_jax.samplers.monte_carlo import _systematic
from cvsa_jax.types import Estimate, Info

SHAPE = (2, 1, 1)


def test_particles_weigh_the_modes_of_the_posterior():
    """Two modes, one measured number: the share of each is the closed form's, which guidance alone misses."""
    weights, means, variance, noise_std = np.array([0.2, 0.8]), np.array([[1.0, 1.0], [-1.0, -0.5]]), 0.05, 0.5
    row, y = np.array([0.6, -0.8]), 0.2
    spread = variance * row @ row + noise_std**2
    posterior = weights * np.exp(-((y - means @ row) ** 2) / (2 * spread))
    posterior /= posterior.sum()
    mixture = GaussianMixture(jnp.asarray(weights), jnp.asarray(means).reshape(2, *SHAPE), variance)
    prior = prior_from_denoiser(mixture, CLD())
    count, runs = 1000, 8

    @jax.jit
    @jax.vmap
    def run(key):
        return restore(
            key, jnp.array([y]), Matrix(jnp.asarray(row[None], jnp.float32)), prior, image_shape=SHAPE,
            noise_std=noise_std, num_steps=100, sampler="particles", guidance="second_moment", num_particles=count,
        )  # fmt: skip

    result = run(jax.random.split(jax.random.key(0), runs))
    x = np.asarray(result.image, np.float64).reshape(runs, count, 2)
    effective = np.asarray(result.trace.effective_size)
    assert (effective >= 1).all()
    assert (effective <= count * (1 + 1e-5)).all()
    # Draws of one run share parents, so that the error is taken from independent runs; it is bounded too.
    shares = (x[..., 0] > 0).mean(1)
    assert abs(shares.mean() - posterior[0]) < 4 * shares.std(ddof=1) / runs**0.5
    assert shares.std(ddof=1) < 3 * (posterior[0] * posterior[1] / count) ** 0.5
    first = x[..., 0] > 0
    gain = variance * row / spread
    for k, chosen in enumerate((first, ~first)):
        expected = means[k] + gain * (y - means[k] @ row)
        np.testing.assert_allclose(x[chosen].mean(0), expected, atol=0.02)
        covariance = variance * np.eye(2) - np.outer(gain, row) * variance
        np.testing.assert_allclose(np.cov(x[chosen].T), covariance, atol=0.12 * variance)


def test_systematic_resampling_rounds_each_expected_count():
    weights = np.random.default_rng(0).dirichlet(np.full(50, 0.2))
    for seed in range(20):
        parents = np.asarray(_systematic(jax.random.key(seed), jnp.log(jnp.asarray(weights, jnp.float32))))
        counts = np.bincount(parents, minlength=50)
        assert counts.sum() == 50
        assert (np.abs(counts - 50 * weights) < 1 + 1e-3).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs num_particles"),
        ({"num_particles": 1}, "num_particles must be at least 2, got 1"),
        ({"num_particles": 4, "num_corrections": 1}, "correction steps are for samplers of one chain"),
        ({"num_particles": 4, "start": "guess"}, "particles starts from noise"),
        ({"num_particles": 4, "sampler": "ancestral"}, "num_particles is for a population of particles"),
    ],
)
def test_bad_populations_are_refused(settings, message):
    prior = prior_from_denoiser(lambda x, sigma: x, CLD())
    with pytest.raises(ValueError, match=message):
        restore(
            jax.random.key(0), jnp.ones(SHAPE), lambda x: x, prior, image_shape=SHAPE, noise_std=0.1,
            **{"sampler": "particles"} | settings,
        )  # fmt: skip


def test_one_particle_is_no_population():
    with pytest.raises(ValueError, match="at least 2 particles"):
        particles(CLD(), time_grid("quadratic", 5, CLD()), num_particles=1)


@flax.struct.dataclass
class Projecting(Operator):
    """An operator with a search of its own."""

    gain: float = 1.0

    def __call__(self, x):
        return self.gain * x

    def project(self, x, y):
        return y / self.gain


def photons_moments(rate, count, variance):
    """Mean and deviation of x ~ N(0, variance) given a count of Poisson(rate (x + 1)/2), by summing over a grid."""
    x = np.linspace(-1, 4, 200001)[1:]
    log = count * np.log(rate * (x + 1) / 2) - rate * (x + 1) / 2 - x**2 / (2 * variance)
    weight = np.exp(log - log.max())
    mean = x @ weight / weight.sum()
    return mean, ((x - mean) ** 2 @ weight / weight.sum()) ** 0.5


class Quartic(NamedTuple):
    """Noise of one's own of the density exp(-(n / scale)^4): of fixed variance, and not Gaussian."""

    scale: float
    known: bool = True

    @property
    def fixed(self):
        return True

    def check(self):
        pass

    def sample(self, key, clean):
        return clean + self.scale * jax.random.generalized_normal(key, 4.0, clean.shape, clean.dtype)

    def variance(self, predicted):
        return self.scale**2 * math.gamma(3 / 4) / math.gamma(1 / 4)

    def log_likelihood(self, measurement, predicted):
        return -jnp.sum(((measurement - predicted) / self.scale) ** 4) if self.known else None


def test_particles_weigh_noise_of_ones_own_by_its_own_likelihood():
    """Its posterior, by summing over a grid; under Gaussian noise of its variance it would be .897 and .251."""
    y, scale, shape = 1.2, 0.5, (1, 1, 1)
    x = np.linspace(-3, 4, 20001)
    weight = np.exp(-(x**2) / 0.5 - ((y - x) / scale) ** 4)
    mean = x @ weight / weight.sum()
    deviation = ((x - mean) ** 2 @ weight / weight.sum()) ** 0.5
    prior = prior_from_denoiser(Gaussian(jnp.zeros(shape), 0.25), CLD())
    found = restore(
        jax.random.key(0), jnp.full(shape, y), lambda image: image, prior, image_shape=shape, noise_std=Quartic(scale),
        num_steps=40, sampler="particles", guidance="covariance", num_particles=4000,
    ).image  # fmt: skip
    assert float(found.mean()) == pytest.approx(mean, abs=0.02)
    assert float(found.std()) == pytest.approx(deviation, abs=0.02)


# The proposals of `plug_in` are over-confident, so that few particles of it count.
@pytest.mark.parametrize(
    ("guidance", "allowed"),
    [("covariance", 0.02), ("diagonal_covariance", 0.02), ("second_moment", 0.02), ("projection", 0.02),
     ("plug_in", 0.04)],
)  # fmt: skip
def test_particles_draw_the_posterior_with_every_form_whose_likelihood_is_known(guidance, allowed):
    """Mean and deviation for one number: under Gaussian noise, and for two photons where eight would be white."""
    shape, variance = (1, 1, 1), 0.25
    prior = prior_from_denoiser(Gaussian(jnp.zeros(shape), variance), CLD())
    exact = (0.6 * variance / (variance + 0.09), (variance * 0.09 / (variance + 0.09)) ** 0.5)
    same = lambda image: image  # noqa: E731
    for y, noise, (mean, deviation) in (
        (0.6, 0.3, exact), (-0.5, PoissonNoise(8.0), photons_moments(8.0, 2, variance))
    ):  # fmt: skip
        found = jax.jit(
            lambda key, y=y, noise=noise: restore(
                key, jnp.full(shape, y), same, prior, image_shape=shape, noise_std=noise, num_steps=40,
                sampler="particles", guidance=guidance, num_particles=4000,
            ).image
        )(jax.random.key(0))  # fmt: skip
        x = np.asarray(found, np.float64)
        # Three deviations of independent draws would be .01; resampling makes them dependent.
        assert x.mean() == pytest.approx(mean, abs=allowed)
        assert x.std() == pytest.approx(deviation, abs=allowed)


@pytest.mark.parametrize(
    ("guidance", "operator", "noise"),
    [
        ("second_moment", lambda x: x, 0.1),  # conjugate gradients do not tell the determinant
        ("diagonal_covariance", lambda x: x, 0.1),  # nor of a covariance that depends on u_t
        ("covariance", jnp.tanh, 0.1),  # nor of a derivative that does
        ("covariance", lambda x: x, PoissonNoise(9.0)),  # nor of noise that does
        ("normalized_plug_in", lambda x: x, 0.1),  # no solution of a Gaussian's system
        ("projection", Projecting(), 0.1),
        ("covariance", lambda x: x[:1, :1], PoissonGaussianNoise(9.0, 0.1)),  # a sum over all counts
        ("covariance", lambda x: x[:1, :1], Quartic(0.1, known=False)),
    ],
)
def test_particles_refuse_what_has_no_known_likelihood(guidance, operator, noise):
    prior = prior_from_denoiser(lambda x, sigma: x / (1 + sigma**2), CLD())
    y = operator(jnp.ones((5, 5, 1)))
    with pytest.raises(ValueError, match="knows log p"):
        restore(
            jax.random.key(0), y, operator, prior, image_shape=(5, 5, 1), noise_std=noise, num_steps=3,
            sampler="particles", guidance=guidance, num_particles=4,
        )  # fmt: skip


def test_corrections_keep_the_marginal_and_cost_an_evaluation_each():
    """With x_0 known, u before and after the corrections of a step is N(a_t x_0, S_t)."""
    cld, truth, count = CLD(), 0.7, 20000
    times = time_grid("logarithmic", 12, cld)
    asked = []

    def mean(x, v, index, dual=None):
        asked.append(1)
        return Estimate(jnp.full(SHAPE, truth), Info(jnp.zeros(())))

    chain = SAMPLERS["ancestral"](cld, times)
    still = chain._replace(step=lambda state, index, mean: (state, Info(jnp.zeros(()))))
    corrected = with_corrections(still, cld, times, 3)
    index = 5
    a, root = cld.data_direction(times[index]), np.linalg.cholesky(cld.covariance(times[index]))

    @jax.jit
    @jax.vmap
    def one(key):
        state = chain.init(key, SHAPE)
        x, v = root @ jnp.stack([state.x.ravel(), state.v.ravel() / cld.mass**0.5])
        state = state._replace(x=a[0] * truth + x.reshape(SHAPE), v=a[1] * truth + v.reshape(SHAPE))
        after, _ = corrected.step(state, index, mean)
        return jnp.stack([after.x[0, 0, 0], after.v[0, 0, 0]])

    u = np.asarray(one(jax.random.split(jax.random.key(1), count)), np.float64)
    expected = cld.covariance(times[index])
    deviation = np.sqrt(np.diag(expected))
    assert (np.abs(u.mean(0) - a * truth) < 4 * deviation / count**0.5).all()
    np.testing.assert_allclose(
        np.cov(u.T) / np.outer(deviation, deviation), expected / np.outer(deviation, deviation),
        atol=4 * 2**0.5 / count**0.5,
    )  # fmt: skip
    asked.clear()
    with jax.disable_jit():
        corrected.step(chain.init(jax.random.key(0), SHAPE), index, mean)
    assert len(asked) == 3


def test_corrections_need_the_grids_own_times():
    cld = CLD()
    times = time_grid("quadratic", 20, cld)
    with pytest.raises(ValueError, match="own times"):
        with_corrections(SAMPLERS["sscs"](cld, times), cld, times, 1)
