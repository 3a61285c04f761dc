"""Samplers against distributions that are known in closed form."""

import sys

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from cvsa_jax import CLD, Gaussian, GaussianMixture, guided_sampler, prior_from_denoiser, restore, run_steps, time_grid
from cvsa_jax.operators import Identity, Operator
from cvsa_jax.samplers import SAMPLERS, Loop, Sampler, prior_mean, sample_prior
from cvsa_jax.samplers.flow_steps import flow
from cvsa_jax.samplers.gaussian_bridge import bridge
from cvsa_jax.types import Estimate, Info

COUNT = 20000
SHAPE = (1, 1, 1)
CHAINS = [name for name, factory in SAMPLERS.items() if not factory(CLD(), np.array([1.0, 0.5, 0.0])).population]


def bound(sampler: Sampler, mean) -> Loop:
    """The loop of a sampler that is told E[x_0 | u_t, y]."""
    return Loop(sampler.init, lambda state, index: sampler.step(state, index, mean))


def standard_errors(samples: np.ndarray) -> tuple[float, float]:
    """Of the mean and of the standard deviation, the latter from the fourth moment."""
    rest = samples - samples.mean()
    variance = rest.var()
    return (variance / samples.size) ** 0.5, ((rest**4).mean() - variance**2) ** 0.5 / (
        2 * variance**0.5 * samples.size**0.5
    )


@pytest.mark.parametrize(
    ("sampler", "grid", "steps"),
    [
        ("euler_maruyama", "quadratic", 1500),
        ("sscs", "quadratic", 1000),
        ("ancestral", "logarithmic", 1000),
        ("ddim", "logarithmic", 1000),
        ("multistep", "logarithmic", 200),
        ("ancestral_multistep", "logarithmic", 200),
    ],
)
def test_mixture_is_sampled_from_its_exact_score(sampler, grid, steps):
    weights, means, variance = np.array([0.3, 0.7]), np.array([-0.6, 0.4]), 0.04
    mixture = GaussianMixture(jnp.asarray(weights), jnp.asarray(means)[:, None, None, None], variance)
    cld = CLD()
    times = time_grid(grid, steps, cld)
    prior = prior_from_denoiser(mixture, cld)
    samples = sample_prior(jax.random.key(3), prior, SHAPE, times, COUNT, SAMPLERS[sampler])
    samples = np.asarray(samples, np.float64).ravel()
    mean_error, std_error = standard_errors(samples)
    mean = weights @ means
    std = (variance + weights @ means**2 - mean**2) ** 0.5
    assert abs(samples.mean() - mean) < 4 * mean_error
    assert abs(samples.std() - std) < 4 * std_error
    near = np.abs(samples[:, None] - means).argmin(1)
    assert abs((near == 0).mean() - weights[0]) < 0.03


def gaussian_posterior(guidance: str, noise_std: float) -> tuple[float, float]:
    """Mean and deviation of restorations of y = .6 under the prior N(0, .25)."""
    prior = prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), 0.25), CLD())

    @jax.jit
    @jax.vmap
    def one(key):
        return restore(
            key, jnp.full(SHAPE, 0.6), Identity(), prior, image_shape=SHAPE, noise_std=noise_std, num_steps=1000,
            sampler="euler_maruyama", guidance=guidance, time_grid="uniform",
        ).image  # fmt: skip

    samples = np.asarray(one(jax.random.split(jax.random.key(0), COUNT)))
    return float(samples.mean()), float(samples.std())


