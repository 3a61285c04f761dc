"""Priors that know some noise only: where their loops begin, and two of them as one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from cvsa_jax import CLD, Calibration, GaussianNoise, SamplerSettings, make_operator, prior_from_denoiser, restore
from cvsa_jax.denoising import denoising_error
from cvsa_jax.experts import experts
from cvsa_jax.guesses import linear_solution
from cvsa_jax.operators import Identity
from cvsa_jax.plans import make_plan, within
from cvsa_jax.sampler_settings import GUESS, SOLUTION
from cvsa_jax.samplers.unconditional import sample_prior
from cvsa_jax.spectral import KNOTS, SpectralGaussian, Spectrum

SHAPE, LIMIT = (16, 16, 3), 0.6
FIELD = Spectrum(tuple(tuple(a / np.array(KNOTS) ** 2) for a in (1e-2, 1e-3, 1e-4)), (0.3, 0.1, 0.02))


def field_prior(scale=1.0, **facts):
    denoise = SpectralGaussian(jnp.asarray(scale * FIELD.grid(*SHAPE[:2]), jnp.float32))
    return dataclasses.replace(prior_from_denoiser(denoise, CLD()), spectrum=FIELD, channels=3, **facts)


def _only_below(limit, denoise, x, sigma):
    return jnp.where(sigma <= limit * (1 + 1e-5), denoise(x, sigma), jnp.nan)


def limited(limit=LIMIT):
    """The field's own denoiser, which answers NaN above the limit."""
    whole = field_prior()
    return dataclasses.replace(
        prior_from_denoiser(Partial(_only_below, limit, whole.mean.args[0]), CLD()),
        spectrum=FIELD, channels=3, highest_noise=limit,
    )  # fmt: skip


@pytest.fixture(scope="module")
def measured():
    """(operator, truth, y) of a blurred field."""
    operator = make_operator("gaussian_deblur", np.random.default_rng(0), *SHAPE[:2])
    noise = jax.random.normal(jax.random.key(0), SHAPE)
    truth = SpectralGaussian(jnp.asarray(FIELD.grid(*SHAPE[:2])))(1e3 * noise, 0.0)  # any image will do
    truth = truth / jnp.abs(truth).max()
    return operator, truth, operator(truth) + 0.05 * jax.random.normal(jax.random.key(1), SHAPE)


def run(prior, measured, **changes):
    operator, _, y = measured
    settings = SamplerSettings(num_steps=12, **changes)
    return restore(jax.random.key(2), y, operator, prior, image_shape=SHAPE, noise_std=0.05, settings=settings).image


def test_a_prior_is_never_asked_for_more_noise_than_it_knows(measured):
    """A denoiser that answers NaN above its range restores, near to where the same without a limit does."""
    _, truth, _ = measured
    found, whole = run(limited(), measured), run(field_prior(), measured)
    assert bool(jnp.isfinite(found).all())
    error = lambda x: float(jnp.mean((x - truth) ** 2) ** 0.5)  # noqa: E731
    assert error(found) < 1.1 * error(whole)
    assert bool(jnp.isnan(run(dataclasses.replace(limited(), highest_noise=None), measured)).any())


def test_the_loop_begins_at_the_highest_noise():
    cld = CLD()
    plain = SamplerSettings(num_steps=4)
    assert within(plain, cld, None) == plain
    begun = within(plain, cld, LIMIT)
    assert begun.start == SOLUTION
    assert cld.effective_noise(begun.t_start) == pytest.approx(LIMIT, rel=1e-6)
    assert within(begun, cld, LIMIT) == begun
    assert within(dataclasses.replace(plain, start=GUESS), cld, LIMIT).start == GUESS
    low = dataclasses.replace(plain, t_start=0.01)
    assert within(low, cld, LIMIT) == low
    assert make_plan(plain, cld, LIMIT).times[0] == begun.t_start
    with pytest.raises(ValueError, match="is above the noise"):
        within(dataclasses.replace(plain, t_end=0.5), cld, 1e-2)
    with pytest.raises(ValueError, match=r"starts from noise, but the prior knows noise up to 0\.6 alone"):
        make_plan(SamplerSettings(sampler="particles", num_particles=4), cld, LIMIT)


def test_a_prior_of_limited_range_has_no_samples_of_its_own():
    with pytest.raises(ValueError, match=r"knows noise up to 0\.6 alone"):
        sample_prior(jax.random.key(0), limited(), SHAPE, np.array([1.0, 0.5, 0.0]), 1)


@pytest.mark.parametrize("task", ["denoise", "gaussian_deblur", "sr2", "random_inpaint"])
def test_linear_solution_is_the_posterior_mean_of_a_gaussian_field(task, float64):
    """S H' (H S H' + n I)^-1 y by dense algebra, S from the spectrum."""
    shape = (8, 8, 3)
    operator, spectrum = make_operator(task, np.random.default_rng(0), 8, 8), FIELD
    size = int(np.prod(shape))
    h = np.asarray(jax.vmap(operator)(jnp.eye(size).reshape(size, *shape)).reshape(size, -1)).T
    from cvsa_jax import spectral

    basis = np.asarray(spectral.forward(jnp.eye(size).reshape(size, *shape)).reshape(size, size)).T  # x -> coefficients
    s = basis.T @ (spectrum.grid(8, 8).reshape(-1, 1) * basis)
    y = operator(jax.random.normal(jax.random.key(0), shape)) + 0.3 * jax.random.normal(
        jax.random.key(1), jax.eval_shape(operator, jax.ShapeDtypeStruct(shape, jnp.float64)).shape
    )
    want = (s @ h.T @ np.linalg.solve(h @ s @ h.T + 0.09 * np.eye(len(h)), np.asarray(y).ravel())).reshape(shape)
    found = linear_solution(y, operator, GaussianNoise(0.3), spectrum, shape)
    assert float(jnp.linalg.norm(found - want)) < 0.02 * float(np.linalg.norm(want))


