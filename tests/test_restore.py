"""The loop: pure under jit, vmap and grad; one network evaluation and one trace."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from test_operators import WALKED, walk
from test_samplers import CHAINS

from cvsa_jax import (
    CLD,
    Gaussian,
    SamplerSettings,
    Solution,
    guided_sampler,
    preset_of,
    prior_from_denoiser,
    restore,
    run_steps,
    simulate,
    spectral,
)
from cvsa_jax.guidance import GUIDANCES, Form
from cvsa_jax.guidance.covariance_forms import ITERATIONS
from cvsa_jax.operators import Identity, View, find_task, make_operator
from cvsa_jax.samplers import SAMPLERS, Sampler

SETTINGS = {"image_shape": (32, 32, 3), "noise_std": 0.05, "num_steps": 6}
# Each sampler, and each form of guidance: the two do not know of each other.
COMBINATIONS = [(s, "covariance") for s in CHAINS] + [("ancestral", g) for g in GUIDANCES if g != "covariance"]


def problem(photos, task="motion_deblur", count=8):
    """Operators, measurements and keys for `count` photographs, each with its own operator."""
    generator = np.random.default_rng(0)
    drawn = [make_operator(task, generator, 32, 32) for _ in range(count)]
    operators = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
    measurements = jax.vmap(lambda h, x: h(x))(operators, jnp.asarray(photos[:count]))
    return drawn, operators, measurements, jax.random.split(jax.random.key(5), count)


@pytest.mark.parametrize("task", ["motion_deblur", "random_inpaint", "sr4"])
def test_batch_gives_each_image_what_it_gives_alone(photos, tiny_prior, task):
    drawn, operators, measurements, keys = problem(photos, task)
    run = lambda k, y, h: restore(k, y, h, tiny_prior, **SETTINGS)  # noqa: E731
    together = jax.jit(jax.vmap(run))(keys, measurements, operators)
    alone = jax.jit(run)
    for i, operator in enumerate(drawn):
        single = alone(keys[i], measurements[i], operator)
        np.testing.assert_allclose(together.image[i], single.image, atol=2e-4)
        np.testing.assert_allclose(together.trace.residual[i], single.trace.residual, rtol=1e-3)


@pytest.mark.parametrize(("sampler", "guidance"), COMBINATIONS)
def test_eager_jit_and_vmap_agree(sampler, guidance):
    shape, steps = (4, 4, 1), 10
    prior = prior_from_denoiser(Gaussian(jnp.zeros(shape), 0.25), CLD())
    # Few steps of the explicit samplers are stable on a short way alone.
    run = functools.partial(
        restore, operator=Identity(), prior=prior, image_shape=shape, noise_std=0.5, num_steps=steps,
        sampler=sampler, guidance=guidance, time_grid="uniform", t_start=0.3, t_end=0.05,
    )  # fmt: skip
    key, y = jax.random.key(0), jnp.linspace(-0.5, 0.5, 16).reshape(shape)
    jitted = jax.jit(run)(key, y)
    mapped = jax.vmap(run)(key[None], y[None])
    with jax.disable_jit():
        eager = run(key, y)
    assert jitted.trace.residual.shape == (steps,)
    for other in (mapped.image[0], eager.image):
        np.testing.assert_allclose(other, jitted.image, atol=1e-4)
    assert 0.01 < float(jnp.abs(jitted.image).max()) < 5


def test_gradient_through_the_loop(float64):
    """d image / d measurement by autodiff is that by central differences."""
    shape = (3, 3, 1)
    prior = prior_from_denoiser(Gaussian(jnp.zeros(shape), 0.25), CLD())
    y = jnp.linspace(-1, 1, 9).reshape(shape)

    def total(y, noise_std):
        return jnp.sum(
            restore(jax.random.key(0), y, Identity(), prior, image_shape=shape, noise_std=noise_std, num_steps=8).image
            ** 2
        )

    by_y, by_noise = jax.grad(total, (0, 1))(y, 0.3)
    step = 1e-5
    shift = jnp.zeros(shape).at[1, 2, 0].set(step)
    slope = (total(y + shift, 0.3) - total(y - shift, 0.3)) / (2 * step)
    assert float(by_y[1, 2, 0]) == pytest.approx(float(slope), rel=1e-6)
    slope = (total(y, 0.3 + step) - total(y, 0.3 - step)) / (2 * step)
    assert float(by_noise) == pytest.approx(float(slope), rel=1e-6)


@pytest.mark.parametrize(("sampler", "guidance"), COMBINATIONS)
def test_one_trace_and_one_network_evaluation_a_step(sampler, guidance):
    """Python sees the network once; the device calls it num_steps times, and pulls back as often."""
    traces, values, pulls = 0, [], []
    shape, steps = (5, 4, 1), 7

    def evaluate(x, sigma):
        jax.debug.callback(lambda: values.append(1))
        return 0.5 * x

    network = jax.custom_vjp(evaluate)

    def forward(x, sigma):
        nonlocal traces
        traces += 1
        return evaluate(x, sigma), None

    def backward(_, g):
        jax.debug.callback(lambda: pulls.append(1))
        return 0.5 * g, None

    network.defvjp(forward, backward)
    prior = prior_from_denoiser(network, CLD())

    @jax.jit
    def run(key, y):
        return restore(
            key, y, Identity(), prior, image_shape=shape, noise_std=0.5, num_steps=steps, sampler=sampler,
            guidance=guidance,
        ).image  # fmt: skip

    for seed in range(2):
        jax.block_until_ready(run(jax.random.key(seed), jnp.ones(shape)))
    jax.effects_barrier()
    assert traces == 1
    assert len(values) == 2 * steps
    each = {"second_moment": 1 + ITERATIONS, "diagonal_covariance": 2, "projection": 0}.get(guidance, 1)
    assert len(pulls) == 2 * steps * each


def test_result_follows_the_measurement():
    """A measurement without noise of everything is returned."""
    shape = (8, 8, 3)
    prior = prior_from_denoiser(Gaussian(jnp.zeros(shape), 0.25), CLD())
    y = jax.random.uniform(jax.random.key(0), shape, minval=-1.0)
    result = restore(jax.random.key(1), y, Identity(), prior, image_shape=shape, noise_std=1e-3, num_steps=20)
    np.testing.assert_allclose(result.image, y, atol=2e-3)


def test_weighted_data_have_the_tempered_posterior():
    """x ~ N(0, s^2), y = x + noise n: under p(y|x)^w the mean of x is w s^2 y / (w s^2 + noise^2)."""
    shape, variance, noise_std = (4, 4, 1), 0.25, 0.5
    prior = prior_from_denoiser(Gaussian(jnp.zeros(shape), variance), CLD())
    y = jnp.linspace(-1.0, 1.0, 16).reshape(shape)
    keys = jax.random.split(jax.random.key(0), 4000)
    run = lambda key, w: restore(  # noqa: E731
        key, y, Identity(), prior, image_shape=shape, noise_std=noise_std, num_steps=60, sampler="multistep",
        guidance="covariance", data_weight=w,
    ).image  # fmt: skip
    for weight in (0.5, 1.0, 4.0):
        samples = jax.jit(jax.vmap(run, in_axes=(0, None)))(keys, weight)
        data = weight * variance
        np.testing.assert_allclose(samples.mean(0), data * y / (data + noise_std**2), atol=0.03)
        deviation = (variance * noise_std**2 / (data + noise_std**2)) ** 0.5
        np.testing.assert_allclose(samples.std(0).mean(), deviation, rtol=0.04)


def test_margin_does_not_reach_the_image():
    """A canvas larger than the image leaves a white prior's restoration of it unbiased by the margin."""
    prior = prior_from_denoiser(Gaussian(jnp.zeros((8, 8, 1)), 0.25), CLD())
    y = jax.random.uniform(jax.random.key(0), (5, 7, 1), minval=-1.0)
    view = View(Identity(), 5, 7)
    result = restore(jax.random.key(1), y, view, prior, image_shape=(8, 8, 1), noise_std=1e-3, num_steps=20)
    np.testing.assert_allclose(view.crop(result.image), y, atol=2e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "euler"}, "sampler must be one of"),
        ({"guidance": "none"}, "guidance must be one of"),
        ({"time_grid": "cosine"}, "time_grid must be one of"),
        ({"num_steps": 1}, "num_steps must be at least 2"),
        ({"noise_std": 0.0}, "noise_std must be positive"),
        ({"t_end": 2.0}, "t_end"),
        ({"t_end": 0.5, "t_start": 0.3}, "t_end must be below t_start, got 0.5 and 0.3"),
        ({"data_weight": 0.0}, "data_weight must be positive"),
        ({"start": "guess"}, "this operator has no first guess to start from"),
        ({"num_corrections": 1, "sampler": "sscs"}, "own times"),
        ({"noise_std": (0.1, 0.2)}, "noise_std has 2 parts, but the measurement has 1"),
        ({"image_shape": (32, 32, 4)}, "the prior is of 3 channels, and cannot restore 4"),
    ],
)
def test_bad_settings_are_refused_before_anything_compiles(settings, message):
    def denoise(x, sigma):
        raise AssertionError("traced")

    prior = prior_from_denoiser(denoise, CLD()).replace(channels=3)
    with pytest.raises(ValueError, match=message):
        restore(jax.random.key(0), jnp.ones((32, 32, 3)), Identity(), prior, **{**SETTINGS, **settings})