@pytest.mark.parametrize(
    ("guidance", "noise_std", "mean", "std"),
    [
        ("plug_in", 0.05, 0.5965, 0.0363),
        ("plug_in", 0.30, 0.5611, 0.2116),
        ("covariance", 0.05, 0.5947, 0.0500),
        ("covariance", 0.30, 0.4429, 0.2563),
    ],
)
def test_gaussian_posterior_has_the_published_moments(guidance, noise_std, mean, std):
    """The printed guidance is biased exactly as derived, covariance is not.

    The published figures are samples themselves, of a size taken to be ours.
    """
    found_mean, found_std = gaussian_posterior(guidance, noise_std)
    cld = CLD()
    exact = references.euler_maruyama_moments(cld, time_grid("uniform", 1000, cld), guidance, noise_std, 0.6, 0.25)
    for reference_mean, reference_std, chance in ((*exact, 1), (mean, std, 2**0.5)):
        assert abs(found_mean - reference_mean) < 4 * chance * std / COUNT**0.5
        assert abs(found_std - reference_std) < 4 * chance * std / (2 * COUNT) ** 0.5
    if guidance == "covariance":  # the posterior itself, up to the 1000 steps' error
        assert abs(exact[0] - 0.6 * 0.25 / (0.25 + noise_std**2)) < 1e-3
        assert abs(exact[1] - (1 / (4 + noise_std**-2)) ** 0.5) < 1e-3


@pytest.mark.parametrize("steps", [2, 5, 40])
@pytest.mark.parametrize("grid", ["uniform", "logarithmic"])
@pytest.mark.parametrize("name", ["ancestral", "ddim", "multistep"])
def test_known_image_is_returned(name, steps, grid):
    """If E[x_0 | u_t, y] is the image itself, every number of steps returns it."""
    cld = CLD()
    truth = jnp.linspace(-1, 1, 12).reshape(2, 2, 3)
    mean = lambda *_: Estimate(truth, Info(jnp.zeros(())))  # noqa: E731
    chain = bound(SAMPLERS[name](cld, time_grid(grid, steps, cld)), mean)
    state, _ = run_steps(chain, chain.init(jax.random.key(0), truth.shape), 0, steps)
    np.testing.assert_allclose(state.x, truth, atol=1e-6)


@pytest.mark.parametrize("friction", [None, 0.4, 2.5])
def test_ancestral_keeps_the_diffusions_marginal(friction):
    """With x_0 known, u after some steps has the mean a_t x_0 and the covariance S_t."""
    cld = CLD(friction=friction)
    times = time_grid("logarithmic", 12, cld)
    truth, stop = 0.7, 8
    mean = lambda *_: Estimate(jnp.full(SHAPE, truth), Info(jnp.zeros(())))  # noqa: E731
    chain = bound(SAMPLERS["ancestral"](cld, times), mean)

    @jax.jit
    @jax.vmap
    def one(key):
        start_key, x_key, v_key = jax.random.split(key, 3)
        a, root = cld.data_direction(times[0]), np.linalg.cholesky(cld.covariance(times[0]))
        noise = root @ jnp.stack([jax.random.normal(k, ()) for k in (x_key, v_key)])
        state = chain.init(start_key, SHAPE)
        u = a * truth + noise
        state = state._replace(x=jnp.full(SHAPE, u[0]), v=jnp.full(SHAPE, u[1]))
        state, _ = run_steps(chain, state, 0, stop)
        return jnp.stack([state.x.squeeze(), state.v.squeeze()])

    u = np.asarray(one(jax.random.split(jax.random.key(1), COUNT)), np.float64)
    expected = cld.covariance(times[stop])
    deviations = np.sqrt(np.diag(expected))
    assert (np.abs(u.mean(0) - cld.data_direction(times[stop]) * truth) < 4 * deviations / COUNT**0.5).all()
    scale = np.outer(deviations, deviations)
    np.testing.assert_allclose(np.cov(u.T) / scale, expected / scale, atol=4 * 2**0.5 / COUNT**0.5)


