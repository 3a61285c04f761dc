"""The observation score in its forms, against gradients and against conjugacy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from cvsa_jax import CLD, Calibration, Gaussian, GaussianMixture, guidance, prior_from_denoiser, spectral
from cvsa_jax.guidance import covariance_forms
from cvsa_jax.operators import Identity, Matrix, Operator, convolution, make_operator
from cvsa_jax.operators.algebra import conjugate_gradients
from cvsa_jax.priors import coefficients

SHAPE = (4, 5, 1)
TIMES = np.array([0.05, 0.2, 0.6])


def mixture_prior():
    generator = np.random.default_rng(0)
    means = generator.uniform(-1, 1, (3, *SHAPE))
    return prior_from_denoiser(GaussianMixture(jnp.array([0.2, 0.3, 0.5]), jnp.asarray(means), 0.05), CLD())


def state(seed=1):
    generator = np.random.default_rng(seed)
    return jnp.asarray(generator.normal(size=SHAPE)), jnp.asarray(generator.normal(size=SHAPE) / 2)


@pytest.mark.parametrize("form", ["plug_in", "printed_plug_in"])
@pytest.mark.parametrize("nonlinear", [False, True])
@pytest.mark.parametrize("index", range(len(TIMES)))
def test_plug_in_is_the_gradient_of_the_printed_likelihood(float64, index, nonlinear, form):
    """d_t p = -grad_v |y - H(x_0hat)|^2 / (2 s^2), by central differences."""
    prior, (x, v), noise_std = mixture_prior(), state(), 0.3
    blur = convolution(np.arange(9.0).reshape(3, 3) + 1)
    operator = (lambda image: jnp.tanh(2 * blur(image))) if nonlinear else blur
    y = jnp.asarray(np.random.default_rng(2).normal(size=SHAPE))
    t = TIMES[index]

    def log_likelihood(v):
        return -jnp.sum((y - operator(prior.posterior_mean(x, v, t))) ** 2) / (2 * noise_std**2)

    mean, info, *_ = guidance.conditional_mean(y, operator, prior, noise_std, form, TIMES, 0.0)(x, v, index)
    estimate = prior.posterior_mean(x, v, t)
    score = coefficients(prior.cld, t).data * (mean - estimate)
    step, found = 1e-5, np.asarray(score).ravel()
    for i in range(v.size):
        shift = jnp.zeros(v.size).at[i].set(step).reshape(SHAPE)
        slope = (log_likelihood(v + shift) - log_likelihood(v - shift)) / (2 * step)
        assert float(slope) == pytest.approx(found[i], rel=1e-5, abs=1e-6 * np.abs(found).max())
    assert float(info.residual) == pytest.approx(float(jnp.sqrt(jnp.mean((y - operator(estimate)) ** 2))))


@pytest.mark.parametrize("index", range(len(TIMES)))
def test_covariance_is_exact_for_a_white_gaussian(float64, index):
    """E[x_0 | u_t, y] by conditioning the joint Gaussian of (x_0, y) on u_t."""
    prior, (x, v), noise_std = prior_from_denoiser(Gaussian(jnp.full(SHAPE, 0.1), 0.25), CLD()), state(), 0.2
    y = jnp.asarray(np.random.default_rng(2).normal(size=SHAPE))
    mean, *_ = guidance.conditional_mean(y, Identity(), prior, noise_std, "covariance", TIMES)(x, v, index)
    noise = coefficients(prior.cld, TIMES[index]).noise
    variance = 0.25 * noise**2 / (0.25 + noise**2)
    estimate = prior.posterior_mean(x, v, TIMES[index])
    expected = estimate + variance / (variance + noise_std**2) * (y - estimate)
    np.testing.assert_allclose(mean, expected, atol=1e-9)


def test_line_search_never_increases_the_residual(float64):
    """Where the prior's variance is understated, the step is cut to what the data support."""
    generator = np.random.default_rng(0)
    root = generator.normal(size=(20, 20)) * np.geomspace(2, 0.01, 20)
    prior = prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), root @ root.T), CLD())
    operator = convolution(np.ones((3, 3)))
    y = jnp.asarray(generator.normal(size=SHAPE))
    for index in range(len(TIMES)):
        for seed in range(5):
            x, v = state(seed)
            mean, info, *_ = guidance.conditional_mean(y, operator, prior, 0.01, "covariance", TIMES)(x, v, index)
            after = jnp.sqrt(jnp.mean((y - operator(mean)) ** 2))
            assert float(after) <= float(info.residual) * (1 + 1e-9)


