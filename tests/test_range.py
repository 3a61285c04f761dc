"""Diffusions, noise and numbers at the ends of what float32 holds; what is refused in one sentence."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import (
    CLD,
    Calibration,
    Gaussian,
    GaussianMixture,
    SamplerSettings,
    metrics,
    networks,
    prior_from_denoiser,
    restore,
    time_grid,
)
from cvsa_jax.coefficients import MOST_NOISE, coefficients
from cvsa_jax.parameterizations import own
from cvsa_jax.samplers import SAMPLERS
from cvsa_jax.spectral import Spectrum

SHAPE = (4, 4, 1)
# Their effective noise at t = 1 is about 1e24, 1e22, 1e50: its square, or itself, is beyond float32.
FAR = [CLD(beta=30.0), CLD(mass=0.005), CLD(beta=60.0)]
SPECTRUM = Spectrum(((1e-2,) * 6 + (1e-4,) * 6,), (0.3,))


def gaussian_prior(cld, **fields):
    return prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), 0.25), cld).replace(**fields)


@pytest.mark.parametrize("cld", FAR, ids=str)
@pytest.mark.parametrize("guidance", ["covariance", "spectral_covariance", "normalized_plug_in", "second_moment"])
def test_diffusions_that_forget_everything_restore(cld, guidance):
    """As a gentle one does: the posterior mean of white pixels, y .25 / (.25 + .01)."""
    calibration = Calibration(np.array([0.1, 1.0, 10.0]), np.array([0.0096, 0.2, 0.25]))
    prior = gaussian_prior(cld, spectrum=SPECTRUM, calibration=calibration)
    y = jnp.linspace(-0.5, 0.5, 16).reshape(SHAPE)
    image = restore(
        jax.random.key(0), y, lambda x: x, prior, image_shape=SHAPE, noise_std=0.1, num_steps=60, guidance=guidance
    ).image
    assert np.isfinite(image).all()
    if guidance == "covariance":
        np.testing.assert_allclose(image, y / 1.04, atol=0.12)


@pytest.mark.parametrize("cld", FAR, ids=str)
def test_a_state_that_tells_nothing_gives_the_priors_mean(cld):
    """At any time the numbers are float32's; their relations are those of the diffusion."""
    x, v = jax.random.normal(jax.random.key(0), (2, *SHAPE))
    mean = GaussianMixture(
        jnp.array([0.25, 0.75]), jnp.ones((2, *SHAPE)) * jnp.array([-1.0, 1.0])[:, None, None, None], 0.04
    )
    priors = (prior_from_denoiser(Gaussian(jnp.full(SHAPE, 0.5), 0.25), cld), prior_from_denoiser(mean, cld))
    for prior in priors:
        np.testing.assert_allclose(prior.posterior_mean(x, v, 1.0), 0.5, atol=1e-3)
        assert np.isfinite(prior.velocity_score(x, v, 1.0)).all()
    c = coefficients(cld, np.array([0.01, 1.0]))
    assert c.noise[1] == MOST_NOISE and c.noise[0] < 10
    np.testing.assert_allclose(c.mean_v / c.data, c.noise**2, rtol=1e-6)  # C' = s^2 J', as guidance takes it


def test_error_at_any_noise():
    """s^2 / (1 + 4 s^2) and its shares, V s^2 / (V + s^2) scaled to it, from 1e-18 to 1e30."""
    noise = np.array([1e-18, 1e-6, 0.3, 1e6, 1e25, 1e30])
    prior = gaussian_prior(CLD(), spectrum=SPECTRUM)
    expected = noise**2 / (1 + 4 * noise**2)
    np.testing.assert_allclose(jax.vmap(prior.error_variance)(jnp.asarray(noise)), expected, rtol=1e-5)
    variance = np.array([1e3, 0.2, 1e-5])
    shares = variance * noise[:, None] ** 2 / (variance + noise[:, None] ** 2)
    shares *= (expected / shares.mean(-1))[:, None]
    found = jax.vmap(lambda s: prior.error_spectrum(s, variance))(jnp.asarray(noise))
    np.testing.assert_allclose(found, shares, rtol=1e-5)
    calibrated = gaussian_prior(CLD(), calibration=Calibration(np.array([1e-2, 1.0]), np.array([8e-5, 0.16])))
    ends = jax.vmap(calibrated.error_variance)(jnp.asarray(noise[[0, -1]]))
    np.testing.assert_allclose(ends, [8e-5 * 1.0004 * 1e-32, 0.16 * 5 / 4], rtol=1e-3)


def test_denoisers_at_a_noise_whose_square_overflows():
    x = 1e25 * jax.random.normal(jax.random.key(0), (2, 2, 1))
    covariance = jnp.diag(jnp.array([0.1, 0.2, 0.3, 0.4]))
    mixture = GaussianMixture(
        jnp.array([0.25, 0.75]), jnp.ones((2, *x.shape)) * jnp.array([-1.0, 1.0])[:, None, None, None], 0.04
    )
    for denoise in (Gaussian(jnp.full(x.shape, 0.5), covariance), mixture):
        np.testing.assert_allclose(denoise(x, jnp.float32(1e25)), 0.5, atol=1e-6)