def rows(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


def spectrum_of(x):
    """A complex measurement."""
    return jnp.fft.rfft2(x, axes=(0, 1), norm="ortho")


def two_sensors(x):
    """Every second row, and the columns' sums."""
    return x[::2], x.sum(0)


MASK = make_operator("random_inpaint", np.random.default_rng(0), 8, 6)


@pytest.mark.parametrize(
    ("operator", "measurement", "message"),
    [
        (Identity(), rows(7, 6, 3), "is (7, 6, 3), but the operator measures (8, 6, 3) of an image (8, 6, 3)"),
        (MASK, rows(7, 6, 3), "is (7, 6, 3), but the operator measures (8, 6, 3)"),
        (MASK, rows(8, 6, 1), "is (8, 6, 1), but the operator measures (8, 6, 3)"),
        (make_operator("sr2", np.random.default_rng(0), 8, 6), rows(8, 6, 3), "measures (4, 3, 3)"),
        (make_operator("random_inpaint", np.random.default_rng(0), 9, 6), rows(8, 6, 3), "operator does not take"),
        (MASK, rows(8, 6, 3, dtype=np.uint8), "is uint8, but numbers in [-1, 1] are needed: y / 127.5 - 1"),
        (Identity(), rows(8, 6, 3, dtype=np.int64), "but numbers in [-1, 1] are needed"),
        (Identity(), rows(8, 6, 3, dtype=bool), "is bool, but numbers in [-1, 1] are needed"),
        (
            MASK,
            np.full((8, 6, 3), np.nan, np.float32),
            "holds NaN or infinite numbers: replace what",
        ),
        (two_sensors, (rows(4, 6, 3), rows(6, 3) * np.nan), "holds NaN"),
        (Identity(), rows(8, 6, 3) + np.inf, "holds NaN"),
        (Identity(), rows(8, 6, 3, dtype=np.complex64), "is complex (8, 6, 3), but the operator measures (8, 6, 3)"),
        (MASK, rows(8, 6, 3, dtype=np.complex64), "is complex (8, 6, 3), but the operator measures (8, 6, 3)"),
        (spectrum_of, rows(8, 4, 3), "is (8, 4, 3), but the operator measures complex (8, 4, 3)"),
        (spectrum_of, rows(4, 8, 3, dtype=np.complex64), "is complex (4, 8, 3), but"),
        (two_sensors, (rows(6, 3), rows(4, 6, 3)), "(6, 3)"),
        (two_sensors, (rows(4, 6, 3), rows(6, 3), rows(1)), "(1,)"),
        (Identity(), (rows(8, 6, 3),), "(8, 6, 3)"),
        (Identity(), None, "the measurement holds no numbers"),
        (lambda x: jnp.round(x).astype(int), rows(8, 6, 3), "the operator measures int32, but real or complex"),
        (lambda x: x.astype(jnp.bfloat16), rows(8, 6, 3), "the operator measures bfloat16 of an image of float32"),
        (lambda x: (x, x > 0), (rows(8, 6, 3),) * 2, "the operator measures bool, but real or complex"),
        (lambda x: None, rows(8, 6, 3), "the operator measures nothing"),
        (Identity(), "y.png", "the measurement holds a str, which is no number"),
    ],
)
def test_measurements_that_do_not_fit_are_refused(operator, measurement, message):
    """In one sentence, before the prior is traced."""

    def denoise(x, sigma):
        raise AssertionError("traced")

    prior = prior_from_denoiser(denoise, CLD())
    with pytest.raises(ValueError, match="the ") as caught:
        restore(jax.random.key(0), measurement, operator, prior, image_shape=(8, 6, 3), noise_std=0.1)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(5, 7, 3), (8, 3, 3), (8, 8, 3), (5, 7, 1), (8, 8, 1), (1, 1, 1)])