def spectral_prior(shape):
    """The Gaussian of a red spectrum, with its exact calibration; and its variances."""
    variance = spectral.Spectrum((tuple(2e-3 / np.array(spectral.KNOTS) ** 2),), (0.1,))
    grid = jnp.asarray(variance.grid(*shape[:2]))

    def denoise(x, sigma):
        return spectral.backward(grid / (grid + sigma**2) * spectral.forward(x))

    noise = CLD().effective_noise(TIMES)
    error = np.array([np.mean(grid * s**2 / (grid + s**2)) for s in noise])
    prior = prior_from_denoiser(denoise, CLD(), Calibration(noise, error))
    return prior.replace(spectrum=variance), np.asarray(grid)


@pytest.mark.parametrize("index", [0, 2])
@pytest.mark.parametrize(
    ("form", "task"),
    [
        ("spectral_covariance", "gaussian_deblur"),
        ("spectral_covariance", "motion_deblur"),
        ("spectral_covariance", "random_inpaint"),
        ("spectral_covariance", "sr4"),
        ("second_moment", "motion_deblur"),
        ("second_moment", "random_inpaint"),
    ],
)
def test_iterated_forms_condition_a_gaussian(float64, monkeypatch, task, index, form):
    """E[x_0 | u_t, y] by dense linear algebra, if iterated; as it is, nearer than the white form."""
    shape = (12, 12, 1)
    prior, grid = spectral_prior(shape)
    settings = {"missing": 0.7} if task == "random_inpaint" else {}
    operator = make_operator(task, np.random.default_rng(0), 12, 12, **settings)
    generator = np.random.default_rng(3)
    x, v = jnp.asarray(generator.normal(size=shape)), jnp.asarray(generator.normal(size=shape) / 2)
    y = operator(spectral.backward(jnp.asarray(generator.normal(size=shape)) * grid**0.5))
    found = {}
    for name, iterations in (("covariance", 0), (form, 4), (form, 60)):
        for constant in ("ITERATIONS", "NEAR_ITERATIONS"):
            monkeypatch.setattr(covariance_forms, constant, iterations)
        mean = guidance.conditional_mean(y, operator, prior, 0.05, name, TIMES)
        found[iterations] = mean(x, v, index)[0]
    estimate = prior.posterior_mean(x, v, TIMES[index])
    s = float(coefficients(prior.cld, TIMES[index]).noise)
    basis = np.asarray(jax.vmap(spectral.forward)(jnp.eye(144).reshape(144, *shape))).reshape(144, 144)
    spread = basis @ np.diag((grid * s**2 / (grid + s**2)).ravel()) @ basis.T
    matrix = references.dense_matrix(operator, shape)
    gram = 0.05**2 * np.eye(len(matrix)) + matrix @ spread @ matrix.T
    step = spread @ matrix.T @ np.linalg.solve(gram, np.asarray(y - operator(estimate)).ravel())
    error = {n: np.linalg.norm(np.asarray(mean - estimate).ravel() - step) for n, mean in found.items()}
    assert error[60] < 1e-3 * np.linalg.norm(step)
    assert error[4] < error[0]


@pytest.mark.parametrize("index", range(len(TIMES)))
def test_second_moment_of_few_numbers_is_exact(float64, index):
    """For a Gaussian prior: E[x_0 | u_t, y], and differences of log p(y | u_t), by dense algebra."""
    generator = np.random.default_rng(0)
    root = generator.normal(size=(20, 20)) / 4
    prior = prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), root @ root.T), CLD())
    matrix, y, noise_std = generator.normal(size=(3, 20)), generator.normal(size=3), 0.3
    noise = float(coefficients(prior.cld, TIMES[index]).noise)
    total = root @ root.T + noise**2 * np.eye(20)
    spread = root @ root.T - root @ root.T @ np.linalg.solve(total, root @ root.T)
    gram = matrix @ spread @ matrix.T + noise_std**2 * np.eye(3)
    found = guidance.conditional_mean(y, Matrix(jnp.asarray(matrix)), prior, noise_std, "second_moment", TIMES)
    for seed in (1, 2):
        x, v = state(seed)
        estimate = prior.posterior_mean(x, v, TIMES[index])
        rest = y - matrix @ np.asarray(estimate).ravel()
        step = spread @ matrix.T @ np.linalg.solve(gram, rest)
        result = found(x, v, index)
        np.testing.assert_allclose(np.asarray(result.mean - estimate).ravel(), step, atol=1e-8)
        np.testing.assert_allclose(result.mean, estimate + result.correction, rtol=1e-12)
        expected = -(rest @ np.linalg.solve(gram, rest) + np.linalg.slogdet(gram)[1]) / 2
        assert float(result.log_fit) == pytest.approx(expected, rel=1e-8)


