"""What is measured with a gain, not at all, or by one operator after another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from cvsa_jax import CLD, Gaussian, guidance, prior_from_denoiser, restore, simulate
from cvsa_jax.baselines import baseline_loop
from cvsa_jax.operators import Identity, Mask, Operator, make_operator
from cvsa_jax.operators.algebra import root_mean_square, solve_gram
from cvsa_jax.operators.chain import Chain, chain
from cvsa_jax.operators.singular import singular_form
from cvsa_jax.operators.tones import Clip
from cvsa_jax.operators.view import View
from cvsa_jax.samplers import run_steps

SHAPE = (8, 8, 1)
GAINS = np.random.default_rng(0).choice([0.0, 0.2, 0.6, 1.0], SHAPE).astype(np.float32)


def white(shape=SHAPE):
    return prior_from_denoiser(Gaussian(jnp.zeros(shape), 0.25), CLD())


def run(y, operator, prior=None, shape=SHAPE, **settings):
    return restore(
        jax.random.key(0), y, operator, prior or white(shape), image_shape=shape, noise_std=0.05,
        **{"num_steps": 12, "guidance": "covariance"} | settings,
    )  # fmt: skip


def test_a_soft_mask_is_the_product_that_it_says():
    """The same restoration as of the plain function, which has neither `restrict` nor a closed form."""
    image = jnp.asarray(np.random.default_rng(1).normal(size=SHAPE) / 2)
    y = simulate(jax.random.key(0), Mask(jnp.asarray(GAINS)), image, 0.05)
    plain = lambda x: GAINS * x  # noqa: E731
    np.testing.assert_allclose(y, simulate(jax.random.key(0), plain, image, 0.05) * (GAINS > 0), atol=1e-6)
    np.testing.assert_allclose(run(y, Mask(jnp.asarray(GAINS))).image, run(y, plain).image, atol=1e-3)


def test_the_inner_solve_of_a_soft_mask_is_that_of_its_matrix():
    mask, r = Mask(jnp.asarray(GAINS)), np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    h = references.dense_matrix(mask, SHAPE)
    expected = np.linalg.solve(0.04 * np.eye(h.shape[0]) + 0.3 * h @ h.T, r.ravel())
    np.testing.assert_allclose(np.ravel(mask.solve_gram(jnp.asarray(r), 0.04, 0.3)), expected, rtol=1e-5)
    form = singular_form(mask, SHAPE)
    image = np.asarray(form.backward(form.pseudo_inverse(mask(jnp.asarray(r)))))
    np.testing.assert_allclose(image, r * (GAINS > 0), atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_what_is_not_seen_does_not_reach_the_result(bad):
    mask, y = Mask(jnp.asarray(GAINS > 0, jnp.float32)), np.full(SHAPE, 0.3, np.float32)
    spoilt = np.where(GAINS > 0, y, bad).astype(np.float32)
    expected, found = run(jnp.asarray(y), mask), run(jnp.asarray(spoilt), mask)
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.trace.residual, expected.trace.residual)
    compiled = jax.jit(lambda y: run(y, mask).image)(jnp.asarray(spoilt))
    assert np.isfinite(compiled).all()
    loops = [baseline_loop("dps", v, mask, white(), SHAPE, 5, 0.05) for v in (y, spoilt)]
    first, second = (run_steps(loop, loop.init(jax.random.key(0), SHAPE), 0, 5)[0].x for loop in loops)
    np.testing.assert_array_equal(first, second)


def test_what_is_seen_must_be_a_number():
    spoilt = np.where(GAINS > 0, np.nan, 0.0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        run(jnp.asarray(spoilt), Mask(jnp.asarray(GAINS)))


def test_a_measurement_of_another_shape_is_not_stretched_by_the_mask():
    with pytest.raises(ValueError, match=r"the measurement is \(1, 8, 1\)"):
        run(jnp.zeros((1, 8, 1)), Mask(jnp.asarray(GAINS)))


@pytest.mark.parametrize("operator", [Mask(jnp.asarray(GAINS)), Identity()])
def test_the_residual_is_the_mean_over_what_is_measured(operator):
    """So that at the true image it has the noise's size, however many pixels are missing."""
    x, v, y = (jnp.asarray(a, jnp.float32) for a in np.random.default_rng(2).normal(size=(3, *SHAPE)))
    prior, times = white(), np.array([0.3])
    info = guidance.conditional_mean(y, operator, prior, 0.1, "covariance", times)(x, v, 0).info
    r = np.asarray(operator.restrict(y) - operator(prior.posterior_mean(x, v, 0.3)))
    counted = r[GAINS > 0] if isinstance(operator, Mask) else r
    assert float(info.residual) == pytest.approx(np.sqrt(np.mean(counted**2)), rel=1e-5)
    assert float(root_mean_square(operator, jnp.asarray(r))) == pytest.approx(float(info.residual), rel=1e-5)


def test_complex_residuals_count_both_parts():
    r = {"k": jnp.full((4, 4), 3 + 4j, jnp.complex64), "x": jnp.full(8, 5.0)}
    assert float(root_mean_square(Operator(), r)) == pytest.approx(((16 * 25 + 8 * 25) / (32 + 8)) ** 0.5)


@pytest.mark.parametrize(
    "build",
    [lambda clip: Chain(Identity(), clip), lambda clip: Chain(clip, Identity()), lambda clip: chain(Identity(), clip)],
)
def test_a_chain_with_what_does_nothing_is_the_other_operator(build):
    """To the bit, its `expected` and `measure` included."""
    clip = Clip(jnp.asarray(2.0))
    image = jnp.asarray(np.random.default_rng(1).normal(size=SHAPE) / 2)
    y = simulate(jax.random.key(0), clip, image, 0.05)
    np.testing.assert_array_equal(simulate(jax.random.key(0), build(clip), image, 0.05), y)
    settings = {"guidance": "spectral_covariance", "sampler": "ancestral"}
    np.testing.assert_array_equal(run(y, build(clip), **settings).image, run(y, clip, **settings).image)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("task", ["sr2", "motion_deblur", "random_inpaint"])
def test_a_grey_view_of_any_colours_keeps_the_closed_form(float64, task, channels):
    """w of (n I + p H H') w = r with H = the operator after the mean of the colours."""
    generator = np.random.default_rng(3)
    settings = {"boundary": "circular", "kernel_size": 3} if task == "motion_deblur" else {}
    operator = make_operator(task, np.random.default_rng(0), 8, 8, **settings)
    seen, shape = View(operator, 8, 8, channels), (8, 8, channels)
    h = references.dense_matrix(seen, shape)
    r = jnp.asarray(generator.normal(size=jax.eval_shape(seen, jax.ShapeDtypeStruct(shape, jnp.float64)).shape))
    expected = np.linalg.solve(0.04 * np.eye(r.size) + 0.3 * h @ h.T, np.ravel(r))
    found = solve_gram(seen, lambda x: x, lambda x: x, r, 0.04, 0.3)
    np.testing.assert_allclose(np.ravel(found), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("task", ["jpeg", "hdr"])
def test_a_view_measures_as_its_operator_does(task):
    """`measure` rounds where H itself is smooth."""
    operator = make_operator(task, np.random.default_rng(0), 8, 8)
    canvas = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (12, 12, 3)), jnp.float32)
    np.testing.assert_array_equal(View(operator, 8, 8).measure(canvas), operator.measure(canvas[:8, :8]))