def test_any_size_is_restored_on_the_priors_canvas(shape):
    """The same as through a view of the operator, written out; a grey image is the mean of the colours."""
    prior = prior_from_denoiser(Gaussian(jnp.array([0.1, -0.2, 0.3]), 0.25), CLD()).replace(stride=4, channels=3)
    operator = make_operator("random_inpaint", np.random.default_rng(0), *shape[:2], missing=0.3)
    y = operator(jax.random.uniform(jax.random.key(0), shape, minval=-1.0))
    canvas = (-(-shape[0] // 4) * 4, -(-shape[1] // 4) * 4, 3)
    assert prior.canvas(shape) == canvas
    view = View(operator, *shape[:2], 3 if shape[-1] == 1 else 1)
    settings = {"noise_std": 0.05, "num_steps": 5}
    found = restore(jax.random.key(1), y, operator, prior, image_shape=shape, **settings)
    whole = restore(jax.random.key(1), y, view, prior, image_shape=canvas, **settings)
    assert found.image.shape == shape
    np.testing.assert_allclose(found.image, view.crop(whole.image), atol=1e-6)
    np.testing.assert_allclose(found.trace.residual, whole.trace.residual, rtol=1e-5)


@pytest.mark.parametrize("shape", [(21, 30, 3), (9, 32, 1)])
def test_any_size_under_the_networks_prior(tiny_prior, photos, shape):
    operator = make_operator("motion_deblur", np.random.default_rng(0), *shape[:2])
    y = operator(jnp.asarray(photos[0, : shape[0], : shape[1], : shape[2]]))
    run = jax.jit(lambda k, y, h, p, shape: restore(k, y, h, p, image_shape=shape, noise_std=0.05, num_steps=3),
                  static_argnums=4)  # fmt: skip
    found = run(jax.random.key(0), y, operator, tiny_prior, shape)
    assert found.trace.residual.shape == (3,)
    canvas, seen = tiny_prior.canvas(shape), View(operator, *shape[:2], 3 if shape[-1] == 1 else 1)
    whole = run(jax.random.key(0), y, seen, tiny_prior, canvas)
    np.testing.assert_allclose(found.image, seen.crop(whole.image), atol=1e-4)


def test_particles_of_any_size():
    """All of them, cut to the image."""
    prior = prior_from_denoiser(Gaussian(jnp.zeros((4, 4, 3)), 0.25), CLD()).replace(stride=4, channels=3)
    found = restore(
        jax.random.key(0), jnp.zeros((3, 2, 1)), Identity(), prior, image_shape=(3, 2, 1), noise_std=0.1, num_steps=3,
        sampler="particles", num_particles=5,
    )  # fmt: skip
    assert found.image.shape == (5, 3, 2, 1)
    assert found.trace.effective_size.shape == (3,)


def both(x):
    """A complex sensor and a real one, by name."""
    return {"near": x[:1], "all": spectrum_of(x)}


@pytest.mark.parametrize(
    ("operator", "noise_std"),
    [
        (spectrum_of, 0.2),
        (two_sensors, (0.05, 0.3)),
        (two_sensors, 0.1),
        (both, {"near": 0.05, "all": 0.4}),
    ],
)
def test_complex_measurements_and_several_sensors_have_the_exact_posterior(float64, operator, noise_std):
    """A Gaussian's chain from the mean of u_1 given y stays at the mean of u_t given y, up to x_0; by dense algebra."""
    shape = (3, 3, 1)
    generator = np.random.default_rng(0)
    root, centre = generator.normal(size=(9, 9)) / 4, generator.normal(size=shape) / 3
    prior = prior_from_denoiser(Gaussian(jnp.asarray(centre), root @ root.T), CLD())
    y = simulate(jax.random.key(0), operator, generator.normal(size=shape), 0.1)

    def flat(measured):
        leaves = [jnp.ravel(leaf) for leaf in jax.tree.leaves(measured)]
        return jnp.concatenate([jnp.concatenate([a.real, a.imag]) if jnp.iscomplexobj(a) else a for a in leaves])

    matrix = references.dense_matrix(lambda x: flat(operator(jnp.asarray(x, float))), shape)
    stds = jax.tree.map(lambda _: noise_std, y) if isinstance(noise_std, float) else noise_std
    noise = flat(jax.tree.map(lambda a, s: np.full(a.shape, s + s * 1j if np.iscomplexobj(a) else s), y, stds))
    covariance = root @ root.T
    gram = matrix @ covariance @ matrix.T + np.diag(noise**2)
    expected = centre.ravel() + covariance @ matrix.T @ np.linalg.solve(gram, flat(y) - matrix @ centre.ravel())
    settings = SamplerSettings("multistep", "second_moment", num_steps=12)
    loop = guided_sampler(y, operator, prior, noise_std=noise_std, settings=settings)
    run, start = jax.jit(lambda state: run_steps(loop, state, 0, 12)[0].x), loop.init(jax.random.key(1), shape)
    x, v = (a * expected.reshape(shape) for a in prior.cld.data_direction(settings.t_start))
    np.testing.assert_allclose(run(start._replace(x=x, v=v)).ravel(), expected, rtol=1e-8, atol=1e-10)


def test_restore_runs_the_loop_of_guided_sampler():
    """Also of a complex measurement and a real one with noises of their own."""
    shape, noise_std = (4, 4, 1), {"near": 0.05, "all": 0.4}
    prior = prior_from_denoiser(Gaussian(jnp.zeros(shape), 0.25), CLD())
    y = both(jnp.linspace(-1, 1, 16).reshape(shape))
    loop = guided_sampler(y, both, prior, noise_std=noise_std, num_steps=4)
    state, trace = run_steps(loop, loop.init(jax.random.key(1), shape), 0, 4)
    found = restore(jax.random.key(1), y, both, prior, image_shape=shape, noise_std=noise_std, num_steps=4)
    np.testing.assert_array_equal(found.image, state.x)
    np.testing.assert_array_equal(found.trace.residual, trace.residual)
    assert found.trace.residual.shape == (4,)


def field_prior(shape):
    """The Gaussian of a red spectrum of colour images, so that guidance knows the spectrum."""
    powers = tuple(tuple(a / np.array(spectral.KNOTS) ** 2) for a in (2e-3, 5e-4, 2e-4))
    variance = spectral.Spectrum(powers, (0.1,) * 3)
    denoise = spectral.SpectralGaussian(jnp.asarray(variance.grid(*shape[:2]), jnp.result_type(float)))
    return prior_from_denoiser(denoise, CLD()).replace(spectrum=variance)


def _rounded(y, dtype):
    """In that type; complex numbers stay what they are."""
    return y if jnp.iscomplexobj(y) else y.astype(dtype)


def two_steps(task, operator, prior, dtype, as_float=False, change=0.0, **changes):
    """Two steps of the task's preset, from a measurement rounded to that type, in it or cast to float32."""
    shape = (24, 16, 3)
    y = simulate(jax.random.key(0), operator, jax.random.uniform(jax.random.key(1), shape, minval=-1.0), 0.05)
    y = _rounded(y + change, dtype)
    y = _rounded(y, jnp.float32) if as_float else y
    changes |= {"start": "noise"} if find_task(task).blind else {}
    settings = dataclasses.replace(preset_of(task).sampler, num_steps=2, **changes)
    return restore(
        jax.random.key(2), y, operator, prior, image_shape=shape, noise_std=0.05, settings=settings
    ).image  # fmt: skip


@pytest.mark.parametrize("task", WALKED)
def test_bfloat16_measurements_are_restored_in_float32(task, small_encoder):
    """As the same numbers in float32 are, to the bit."""
    prior, operator = prior_from_denoiser(Gaussian(jnp.zeros((24, 16, 3)), 0.25), CLD()), walk(task, small_encoder)
    found, same = (two_steps(task, operator, prior, jnp.bfloat16, as_float) for as_float in (False, True))
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(found, same)


@pytest.mark.parametrize("task", WALKED)
def test_float64_measurements_are_restored_in_float64(task, small_encoder, float64):
    """No float32 table or cast is left on the way: a change of y by 1e-11 changes the image, and by no 1e-8.

    Conjugate gradients that stop early magnify such a change by up to a million: those have a form without them.
    """
    prior, operator = field_prior((24, 16)), walk(task, small_encoder)
    steady = {} if operator.offers("solve_gram") else {"guidance": "plug_in", "start": "noise"}
    found, near = (two_steps(task, operator, prior, jnp.float64, change=c, **steady) for c in (0.0, 1e-11))
    assert found.dtype == jnp.float64
    moved = float(jnp.abs(found - near).max())
    assert 0 < moved < 1e-8


SMALL = {"image_shape": (4, 4, 1), "noise_std": 0.1, "num_steps": 5}


def small_problem():
    """(key, measurement, operator, prior) for SMALL."""
    prior = prior_from_denoiser(Gaussian(jnp.zeros((4, 4, 1)), 0.25), CLD())
    return jax.random.key(0), jnp.linspace(-1, 1, 16).reshape(4, 4, 1), Identity(), prior


def test_samplers_and_guidances_of_your_own():
    """A function serves where a name does; a form that iterates is given its last solution."""
    chosen = {"sampler": "multistep", "guidance": "covariance"}
    by_name = restore(*small_problem(), **SMALL, **chosen).image
    seen = []

    def halved(cld, times):
        """A sampler of your own: `ddim` of half the mean."""
        inner = SAMPLERS["ddim"](cld, times)

        def step(state, index, mean):
            half = lambda *args: (lambda found: found._replace(mean=found.mean / 2))(mean(*args))  # noqa: E731
            return inner.step(state, index, half)

        return Sampler(inner.init, step, inner.model_times)

    def iterated(problem):
        seen.append(problem.dual)
        return GUIDANCES["covariance"].solve(problem)

    for sampler, guidance in (
        (SAMPLERS["multistep"], "covariance"),
        ("multistep", GUIDANCES["covariance"].solve),
        ("multistep", GUIDANCES["covariance"]),
        (SAMPLERS["multistep"], Form(iterated, iterates=True)),
    ):
        found = restore(*small_problem(), **SMALL, sampler=sampler, guidance=guidance).image
        np.testing.assert_array_equal(found, by_name)
    assert seen
    assert all(dual.shape == (4, 4, 1) for dual in seen)
    full = restore(*small_problem(), **SMALL, sampler="ddim", guidance=lambda p: Solution(p.residual, p.residual))
    half = restore(*small_problem(), **SMALL, sampler=halved, guidance=lambda p: Solution(p.residual, p.residual))
    np.testing.assert_allclose(full.image, small_problem()[1], atol=1e-6)  # the mean is moved onto y itself
    np.testing.assert_allclose(half.image, small_problem()[1] / 2, atol=1e-6)


def test_settings_are_an_object_or_its_fields():
    """The same result; a field beside an object takes its place; what is no field is refused."""
    settings = SamplerSettings("ancestral", "covariance", num_steps=5, data_weight=2.0)
    given = {k: v for k, v in SMALL.items() if k != "num_steps"}
    by_object = restore(*small_problem(), **given, settings=settings)
    by_field = restore(*small_problem(), **SMALL, sampler="ancestral", guidance="covariance", data_weight=2.0)
    np.testing.assert_array_equal(by_object.image, by_field.image)
    mixed = restore(*small_problem(), **given, settings=settings, num_steps=4)
    assert mixed.trace.residual.shape == (4,)
    other = dataclasses.replace(settings, num_steps=4)
    np.testing.assert_array_equal(mixed.image, restore(*small_problem(), **given, settings=other).image)
    for function in (restore, guided_sampler):
        arguments = small_problem() if function is restore else small_problem()[1:]
        kept = SMALL if function is restore else {"noise_std": 0.1}
        with pytest.raises(TypeError, match="time_grid_name"):
            function(*arguments, **kept, time_grid_name="uniform")