def log_normal(y, mean, covariance):
    r = np.ravel(y - mean)
    return -(r @ np.linalg.solve(covariance, r) + np.linalg.slogdet(covariance)[1]) / 2


@pytest.mark.parametrize("measured", [6, 18])
@pytest.mark.parametrize("form", ["covariance", "spectral_covariance", "projection", "plug_in", "diagonal_covariance"])
def test_differences_of_log_fit_are_those_of_the_likelihood(float64, monkeypatch, form, measured):
    """Between two states: of N(y; H x_0hat, s^2 I + H S H'), by dense algebra, for few numbers and many."""
    monkeypatch.setattr(covariance_forms, "ITERATIONS", 60)
    generator = np.random.default_rng(0)
    prior, grid = spectral_prior(SHAPE)
    matrix, y, index = generator.normal(size=(measured, 20)), generator.normal(size=measured), 1
    noise = float(coefficients(prior.cld, TIMES[index]).noise)
    basis = np.asarray(jax.vmap(spectral.forward)(jnp.eye(20).reshape(20, *SHAPE))).reshape(20, 20)
    white = float(prior.error_variance(noise))
    spreads = {"spectral_covariance": basis @ np.diag((grid * noise**2 / (grid + noise**2)).ravel()) @ basis.T}
    spread = spreads.get(form, 0 if form == "plug_in" else white * np.eye(20))
    found, expected = [], []
    run = guidance.conditional_mean(y, Matrix(jnp.asarray(matrix)), prior, 0.3, form, TIMES, 1e-3)
    for seed in (1, 2):
        x, v = state(seed)
        found.append(run(x, v, index, jnp.zeros(measured)).log_fit)
        estimate = np.ravel(prior.posterior_mean(x, v, TIMES[index]))
        if form == "diagonal_covariance" and measured <= 16:
            c = coefficients(prior.cld, TIMES[index])
            pull = jax.vjp(lambda v, c=c, x=x: prior.mean(x, v, jax.tree.map(jnp.asarray, c)), v)[1]
            sums = np.ravel(pull(jnp.ones(SHAPE))[0] / c.data)
            spread = np.diag(white * np.clip(sums / sums.mean(), 0.05, 20))
        gram = matrix @ spread @ matrix.T if form != "plug_in" else 0
        expected.append(log_normal(y, matrix @ estimate, gram + 0.09 * np.eye(measured)))
    if form == "diagonal_covariance" and measured > 16:  # its determinant depends on the state, and is not computed
        assert found == [None, None]
        return
    assert float(found[0] - found[1]) == pytest.approx(expected[0] - expected[1], rel=1e-6)


def test_expected_is_asked_at_a_multiple_of_what_the_prior_does_not_know(float64):
    """The deviation handed to `expected` is SPREAD r_t, SPREAD = 2."""

    class Telling(Operator):
        def __call__(self, image):
            return image

        def expected(self, image, std):
            return jnp.zeros_like(image) + std + 0 * image

    prior, (x, v) = mixture_prior(), state()
    for index, t in enumerate(TIMES):
        run = guidance.conditional_mean(jnp.zeros(SHAPE), Telling(), prior, 0.1, "covariance", TIMES)
        noise = coefficients(prior.cld, t).noise
        assert float(run(x, v, index).info.residual) == pytest.approx(2 * float(prior.error_variance(noise)) ** 0.5)