@pytest.mark.parametrize("spectrum", [None, SPECTRUM])
def test_a_network_is_scaled_at_any_noise(spectrum):
    """It sees numbers of size one, and what it answers is scaled by the data's deviation."""
    options = {"channels": (4,), "encoder_blocks": (1,), "decoder_blocks": (1,), "patch": 1}
    spec = networks.NetworkSpec(image_channels=1, image_size=8, options=options, spectrum=spectrum)
    seen = []

    def ones(params, x, label):
        seen.append((x, label))
        return jnp.ones((*x.shape[:-1], 1))

    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 1))
    large, small = (own.edm_denoise(spec, ones, {}, s * x, jnp.array([s])) for s in (1e25, 1e4))
    np.testing.assert_allclose(large, small, atol=1e-3)
    np.testing.assert_allclose(seen[0][0], seen[1][0], rtol=1e-5)
    np.testing.assert_allclose(seen[0][1], math.log(own.LARGEST_NOISE) / 4, rtol=1e-6)
    deviation = own.output_variance(spec, jnp.array([1e25, 1e4]))
    np.testing.assert_allclose(deviation[0], deviation[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("noise", "error"),
    [([0.1, 1.0], [0.0, 0.1]), ([0.1, 1.0], [0.1, math.nan]), ([1.0, 0.1], [0.1, 0.1]), ([0.0, 1.0], [0.1, 0.1]),
     ([0.1, 1.0], [0.1])],
)  # fmt: skip
def test_a_calibration_without_errors_is_refused(noise, error):
    calibration = Calibration(np.array(noise), np.array(error))
    with pytest.raises(ValueError, match="an error above zero"):
        gaussian_prior(CLD(), calibration=calibration)
    with pytest.raises(ValueError, match="an error above zero"):
        prior_from_denoiser(lambda x, s: x, CLD(), Calibration(*map(jnp.asarray, calibration)))


@pytest.mark.parametrize("method", ["posterior_mean", "velocity_score"])
def test_times_without_an_answer_are_refused(method):
    prior, x = gaussian_prior(CLD()), jnp.zeros(SHAPE)
    for t in (0.0, 0, -0.1, 1.5, math.nan):
        with pytest.raises(ValueError, match="the time must be above 0 and at most 1"):
            getattr(prior, method)(x, x, t)
    with pytest.raises(ValueError, match="the time must be a plain number"):
        jax.jit(lambda t: getattr(prior, method)(x, x, t))(0.5)


@pytest.mark.parametrize("name", ["num_steps", "num_corrections", "t_start", "t_end"])
def test_what_makes_the_program_cannot_be_traced(name):
    values = {"num_steps": 5, "num_corrections": 1, "t_start": 0.9, "t_end": 0.1}
    with pytest.raises(ValueError, match=f"{name} must be a plain number"):
        jax.jit(lambda value: jnp.asarray(SamplerSettings(**{name: value}).num_steps))(values[name])


def test_constants_of_the_diffusion_cannot_be_traced():
    with pytest.raises(ValueError, match="beta must be a plain number"):
        jax.jit(lambda beta: jnp.asarray(CLD(beta=beta).mass))(4.0)


def test_a_diffusion_beyond_double_precision_is_refused():
    with pytest.raises(ValueError, match=r"at t_start=1 .* cannot be computed with"):
        time_grid("uniform", 10, CLD(beta=400.0))
    with pytest.raises(ValueError, match=r"at t_end=1e-16 .* cannot be computed with"):
        time_grid("uniform", 10, CLD(), t_end=1e-16)


@pytest.mark.parametrize("sampler", ["ddim", "multistep", "ancestral_multistep", "particles"])
def test_a_diffusion_whose_tables_overflow_is_refused(sampler):
    """It ended in NaN, for a friction a million times the mass's."""
    with pytest.raises(ValueError, match="the diffusion's tables exceed float32"):
        SAMPLERS[sampler](CLD(friction=1e6), time_grid("logarithmic", 10, CLD(friction=1e6)))


@pytest.mark.parametrize("sampler", ["multistep", "particles"])
def test_tables_are_finite_at_early_ends(sampler):
    SAMPLERS[sampler](CLD(), time_grid("logarithmic", 10, CLD(), t_end=1e-8))


def test_quality_of_not_a_number_is_not_a_number():
    image = np.zeros((12, 12, 3))
    for other in (np.full(image.shape, np.nan), np.where(np.arange(12)[:, None, None] == 3, np.nan, image)):
        for measure in (metrics.psnr, metrics.ssim):
            assert math.isnan(measure(image, other)) and math.isnan(measure(other, image))
    assert math.isnan(metrics.kernel_mse(np.ones((5, 5)), np.full((5, 5), np.nan)))