def test_decoupled_draws_each_level_afresh():
    """Whatever u_t is, u_s is N(a_s m, S_s) for m = E[x_0 | u_t, y]: all of the noise, and the joint one of x and v."""
    cld, told = CLD(), 0.7
    times = time_grid("logarithmic", 12, cld)
    mean = lambda *_: Estimate(jnp.full(SHAPE, told), Info(jnp.zeros(())))  # noqa: E731
    chain, index = bound(SAMPLERS["decoupled"](cld, times), mean), 5

    @jax.jit
    @jax.vmap
    def one(key):
        state = chain.init(key, SHAPE)._replace(x=jnp.full(SHAPE, 9.0))
        state, _ = chain.step(state, index)
        return jnp.stack([state.x.squeeze(), state.v.squeeze()])

    u = np.asarray(one(jax.random.split(jax.random.key(1), COUNT)), np.float64)
    expected = cld.covariance(times[index + 1])
    deviations = np.sqrt(np.diag(expected))
    assert (np.abs(u.mean(0) - cld.data_direction(times[index + 1]) * told) < 4 * deviations / COUNT**0.5).all()
    scale = np.outer(deviations, deviations)
    np.testing.assert_allclose(np.cov(u.T) / scale, expected / scale, atol=4 * 2**0.5 / COUNT**0.5)


@flax.struct.dataclass
class Guessing(Operator):
    """The identity, with a first guess."""

    def __call__(self, x):
        return x

    def first_guess(self, y, key):
        return jnp.full_like(y, 0.4)


def test_a_guess_is_diffused_to_the_start():
    """u at t_start is N(a guess, S), as the forward diffusion of the guess would be."""
    prior, time = prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), 0.25), CLD()), 0.25
    chain = guided_sampler(jnp.ones(SHAPE), Guessing(), prior, noise_std=0.1, num_steps=3, start="guess", t_start=time)
    states = jax.jit(jax.vmap(lambda key: chain.init(key, SHAPE)))(jax.random.split(jax.random.key(0), COUNT))
    u = np.stack([np.ravel(states.x), np.ravel(states.v)]).astype(np.float64)
    expected = prior.cld.covariance(time)
    deviations = np.sqrt(np.diag(expected))
    assert (np.abs(u.mean(1) - 0.4 * prior.cld.data_direction(time)) < 4 * deviations / COUNT**0.5).all()
    scale = np.outer(deviations, deviations)
    np.testing.assert_allclose(np.cov(u) / scale, expected / scale, atol=4 * 2**0.5 / COUNT**0.5)


@pytest.mark.parametrize("friction", [None, 0.4, 2.5])
def test_probability_flow_keeps_the_marginals_and_composes(friction):
    """R S_t R' = S_s, and the way from t to s over r is that from t to s."""
    cld = CLD(friction=friction)
    times = time_grid("logarithmic", 20, cld)[:-1]
    r, covariance = flow(cld, times[:-1], times[1:])[0], cld.covariance(times)
    deviation = np.sqrt(np.einsum("nii->ni", covariance[1:]))
    error = r @ covariance[:-1] @ np.swapaxes(r, -1, -2) - covariance[1:]
    assert np.abs(error / (deviation[:, :, None] * deviation[:, None])).max() < 1e-9
    np.testing.assert_allclose(flow(cld, times[:-2], times[2:])[0], r[1:] @ r[:-1], rtol=1e-6, atol=1e-12)


def test_ancestral_gain_is_the_reverse_diffusions():
    """The bridge's gain, from conditioning Gaussians, is the flow's with share 2, from an equation in time."""
    cld = CLD(friction=0.7)
    times = time_grid("logarithmic", 20, cld)
    np.testing.assert_allclose(flow(cld, times[:-2], times[1:-1], 2.0)[0], bridge(cld, times)[0][:-1], rtol=1e-7)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("multistep", 2)])
def test_order_of_convergence(float64, name, order):
    """Halving the step in log noise divides the error by 2^order."""
    cld, zero = CLD(), jnp.zeros(SHAPE)
    prior = prior_from_denoiser(Gaussian(jnp.full(SHAPE, 0.3), 0.25), cld)

    def end(steps):
        times = np.append(cld.time_of_noise(np.geomspace(4.0, 0.05, steps + 1)), 0.0)
        chain = bound(SAMPLERS[name](cld, times), prior_mean(prior, times[:-1]))
        state = chain.init(jax.random.key(0), SHAPE)._replace(x=zero + 1.0, v=zero + 0.2)
        return run_steps(chain, state, 0, steps)[0].x.item()  # the last step, to time 0, is left out

    coarse, middle, fine = (end(steps) for steps in (40, 80, 160))
    assert np.log2((coarse - middle) / (middle - fine)) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize(("name", "closer"), [("ancestral", False), ("ancestral_multistep", True)])