def test_the_spectrum_of_the_error_has_the_level_of_the_calibration(float64):
    """mean S = r_t^2, the measured one, and its shape is the Wiener filter's."""
    prior, grid = spectral_prior((6, 6, 1))
    measured = prior.replace(calibration=Calibration(np.array([0.01, 1.0, 100.0]), np.array([3e-5, 0.02, 0.07])))
    for noise in (0.01, 1.0, 100.0):
        found = measured.error_spectrum(jnp.asarray(noise), grid)
        assert float(jnp.mean(found)) == pytest.approx(float(measured.error_variance(jnp.asarray(noise))), rel=1e-9)
        shape = grid * noise**2 / (grid + noise**2)
        np.testing.assert_allclose(found / jnp.mean(found), shape / np.mean(shape), rtol=1e-9)


def test_diagonal_covariance_knows_where_the_prior_is_sure(float64):
    """Exact for a prior of independent pixels of different variance, where the white form is not."""
    variance = jnp.asarray(np.random.default_rng(0).uniform(0.05, 0.5, SHAPE))
    noise = CLD().effective_noise(TIMES)
    error = np.array([float(jnp.mean(variance * s**2 / (variance + s**2))) for s in noise])
    prior = prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), variance), CLD(), Calibration(noise, error))
    (x, v), y, noise_std = state(), jnp.ones(SHAPE), 0.5
    estimate, spread = prior.posterior_mean(x, v, TIMES[1]), variance * noise[1] ** 2 / (variance + noise[1] ** 2)
    exact = estimate + spread / (spread + noise_std**2) * (y - estimate)
    off = {}
    for form in ("covariance", "diagonal_covariance"):
        mean = guidance.conditional_mean(y, Identity(), prior, noise_std, form, TIMES)(x, v, 1).mean
        off[form] = float(jnp.linalg.norm(mean - exact) / jnp.linalg.norm(exact - estimate))
    assert off["diagonal_covariance"] < 1e-3
    assert off["covariance"] > 0.01


@pytest.mark.parametrize("index", range(len(TIMES)))
def test_plug_in_keeps_an_explicit_step_stable(float64, index):
    """A step turns r into r - k H C p, k = 2 G b h d_t^2, which never grows; as printed it does."""
    shape, h, noise_std = (12, 12, 1), 0.02, 0.05
    prior, grid = spectral_prior(shape)
    blur, generator = convolution(np.ones((3, 3))), np.random.default_rng(0)
    x, v, y = (jnp.asarray(generator.normal(size=shape)) for _ in range(3))
    c = coefficients(prior.cld, TIMES[index])
    left = grid * c.noise**2 / (grid + c.noise**2)
    stiffness = 2 * prior.cld.damping * prior.cld.beta * h * c.data**2
    r = y - blur(prior.posterior_mean(x, v, TIMES[index]))
    growth = {}
    for form in ("plug_in", "printed_plug_in"):
        p = guidance.conditional_mean(y, blur, prior, noise_std, form, TIMES, h)(x, v, index).correction
        after = r - stiffness * blur(spectral.backward(left * spectral.forward(p)))
        growth[form] = float(jnp.linalg.norm(after) / jnp.linalg.norm(r))
    assert growth["plug_in"] <= 1
    assert growth["printed_plug_in"] > 2


def test_normalized_plug_in_steps_by_the_norms_gradient(float64):
    """2 G b h d_t p, what an explicit step adds to v, is -M grad_v |y - H(x_0hat)|, whatever sigma is."""
    prior, (x, v), h = mixture_prior(), state(), 1e-3
    y = jnp.asarray(np.random.default_rng(2).normal(size=SHAPE))
    cld = prior.cld
    gradient = jax.grad(lambda v: jnp.linalg.norm((y - prior.posterior_mean(x, v, TIMES[1])).ravel()))(v)
    for noise_std in (0.05, 3.0):
        found = guidance.conditional_mean(y, Identity(), prior, noise_std, "normalized_plug_in", TIMES, h)(x, v, 1)
        data = coefficients(cld, TIMES[1]).data
        step = 2 * cld.damping * cld.beta * h * data * found.correction
        np.testing.assert_allclose(step, -cld.mass * gradient, rtol=1e-8, atol=1e-12)