def test_linear_solution_of_a_nonlinear_operator_solves_its_linearisation(float64):
    """x -> tanh(x), white images: each pixel's stationary point of (y - tanh x)^2 / n + x^2 / .25."""
    y = jnp.linspace(-0.6, 0.6, 16 * 3).reshape(4, 4, 3)
    found = linear_solution(y, _Tanh(), GaussianNoise(0.3), None, (4, 4, 3))
    slope = 1 - jnp.tanh(found) ** 2
    np.testing.assert_allclose(slope * (y - jnp.tanh(found)) / 0.09, found / 0.25, atol=2e-2)


class _Tanh(Identity):
    def __call__(self, x):
        return jnp.tanh(x)


def test_experts_are_each_asked_for_their_own_noise():
    """Below the limit the one, above it the other; under vmap, and in the gradient."""
    low, high = field_prior(), field_prior(4.0)
    both = experts(low, high, LIMIT)
    x, v = jax.random.normal(jax.random.key(0), (2, 3, *SHAPE))
    for noise, own in ((0.1, low), (0.59, low), (0.61, high), (20.0, high)):
        t = float(CLD().time_of_noise(noise))
        np.testing.assert_allclose(both.posterior_mean(x[0], v[0], t), own.posterior_mean(x[0], v[0], t), atol=1e-6)
        many = jax.vmap(lambda x, v, t=t: both.posterior_mean(x, v, t))(x, v)
        np.testing.assert_allclose(many[1], own.posterior_mean(x[1], v[1], t), atol=1e-6)
        found, want = (
            jax.grad(lambda x, p=p, t=t: jnp.vdot(x, p.posterior_mean(x, v[0], t)))(x[0]) for p in (both, own)
        )
        np.testing.assert_allclose(found, want, atol=1e-5)
        np.testing.assert_allclose(both.denoise(x[0], jnp.float32(noise)), own.denoise(x[0], noise), atol=1e-5)


def test_experts_of_one_prior_are_that_prior(measured):
    """The same restoration, whether one denoiser is asked or the same twice; a limited one is made whole."""
    whole = field_prior()
    want = run(whole, measured)
    np.testing.assert_allclose(run(experts(whole, whole, LIMIT), measured), want, atol=1e-4)
    made = experts(limited(), whole)
    assert made.highest_noise is None
    np.testing.assert_allclose(run(made, measured), want, atol=1e-4)


def test_the_error_of_experts_is_that_of_whoever_is_asked():
    fields = jnp.stack(
        [SpectralGaussian(jnp.ones(SHAPE))(e, 0.0) for e in jax.random.normal(jax.random.key(0), (4, *SHAPE))]
    )
    low, high = (
        dataclasses.replace(p, calibration=denoising_error(p, fields, jax.random.key(1)))
        for p in (field_prior(), field_prior(9.0))
    )
    both = experts(low, high, LIMIT)
    for noise, own in ((0.01, low), (0.3, low), (0.599, low), (0.602, high), (5.0, high), (100.0, high)):
        assert float(both.error_variance(noise)) == pytest.approx(float(own.error_variance(noise)), rel=0.05)
    known = experts(dataclasses.replace(low, calibration=None), high, LIMIT)  # one of them is taken for white
    assert float(known.error_variance(0.3)) == pytest.approx(0.09 / (1 + 4 * 0.09), rel=0.02)


@pytest.mark.parametrize(
    ("low", "high", "limit", "message"),
    [
        ({}, {}, None, "knows all noise"),
        ({"highest_noise": 0.5}, {}, 0.6, "up to 0.5, not 0.6"),
        ({"highest_noise": 0.5}, {"highest_noise": 0.4}, None, "not above 0.5"),
        ({}, {"channels": 1}, 0.6, "of 3 and of 1 channels"),
        ({}, {"cld": CLD(mass=1.0)}, 0.6, "different diffusions"),
        ({}, {}, -1.0, "must be positive"),
    ],
)
def test_experts_that_do_not_fit_are_refused(low, high, limit, message):
    with pytest.raises(ValueError, match=message):
        experts(dataclasses.replace(field_prior(), **low), dataclasses.replace(field_prior(), **high), limit)


def test_experts_fill_the_canvas_of_both():
    made = experts(field_prior(stride=4), field_prior(stride=6), LIMIT)
    assert made.canvas((13, 5, 3)) == (24, 12, 3)
    assert isinstance(
        experts(field_prior(calibration=Calibration([0.1, 1], [0.1, 0.2])), field_prior(), 0.5).calibration, Calibration
    )