def test_second_order_keeps_the_variance(name, closer):
    """At 50 steps the samples of a Gaussian have its deviation to 4 %, of first order a tenth too little."""
    cld = CLD()
    prior = prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), 0.25), cld)
    samples = sample_prior(jax.random.key(0), prior, SHAPE, time_grid("logarithmic", 50, cld), COUNT, SAMPLERS[name])
    ratio = float(np.std(samples)) / 0.5
    assert (abs(ratio - 1) < 0.04) == closer
    assert 0.85 < ratio < 1.05


@pytest.mark.parametrize("name", ["sscs", "euler_maruyama"])
def test_explicit_samplers_converge_with_order_one(float64, monkeypatch, name):
    """Halving the step halves the error of the noiseless part."""
    cld = CLD()
    prior = prior_from_denoiser(Gaussian(jnp.full(SHAPE, 0.3), 0.25), cld)
    module = sys.modules[SAMPLERS[name].__module__]
    zero = jnp.zeros(SHAPE)
    monkeypatch.setattr(module, "draw_noise", lambda state: (state.key, zero, zero))

    def end(steps):
        times = np.linspace(0.2, 0.1, steps + 1)
        sampler = SAMPLERS[name](cld, times)
        chain = bound(sampler, prior_mean(prior, sampler.model_times))
        state = chain.init(jax.random.key(0), SHAPE)._replace(x=zero + 1.0, v=zero + 0.2)
        return run_steps(chain, state, 0, steps)[0].x.item()

    coarse, middle, fine = (end(steps) for steps in (32, 64, 128))
    assert np.log2((coarse - middle) / (middle - fine)) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_chunks_join_to_the_whole_scan(sampler):
    prior = prior_from_denoiser(Gaussian(jnp.zeros((4, 4, 1)), 0.25), CLD())
    chain = guided_sampler(
        jnp.ones((4, 4, 1)), Identity(), prior, noise_std=0.1, num_steps=30, sampler=sampler, time_grid="uniform",
        num_particles=None if sampler in CHAINS else 3,
    )  # fmt: skip
    run = jax.jit(lambda state, start, count: run_steps(chain, state, start, count), static_argnums=2)
    start = chain.init(jax.random.key(0), (4, 4, 1))
    whole, trace = run(start, 0, 30)
    first, first_trace = run(start, 0, 10)
    second, second_trace = run(first, 10, 20)
    np.testing.assert_array_equal(second.x, whole.x)
    np.testing.assert_array_equal(second.v, whole.v)
    np.testing.assert_array_equal(np.concatenate([first_trace.residual, second_trace.residual]), trace.residual)


@pytest.mark.parametrize("sampler", CHAINS)
def test_keys_are_used_once(sampler):
    """No key that is drawn from in a run is drawn from, or split, again."""
    used = []
    kinds = ("normal", "split")
    originals = {kind: getattr(jax.random, kind) for kind in kinds}

    def spy(kind):
        def function(key, *args, **kw):
            used.append(tuple(np.asarray(jax.random.key_data(key)).tolist()))
            return originals[kind](key, *args, **kw)

        return function

    prior = prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), 0.25), CLD())
    chain = guided_sampler(jnp.ones(SHAPE), Identity(), prior, noise_std=0.1, num_steps=4, sampler=sampler)
    try:
        for kind in kinds:
            setattr(jax.random, kind, spy(kind))
        state = chain.init(jax.random.key(0), SHAPE)
        for index in range(4):
            state, _ = chain.step(state, index)
    finally:
        for kind in kinds:
            setattr(jax.random, kind, originals[kind])
    assert len(used) >= 3  # the start alone, for a deterministic sampler
    assert len(set(used)) == len(used)