def test_a_guess_of_the_inner_system_helps_and_never_harms(float64):
    """The solution as first direction is found at once; rubbish costs one iteration, no more."""
    generator = np.random.default_rng(0)
    root = generator.normal(size=(12, 12))
    matrix, r = jnp.asarray(root @ root.T + np.eye(12)), jnp.asarray(generator.normal(size=12))
    exact = jnp.linalg.solve(matrix, r)

    def error(iterations, guess):
        w = conjugate_gradients(lambda w: matrix @ w, r, lambda w: w, iterations, guess)
        return float((w - exact) @ matrix @ (w - exact))

    assert error(1, 7.0 * exact) < 1e-16
    rubbish = jnp.asarray(generator.normal(size=12))
    assert error(4, rubbish) <= error(0, None)
    assert error(40, rubbish) < 1e-12
    near = exact + 0.01 * rubbish
    assert error(4, near) < error(4, None)


@pytest.mark.parametrize("form", guidance.GUIDANCES)
def test_neighbours_do_not_matter(float64, form):
    """Each image of a batch is guided as if alone, whatever the others' residuals are."""
    prior = mixture_prior()
    x, v = (jax.random.normal(jax.random.key(k), (3, *SHAPE)) for k in (0, 1))
    y = jnp.stack([jnp.full(SHAPE, s) for s in (0.1, 1.0, 1e4)])

    def one(y, x, v):
        return guidance.conditional_mean(y, Identity(), prior, 0.1, form, TIMES)(x, v, 1)[:2]

    means, infos = jax.vmap(one)(y, x, v)
    for i in range(3):
        mean, info = one(y[i], x[i], v[i])
        np.testing.assert_allclose(means[i], mean, rtol=1e-9)
        np.testing.assert_allclose(infos.residual[i], info.residual, rtol=1e-9)


def test_unknown_form_is_refused():
    with pytest.raises(
        ValueError, match="guidance must be one of plug_in, printed_plug_in, normalized_plug_in, covariance, "
    ):
        guidance.conditional_mean(jnp.ones(SHAPE), Identity(), mixture_prior(), 0.1, "printed", TIMES)


def test_projection_of_a_linear_operator_needs_no_jacobian(float64):
    """Without `project` it is r_t^2 H' (s^2 I + r_t^2 H H')^-1 r; with one, the weighted way to the projection."""
    prior, (x, v), noise_std, t = mixture_prior(), state(), 0.2, TIMES[1]
    blur = convolution(np.ones((3, 3)), "circular")
    y = jnp.asarray(np.random.default_rng(2).normal(size=SHAPE))
    estimate, noise = prior.posterior_mean(x, v, t), float(coefficients(prior.cld, t).noise)
    variance = float(prior.error_variance(noise))
    matrix = references.dense_matrix(blur, SHAPE)
    gram = noise_std**2 * np.eye(y.size) + variance * matrix @ matrix.T
    expected = variance * matrix.T @ np.linalg.solve(gram, np.asarray(y - blur(estimate)).ravel())
    found = guidance.conditional_mean(y, blur, prior, noise_std, "projection", TIMES)(x, v, 1)
    np.testing.assert_allclose(np.asarray(found.correction).ravel(), expected, atol=1e-6)

    class Projected(Operator):
        def __call__(self, image):
            return image

        def project(self, image, measurement):
            return measurement

    found = guidance.conditional_mean(y, Projected(), prior, noise_std, "projection", TIMES)(x, v, 1)
    expected = variance / (variance + 1.5 * noise_std**2) * (y - estimate)
    np.testing.assert_allclose(found.correction, expected, rtol=1e-6)


@pytest.mark.parametrize("task", ["hdr", "jpeg"])
def test_expected_measurement_is_the_mean_over_what_is_not_known(task):
    """E[H(x + s e)] against a hundred thousand draws, at two spreads."""
    settings = {"jpeg_quality": 60} if task == "jpeg" else {}
    operator = make_operator(task, np.random.default_rng(0), 8, 8, **settings)
    x = jnp.asarray(np.random.default_rng(1).uniform(-0.9, 0.9, (8, 8, 3)), jnp.float32)
    for spread in (0.05, 0.4):
        draws = jax.random.normal(jax.random.key(0), (20000, 8, 8, 3))
        mean = jnp.mean(jax.vmap(lambda e, s=spread: operator(x + s * e))(draws), 0)
        np.testing.assert_allclose(operator.expected(x, jnp.float32(spread)), mean, atol=5 * spread / 20000**0.5 + 2e-3)
    np.testing.assert_allclose(operator.expected(x, jnp.float32(0.0)), operator(x), atol=1e-4)
