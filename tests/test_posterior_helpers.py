"""Samples of a Gaussian's posterior, which is known, and what is said of samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from cvsa_jax import CLD, Gaussian, coverage, prior_from_denoiser, restore, sample_posterior, summarise
from cvsa_jax.posterior import expected_error, interval
from cvsa_jax.types import UnsuitableError

SHAPE, VARIANCE, NOISE = (32, 32, 1), 0.25, 0.4
PRIOR = prior_from_denoiser(Gaussian(jnp.zeros(()), jnp.asarray(VARIANCE)), CLD())


def halved(x):
    return x / 2


def test_samples_of_a_gaussian_have_its_posterior():
    """Mean and deviation are the exact ones, and the interval holds the truth as often as it says.

    1024 independent pixels and 24 samples: the standard error of the coverage is sqrt(.9 .1 / 1024) = .0094, of the
    mean of the squared deviations sqrt(2 / (23 1024)) = .9 %.
    """
    generator = np.random.default_rng(0)
    truth = VARIANCE**0.5 * generator.normal(size=SHAPE)
    y = jnp.asarray(truth / 2 + NOISE * generator.normal(size=SHAPE), jnp.float32)
    draw = jax.jit(lambda y: sample_posterior(
        jax.random.key(1), 24, y, halved, PRIOR, image_shape=SHAPE, noise_std=NOISE, batch_size=10, num_steps=60
    ))  # fmt: skip
    samples = draw(y)
    assert samples.shape == (24, *SHAPE)
    variance = 1 / (1 / VARIANCE + 0.25 / NOISE**2)
    exact = variance * 0.5 * np.asarray(y) / NOISE**2
    found = summarise(samples)
    assert float(np.mean(found.std**2)) == pytest.approx(variance, rel=0.04)
    # The mean of 24 draws is off by its own chance, and by nothing else.
    assert float(np.mean((found.mean - exact) ** 2)) == pytest.approx(variance / 24, rel=0.2)
    assert coverage(samples, truth) == pytest.approx(0.9, abs=3 * 0.0094)
    assert coverage(samples, truth, 0.5) == pytest.approx(0.5, abs=3 * 0.0156)
    error = np.sqrt(np.mean((found.mean - truth) ** 2))
    assert error == pytest.approx(expected_error(samples), rel=0.07)


def test_a_sample_is_what_restore_gives_whatever_the_batch():
    y = jnp.full((4, 4, 1), 0.1)
    options = {
        "image_shape": (4, 4, 1),
        "noise_std": NOISE,
        "num_steps": 4,
        "sampler": "ddim",
        "guidance": "covariance",
    }
    keys = jax.random.split(jax.random.key(2), 3)
    alone = jnp.stack([restore(k, y, halved, PRIOR, **options).image for k in keys])
    assert float(jnp.abs(alone[0] - alone[1]).max()) > 0.1
    for batch_size in (1, 2, 8):
        found = sample_posterior(jax.random.key(2), 3, y, halved, PRIOR, batch_size=batch_size, **options)
        np.testing.assert_allclose(found, alone, atol=1e-5)


def test_a_summary_is_of_its_definition():
    """Against the numbers written out for two samples: t of one degree of freedom at .95 is 6.3138."""
    samples = np.array([[1.0, 4.0], [3.0, 4.0]])
    found = summarise(samples, 0.9)
    np.testing.assert_allclose(found.mean, [2, 4])
    np.testing.assert_allclose(found.std, [2**0.5, 0])
    half = 6.313752 * 1.5**0.5 * 2**0.5
    np.testing.assert_allclose(found.low, [2 - half, 4], rtol=1e-6)
    np.testing.assert_allclose(found.high, [2 + half, 4], rtol=1e-6)
    np.testing.assert_allclose(interval(samples.T, 0.9, axis=1), (found.low, found.high))
    assert coverage(samples, [2 + half - 0.01, 4.1]) == 0.5
    assert coverage(samples, [2 + half - 0.01, 4.1], slack=0.2) == 1.0
    assert expected_error(samples) == pytest.approx(1.5**0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *((lambda ask=ask: ask(np.zeros((1, 3))), "two or more samples, got 1")
          for ask in (summarise, interval, expected_error, lambda samples: coverage(samples, samples[0]))),
        (lambda: expected_error(0.0), "two or more samples, got 0"),
        (lambda: summarise(np.zeros((2, 3)), 1.0), "above 0 and below 1, got 1.0"),
        (lambda: coverage(np.zeros((2, 3)), np.zeros(4)), r"shape \(3,\), but the truth of \(4,\)"),
        (lambda: sample_posterior(
            jax.random.key(0), 0, jnp.zeros(SHAPE), halved, PRIOR, image_shape=SHAPE, noise_std=NOISE
        ), "count and batch_size must be at least 1, got 0 and 8"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_particles_are_no_independent_samples():
    with pytest.raises(UnsuitableError, match="call restore"):
        sample_posterior(
            jax.random.key(0), 2, jnp.zeros((4, 4, 1)), Partial(halved), PRIOR, image_shape=(4, 4, 1), noise_std=NOISE,
            sampler="particles", num_particles=2, num_steps=3, guidance="second_moment",
        )  # fmt: skip
