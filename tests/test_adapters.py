"""Models of every kind of a Gaussian, known exactly, become the same denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from cvsa_jax import CLD, Gaussian, as_denoiser, prior_from_denoiser, restore
from cvsa_jax.adapters import PREDICTIONS, cosine_kept, exploding, linear_kept, preserving

SHAPE = (4, 5, 3)
MEAN = jnp.asarray(np.random.default_rng(0).uniform(-0.5, 0.5, SHAPE), jnp.float32)
VARIANCE = 0.3
GAUSSIAN = Gaussian(MEAN, jnp.asarray(VARIANCE))
LINEAR, COSINE = linear_kept(), cosine_kept()[:-1]
GEOMETRIC = np.geomspace(0.01, 50, 40)


def sde_kept(t):
    """Of the continuous linear schedule, rates from .1 to 20."""
    return np.exp(-(0.1 * t + 19.9 * t**2 / 2))


def of_table(sigmas):
    """t -> sigma, by the law that fractions lie between levels evenly in log sigma."""
    return lambda t: jnp.exp(jnp.interp(t, jnp.arange(len(sigmas)), jnp.asarray(np.log(sigmas), jnp.float32)))


def spread(kept):
    return ((1 - kept) / kept) ** 0.5


# Schedule, and its own t -> sigma.
SCHEDULES = {
    "linear": (preserving(LINEAR), of_table(spread(LINEAR))),
    "cosine": (preserving(COSINE), of_table(spread(COSINE))),
    "sde": (preserving(sde_kept), lambda t: jnp.sqrt(jnp.expm1(0.1 * t + 19.9 * t**2 / 2))),
    "label": (preserving(label=lambda sigma: sigma / 4), lambda t: 4 * t),
    "exploding": (exploding(GEOMETRIC), of_table(GEOMETRIC)),
    "falling": (exploding(GEOMETRIC[::-1]), lambda t: of_table(GEOMETRIC)(39 - t)),
    "told": (exploding(GEOMETRIC, np.log(GEOMETRIC)), jnp.exp),
    "logarithm": (exploding(label=jnp.log), jnp.exp),
}
KINDS = [(name, kind) for name, (schedule, _) in SCHEDULES.items() for kind in PREDICTIONS
         if schedule.preserves or kind != "v"]  # fmt: skip


def exact_model(name: str, kind: str):
    """(x_t, t) -> the prediction, by its own definition from the joint Gaussian of x_0 and x_t."""
    schedule, sigma_of = SCHEDULES[name]

    def model(x, t):
        sigma = sigma_of(t)
        a = 1 / jnp.sqrt(1 + sigma**2) if schedule.preserves else 1.0
        noise = sigma * a  # x_t = a x_0 + noise e
        total = a**2 * VARIANCE + noise**2
        off = (x - a * MEAN) / total
        x0, e = MEAN + a * VARIANCE * off, noise * off
        return {"x0": x0, "epsilon": e, "v": a * e - noise * x0, "score": -off}[kind]

    return model


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_the_adapter_is_the_posterior_mean(name, kind):
    denoise = jax.jit(as_denoiser(exact_model(name, kind), SCHEDULES[name][0], kind).__call__)
    x = jax.random.normal(jax.random.key(0), SHAPE)
    for sigma in np.geomspace(0.02, 40, 9).astype(np.float32):
        noisy = MEAN + (VARIANCE + sigma**2) ** 0.5 * x
        expected = GAUSSIAN(noisy, sigma)
        # Where x_0 is a small difference of x and sigma e, float32 keeps 1e-7 of x itself.
        scale = float(jnp.linalg.norm(expected)) + 3e-2 * float(jnp.linalg.norm(noisy))
        assert float(jnp.linalg.norm(denoise(noisy, sigma) - expected)) < 1e-4 * scale


def test_levels_of_a_table_are_its_times():
    for sigmas, schedule in ((spread(LINEAR), preserving(LINEAR)), (GEOMETRIC, exploding(GEOMETRIC))):
        found = jax.vmap(schedule.time)(jnp.asarray(sigmas, jnp.float32))
        np.testing.assert_allclose(found, np.arange(len(sigmas)), atol=0.02)
        assert float(schedule.time(jnp.float32(1e-6))) == 0
        assert float(schedule.time(jnp.float32(1e6))) == len(sigmas) - 1


def test_published_schedules():
    """The levels that DDPM and improved diffusion are known to have."""
    assert spread(LINEAR)[[0, -1]] == pytest.approx([0.0100005, 157.4], rel=1e-3)
    scaled = linear_kept(first=0.00085, last=0.012, power=0.5)
    assert spread(scaled)[[0, -1]] == pytest.approx([0.0291676, 14.6146], rel=1e-4)  # latent diffusion's
    t = 0.5
    assert cosine_kept()[499] == pytest.approx(
        (np.cos((t + 0.008) / 1.008 * np.pi / 2) / np.cos(0.008 / 1.008 * np.pi / 2)) ** 2, rel=1e-9
    )


def test_beyond_the_schedule_the_formula_keeps_sigma():
    """Of noise that is predicted right whatever t says, x_0 stays right far outside the table."""
    calls = []

    def model(x, t):
        calls.append(float(t))
        return x  # E[e | x_t] of x_0 = 0 at high noise, where sqrt(1 - kept) is one

    denoise = as_denoiser(model, preserving(LINEAR))
    assert float(jnp.abs(denoise(1e4 * jnp.ones(SHAPE), 1e4)).max()) < 2e-3
    assert float(jnp.abs(denoise(jnp.ones(SHAPE), 1e-4) - 1).max()) < 2e-4
    assert calls == [999.0, 0.0]


def test_batches_rounding_and_learned_variances():
    """A model of batches is shown a batch of one; whole steps where it wants them; what is no image is dropped."""
    seen = []

    def model(x, t):
        seen.append((x.shape, t.shape, float(t[0])))
        return jnp.concatenate([exact_model("linear", "epsilon")(x[0], t[0])[None], 7 + x], -1)

    noisy = MEAN + 0.4
    sigma = float((spread(LINEAR)[300] * spread(LINEAR)[301] ** 2) ** (1 / 3))
    for rounded, t in ((False, 300 + 2 / 3), (True, 301.0)):
        found = as_denoiser(model, preserving(LINEAR), batched=True, rounded=rounded)(noisy, sigma)
        np.testing.assert_allclose(found, GAUSSIAN(noisy, sigma), atol=2e-3 if rounded else 1e-5)
        assert seen[-1][:2] == ((1, *SHAPE), (1,))
        assert seen[-1][2] == pytest.approx(t, abs=2e-3)


def test_a_restoration_runs_with_it_and_its_parameters_are_leaves():
    """And is that of the denoiser in closed form; another mean does not compile again."""
    compiled = []

    def model(mean, x, t):
        compiled.append(1)
        sigma = SCHEDULES["linear"][1](t)
        a = 1 / jnp.sqrt(1 + sigma**2)
        return sigma * a * (x - a * mean) / (a**2 * VARIANCE + (sigma * a) ** 2)

    @jax.jit
    def answer(denoise):
        prior = prior_from_denoiser(denoise, CLD())
        return restore(
            jax.random.key(0), jnp.ones(SHAPE) / 4, lambda x: x, prior, image_shape=SHAPE, noise_std=0.1, num_steps=12,
            guidance="covariance", sampler="ancestral",
        ).image  # fmt: skip

    schedule = preserving(LINEAR)
    found = answer(as_denoiser(Partial(model, MEAN), schedule))
    np.testing.assert_allclose(found, answer(GAUSSIAN), atol=2e-3)
    count = len(compiled)
    other = answer(as_denoiser(Partial(model, MEAN + 1), schedule))
    assert len(compiled) == count
    assert float(jnp.abs(other - found).max()) > 1e-3


def test_gradients_pass():
    denoise = as_denoiser(exact_model("linear", "epsilon"), preserving(LINEAR))
    gradient = jax.grad(lambda x: denoise(x, 0.5).sum())(MEAN)
    np.testing.assert_allclose(gradient, VARIANCE / (VARIANCE + 0.25), rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: as_denoiser(jnp.sin, preserving(LINEAR), "noise"), "predicts must be one of epsilon, v, x0, score"),
        (lambda: as_denoiser(jnp.sin, exploding(GEOMETRIC), "v"), "an exploding one has none"),
        (lambda: preserving(np.array([0.9, 1.0])), "above 0 and below 1"),
        (lambda: preserving(np.array([0.5, 0.9])), "two or more noise levels"),
        (lambda: preserving(), "either alpha bar or a label"),
        (lambda: exploding(np.array([1.0, 1.0])), "two or more noise levels"),
        (lambda: exploding(np.array([1.0, 2.0]), np.array([0.0])), r"2 noise levels, but times of the shape \(1,\)"),
        (lambda: exploding(np.ones((2, 2))), r"two or more noise levels in a row, got the shape \(2, 2\)"),
        (lambda: exploding(np.array([])), r"two or more noise levels in a row, got the shape \(0,\)"),
        (lambda: exploding(np.float64(1)), r"two or more noise levels in a row, got the shape \(\)"),
        (lambda: exploding(np.array([1.0, 2.0]), np.array([0.0, np.nan])), "must be finite"),
        (lambda: preserving(np.array([])), "two or more noise levels"),
        (lambda: exploding(), "either its noise levels or a label"),
    ],
)
def test_bad_schedules_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [preserving, exploding])
def test_a_label_may_be_a_plain_number(make):
    """What any function of sigma gives, is told: a Python number, one of NumPy, or an array."""
    x = jnp.ones((2, 2, 1))
    for t in (3, 3.0, np.float64(3), jnp.asarray(3)):
        denoise = as_denoiser(lambda x, t: t * jnp.ones_like(x), make(label=lambda sigma, t=t: t), "x0")
        np.testing.assert_array_equal(denoise(x, 1.0), 3 * x)
