"""Blind deblurring: the pair of chains, the evidence of a kernel, the search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import CLD, Calibration, Gaussian, prior_from_denoiser, run_steps, spectral
from cvsa_jax.batch import BatchRestorer, KernelPrior, guided_loops
from cvsa_jax.blind import BlindConvolution, Layout, PairPrior, blind_loop
from cvsa_jax.evidence import evidence, first_evidence, fourier_spectrum
from cvsa_jax.guidance import conditional_mean
from cvsa_jax.kernel_search import KernelSearch, SearchSettings
from cvsa_jax.noise import GaussianNoise
from cvsa_jax.operators import (
    convolution,
    gaussian_kernel,
    image_to_kernel,
    kernel_to_image,
    motion_kernel,
    simulate,
)
from cvsa_jax.operators.kernel_blur import Convolution
from cvsa_jax.operators.kernels import centred, draw_kernel, draw_kernels
from cvsa_jax.plans import make_plan
from cvsa_jax.priors import coefficients
from cvsa_jax.sampler_settings import SamplerSettings

LAYOUT = Layout((12, 10, 1), 6)


def gaussian_pair(layout=LAYOUT, spread=0.05) -> PairPrior:
    cld, side = CLD(), layout.kernel_side
    kernel = kernel_to_image(gaussian_kernel(side - 1, 1.0), side)
    calibration = Calibration(np.array([0.01, 1.0, 100.0]), np.array([1e-4, 0.03, 0.05]))
    return PairPrior(
        prior_from_denoiser(Gaussian(jnp.zeros(layout.image_shape), 0.25), cld),
        prior_from_denoiser(Gaussian(jnp.asarray(kernel, jnp.result_type(float)), spread), cld, calibration),
        layout,
    )


def test_packing_loses_nothing():
    image, kernel = jnp.arange(120.0).reshape(12, 10, 1), -jnp.arange(36.0).reshape(6, 6, 1)
    vector = LAYOUT.pack(image, kernel)
    assert vector.shape == (LAYOUT.size,)
    again = LAYOUT.unpack(vector)
    np.testing.assert_array_equal(again[0], image)
    np.testing.assert_array_equal(again[1], kernel)


def test_printed_guidance_is_the_gradient_in_both_velocities(float64):
    """Algorithm 2: the gradients of one residual, in v and in v', by central differences."""
    pair, t, noise_std = gaussian_pair(), 0.2, 0.3
    generator = np.random.default_rng(0)
    x, v = (jnp.asarray(0.3 * generator.normal(size=LAYOUT.size)) for _ in range(2))
    y = jnp.asarray(generator.normal(size=LAYOUT.image_shape))
    operator = lambda vector: BlindConvolution()(*LAYOUT.unpack(vector))  # noqa: E731
    c = jax.tree.map(jnp.asarray, coefficients(pair.cld, t))
    found = conditional_mean(y, operator, pair, noise_std, "printed_plug_in", np.array([t]))(x, v, 0)
    score = np.asarray(c.data * found.correction)

    def log_likelihood(v):
        return -jnp.sum((y - operator(pair.mean(x, v, c))) ** 2) / (2 * noise_std**2)

    for i in [0, 57, 119, 121, 135, 150]:  # pixels of the image, then of the kernel
        shift = jnp.zeros(LAYOUT.size).at[i].set(1e-6)
        slope = (log_likelihood(v + shift) - log_likelihood(v - shift)) / 2e-6
        assert float(slope) == pytest.approx(score[i], rel=1e-4, abs=1e-4 * np.abs(score).max())


@pytest.mark.parametrize("sampler", ["euler_maruyama", "ancestral", "decoupled"])
def test_state_has_both_chains_through_one_scan(sampler):
    pair = gaussian_pair()
    plan = make_plan(SamplerSettings(sampler, "plug_in", num_steps=30), pair.cld)
    chain = blind_loop(jnp.zeros(LAYOUT.image_shape), BlindConvolution(), pair, GaussianNoise(0.5), plan)
    state = chain.init(jax.random.key(0), LAYOUT.image_shape)
    assert (state.x.shape, state.v.shape) == (LAYOUT.image_shape,) * 2
    assert (state.k.shape, state.kernel_v.shape) == ((6, 6, 1),) * 2
    last, info = jax.jit(lambda s: run_steps(chain, s, 0, 30))(state)
    assert all(np.isfinite(a).all() for a in (last.x, last.k, info.residual))
    assert info.residual.shape == (30,)
    with pytest.raises(ValueError, match="layout"):
        chain.init(jax.random.key(0), (8, 8, 1))


def test_a_blind_batch_gives_what_each_gives_alone():
    layout = Layout((8, 8, 1), 6)
    pair = gaussian_pair(layout)
    kernel = KernelPrior(pair.kernel, lambda canvas: 6)
    loops = guided_loops(pair.image, GaussianNoise(0.2), SamplerSettings(num_steps=8), kernel)
    restorer = BatchRestorer(pair.image, loops, 8, kernel)
    keys = jax.random.split(jax.random.key(0), 3)
    measurements = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
    together = restorer(keys, measurements, [BlindConvolution()] * 3, (8, 8, 1))
    assert together.kernels.shape == (3, 5, 5)
    np.testing.assert_allclose(together.kernels.sum((1, 2)), 1, rtol=1e-5)
    for i in range(3):
        alone = restorer(keys[i : i + 1], measurements[i : i + 1], [BlindConvolution()], (8, 8, 1))
        np.testing.assert_allclose(alone.images[0], together.images[i], atol=2e-4)
        np.testing.assert_allclose(alone.kernels[0], together.kernels[i], atol=2e-4)


@pytest.fixture(scope="module")
def random_field():
    """A spectrum, and an image of 48x48 drawn from it."""
    spectrum = spectral.Spectrum((tuple(float(0.02 / f**2) for f in spectral.KNOTS),), (0.3,))
    coefficients = np.sqrt(spectrum.grid(48, 48)) * np.random.default_rng(3).normal(size=(48, 48, 1))
    return spectrum, np.asarray(spectral.backward(jnp.asarray(coefficients, jnp.float32)))


def test_fourier_spectrum_is_the_power_of_the_fields(random_field):
    """The mean power of windowed fields, frequency by frequency, against the table."""
    spectrum, _ = random_field
    generator = np.random.default_rng(0)
    draws = np.sqrt(spectrum.grid(32, 32)) * generator.normal(size=(400, 32, 32, 1))
    fields = np.asarray(spectral.backward(jnp.asarray(draws, jnp.float32)))
    window = np.sin(np.pi * (np.arange(32) + 0.5) / 32)
    z = np.fft.rfft2(fields[..., 0] * 2 * window[:, None] * window)
    power = (np.abs(z) ** 2).mean(0) / 32**2
    table = fourier_spectrum(spectrum, 32, 32, 1)[..., 0]
    middle = (slice(4, 13), slice(4, 13))
    assert np.mean(power[middle] / table[middle]) == pytest.approx(1.0, abs=0.15)


def test_first_evidence_prefers_the_true_kernel(random_field):
    """Among thirty kernels and the identity; and it cannot tell the kernel from itself turned."""
    spectrum, image = random_field
    generator = np.random.default_rng(5)
    true = motion_kernel(generator, 11, 0.5)
    y = simulate(jax.random.key(0), convolution(true), jnp.asarray(image), 0.02)
    others = [motion_kernel(generator, 11, 0.5) for _ in range(30)] + [gaussian_kernel(11, 0.2)]
    kernels = jnp.asarray(np.stack([true, true[::-1, ::-1], *others]), jnp.float32)
    cost = np.asarray(first_evidence(y, kernels, spectrum, 0.02**2))
    assert cost[0] == pytest.approx(cost[1], abs=0.2)
    assert cost[2:].min() > cost[0] - 2


def test_evidence_prefers_the_true_kernel_and_a_plausible_image(random_field):
    """At the true image, over the kernel turned, a narrower and a wider one; and over what the blur hides."""
    spectrum, image = random_field
    prior = field_prior(spectrum)
    true = motion_kernel(np.random.default_rng(5), 11, 0.5).astype(np.float32)
    binomial = np.zeros((11, 11), np.float32)
    binomial[4:7, 4:7] = np.outer([1, 2, 1], [1, 2, 1]) / 16

    @jax.jit
    def cost(measured_by, kernel, image_then):
        y = simulate(jax.random.key(0), Convolution(measured_by), jnp.asarray(image), 0.02)
        return evidence(jax.random.key(1), y, image_then, kernel, prior, lambda x: x, 4e-4)

    others = [true[::-1, ::-1], gaussian_kernel(11, 0.3), gaussian_kernel(11, 4.0)]
    costs = [float(cost(true, jnp.asarray(k, jnp.float32), image)) for k in (true, *others)]
    assert min(costs[1:]) > costs[0] + 100
    board = 0.5 * (-1.0) ** np.add.outer(np.arange(48), np.arange(48))[..., None]
    np.testing.assert_allclose(convolution(binomial)(jnp.asarray(board)), 0, atol=1e-6)  # it explains y as well
    clean, hidden = (float(cost(binomial, jnp.asarray(binomial), x)) for x in (image, image + board))
    assert hidden > clean + 100


def field_prior(spectrum):
    """The Gaussian prior of 48x48 fields of a spectrum, with its exact calibration."""
    grid, noises = spectrum.grid(48, 48), np.geomspace(0.01, 100, 12)
    prior = prior_from_denoiser(spectral.SpectralGaussian(jnp.asarray(grid, jnp.float32)), CLD())
    error = np.array([np.mean(grid * s**2 / (grid + s**2)) for s in noises])
    return prior.replace(
        spectrum=spectrum, calibration=Calibration(noises.astype(np.float32), error.astype(np.float32))
    )


def test_search_finds_the_kernel_of_a_field(random_field):
    """A Gaussian prior of the field and a weak one of kernels: nearer than the identity, and centred."""
    spectrum, image = random_field
    prior = field_prior(spectrum)
    kernels = np.stack([kernel_to_image(draw_kernel(np.random.default_rng(i), 11), 12) for i in range(200)])
    kernel_prior = prior_from_denoiser(
        Gaussian(jnp.asarray(kernels.mean(0), jnp.float32), jnp.asarray(kernels.var(0) + 1e-4, jnp.float32)), CLD()
    )
    true = motion_kernel(np.random.default_rng(5), 11, 0.5)
    y = np.asarray(simulate(jax.random.key(0), convolution(true), jnp.asarray(image), 0.02))
    settings = SearchSettings(bank_size=256, num_guesses=2, noises=(1.0, 0.5), num_steps=8, num_kept=2)
    search, seen = KernelSearch(prior, kernel_prior, 12, 0.02, settings), []
    found = search(jax.random.key(1), y, seen.append)
    assert seen == [1, 1]
    assert settings.num_evaluations == 2 * 4 * (8 + 6)
    assert found.shape == (11, 11)
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    distance = lambda k: min(np.sum((k - t) ** 2) for t in (true, true[::-1, ::-1]))  # noqa: E731
    identity = np.zeros((11, 11))
    identity[5, 5] = 1
    assert distance(found) < 0.5 * distance(identity)
    np.testing.assert_array_equal(search(jax.random.key(1), y), found)


@pytest.mark.parametrize("family", ["gaussian", "motion"])
def test_a_search_guesses_kernels_of_its_family(random_field, family):
    """A Gaussian is the same turned by 180 degrees, a shaken camera's path is not; a mixed bank has both."""
    turned_alike = lambda k: np.abs(k - k[..., ::-1, ::-1]).max((-2, -1)) < 1e-6  # noqa: E731
    drawn = draw_kernels(np.random.default_rng(0), 200, 11, family)
    assert turned_alike(drawn).mean() == (1 if family == "gaussian" else pytest.approx(0, abs=0.1))
    assert 0.4 < turned_alike(draw_kernels(np.random.default_rng(0), 200, 11)).mean() < 0.65
    spectrum, image = random_field
    prior = gaussian_pair().image.replace(spectrum=spectrum)
    settings = SearchSettings(bank_size=64, num_guesses=4, family=family)
    search = KernelSearch(prior, gaussian_pair().kernel, 12, 0.02, settings)
    guesses = search.guesses(np.asarray(image, np.float32))
    assert turned_alike(guesses).all() == (family == "gaussian")
    with pytest.raises(ValueError, match="family of kernels"):
        draw_kernels(np.random.default_rng(0), 1, 11, "disc")


def test_search_needs_a_spectrum():
    pair = gaussian_pair()
    with pytest.raises(ValueError, match="spectrum"):
        KernelSearch(pair.image, pair.kernel, 12, 0.02)


def test_centred_kernels_lose_nothing():
    kernel = np.zeros((7, 7))
    kernel[4:6, 1:3] = 0.25
    moved = centred(kernel)
    index = np.arange(7) - 3
    assert abs(moved.sum(1) @ index) <= 0.5
    assert abs(moved.sum(0) @ index) <= 0.5
    assert np.sort(moved[moved > 0]).tolist() == [0.25] * 4


def test_any_state_stands_for_a_kernel():
    """Non-negative weights of sum one."""
    for seed in range(3):
        weights = image_to_kernel(3 * jax.random.normal(jax.random.key(seed), (6, 6, 1)))
        assert float(weights.min()) >= 0
        assert float(weights.sum()) == pytest.approx(1, abs=1e-5)
