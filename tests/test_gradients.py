"""Derivatives of the whole restoration: finite in float32, those of central differences in float64, both modes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import CLD, GUIDANCES, GaussianMixture, prior_from_denoiser, restore, spectral
from cvsa_jax.guidance import base
from cvsa_jax.numerics import positive_part, ratio, root
from cvsa_jax.operators import Matrix, convolution, make_operator
from cvsa_jax.operators.algebra import linearised
from cvsa_jax.spectral import SpectralGaussian, Spectrum

SHAPE = (4, 5, 1)
EXPLICIT = {"sampler": "euler_maruyama", "time_grid": "uniform", "t_start": 0.3, "t_end": 0.05}


def mixture():
    means = np.random.default_rng(0).uniform(-1, 1, (3, *SHAPE))
    return prior_from_denoiser(GaussianMixture(jnp.array([0.2, 0.3, 0.5]), jnp.asarray(means), 0.05), CLD())


def red_gaussian():
    spectrum = Spectrum((tuple(2e-3 / np.array(spectral.KNOTS) ** 2),), (0.1,))
    return prior_from_denoiser(SpectralGaussian(jnp.asarray(spectrum.grid(*SHAPE[:2]))), CLD()).replace(
        spectrum=spectrum
    )


@jax.custom_vjp
def bent(x):
    """With a gradient of its own, and so without forward mode."""
    return x + x**3 / 4


bent.defvjp(lambda x: (bent(x), x), lambda x, g: (g * (1 + 0.75 * x**2),))


def plainly_bent(x):
    return x + x**3 / 4


# Arrays that a user may want the gradient by -> the operator. The function's y alone is so small that its system is
# solved by a matrix.
OPERATORS = {
    "matrix": (lambda: np.random.default_rng(1).normal(size=(18, 20)) / 5, Matrix),
    "blur": (lambda: np.random.default_rng(1).random((3, 3)) / 9, lambda kernel: convolution_of(kernel)),
    "function": (lambda: np.asarray(1.5), lambda gain: lambda x: jnp.tanh(gain * x[:3])),
    "own gradient": (lambda: np.asarray(1.5), lambda gain: lambda x: bent(gain * x)),
}


def convolution_of(kernel):
    return convolution(np.ones((3, 3))).replace(kernel=kernel)


def problem(name):
    """(loss of (y, the operator's array, noise_std), the point, a direction)."""
    array, make = OPERATORS[name]
    generator = np.random.default_rng(2)
    array = jnp.asarray(array())
    y = make(array)(jnp.asarray(generator.normal(size=SHAPE) / 2))
    point = (y + 0.1 * generator.normal(size=y.shape), array, jnp.asarray(0.2))
    direction = (*(jnp.asarray(generator.normal(size=a.shape)) for a in point[:2]), jnp.asarray(0.1))
    probe = jnp.asarray(generator.normal(size=SHAPE))

    def loss(point, prior, guidance):
        y, array, noise_std = point
        explicit = EXPLICIT if "plug_in" in guidance else {"sampler": "ancestral"}
        found = restore(
            jax.random.key(1), y, make(array), prior, image_shape=SHAPE, noise_std=noise_std, guidance=guidance,
            num_steps=3, **explicit,
        )  # fmt: skip
        return jnp.sum(found.image * probe) + jnp.sum(found.trace.residual)

    return loss, point, direction


# Every form meets a linear and a nonlinear operator and a prior with and without a spectrum.
CASES = [(g, o, p) for g in GUIDANCES for o, p in (("matrix", red_gaussian), ("function", mixture))]
CASES += [("spectral_covariance", o, p) for o, p in (("blur", red_gaussian), ("own gradient", red_gaussian))]
CASES += [("covariance", "own gradient", mixture), ("second_moment", "blur", mixture)]
each_case = pytest.mark.parametrize(("guidance", "operator", "prior"), CASES)


@each_case
def test_gradients_are_those_of_central_differences(float64, guidance, operator, prior):
    loss, point, direction = problem(operator)
    step, made = 1e-5, prior()
    points = jax.tree.map(lambda a, d: jnp.stack([a, a + step * d, a - step * d]), point, direction)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(lambda p: loss(p, made, guidance))))(points)
    expected = float(values[1] - values[2]) / (2 * step)
    found = sum(float(jnp.vdot(g[0], d)) for g, d in zip(gradients, direction, strict=True))
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("guidance", ["covariance", "spectral_covariance", "diagonal_covariance", "second_moment"])
def test_gradients_are_finite_in_float32(guidance):
    """Squares of the curvatures of a converged solver are no float32 numbers; the first dual is zero."""
    loss, point, _ = problem("blur")
    point, prior = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), point), red_gaussian()
    for leaf in jax.tree.leaves(jax.jit(jax.grad(lambda p: loss(p, prior, guidance)))(point)):
        assert np.isfinite(leaf).all()
        assert np.any(np.asarray(leaf) != 0)


def test_both_modes_agree_through_a_network(tiny_prior, photos):
    """<J' w, d> = <w, J d> for a prior of a U-Net, through each of its convolutions."""
    x, d, w = (
        jnp.asarray(a, jnp.float32) for a in (photos[0, :8, :8], *np.random.default_rng(0).normal(size=(2, 8, 8, 3)))
    )
    denoise = lambda x: tiny_prior.denoise(x, jnp.float32(0.5))  # noqa: E731
    forward = jax.jit(lambda x: jax.jvp(denoise, (x,), (d,))[1])(x)
    backward = jax.jit(lambda x: jax.vjp(denoise, x)[1](w)[0])(x)
    assert float(jnp.vdot(forward, w)) == pytest.approx(float(jnp.vdot(backward, d)), rel=1e-4)


def test_both_modes_agree_through_a_restoration(float64):
    loss, point, direction = problem("matrix")
    loss = functools.partial(loss, prior=red_gaussian(), guidance="spectral_covariance")
    gradient = jax.jit(jax.grad(loss))(point)
    _, forward = jax.jit(lambda p: jax.jvp(loss, (p,), (direction,)))(point)
    expected = sum(float(jnp.vdot(g, d)) for g, d in zip(gradient, direction, strict=True))
    assert float(forward) == pytest.approx(expected, rel=1e-7)


def test_an_operator_with_its_own_gradient_is_linearised(float64):
    """As the same function without one: value, J p and J' w."""
    generator = np.random.default_rng(0)
    x, p, w = (jnp.asarray(generator.normal(size=SHAPE)) for _ in range(3))
    found, expected = (linearised(f, x) for f in (lambda x: bent(2 * x), lambda x: plainly_bent(2 * x)))
    np.testing.assert_allclose(found[0], expected[0])
    np.testing.assert_allclose(found[1](p), expected[1](p))
    np.testing.assert_allclose(found[2](w), expected[2](w))


def test_a_projection_of_black_can_be_differentiated():
    """A transform of zero has no phase; magnitudes are put there as if it had the phase zero or none."""
    operator = make_operator("phase_retrieval", np.random.default_rng(0), 8, 8)
    y = operator(jnp.ones((8, 8, 1)))
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(operator.project(x, y) ** 2)))(jnp.zeros((8, 8, 1)))
    assert np.isfinite(gradient).all()


def test_guarded_operations_keep_their_derivatives():
    """At numbers whose squares underflow, and zero where the guard holds."""
    small = jnp.float32(1e-25)
    assert float(jax.grad(ratio, 1)(small, small)) == pytest.approx(-1e25, rel=1e-5)
    assert float(jax.grad(ratio)(small, small)) == pytest.approx(1e25, rel=1e-5)
    assert float(ratio(jnp.float32(1.0), jnp.float32(0.0))) == 0
    assert [float(g) for g in jax.grad(ratio, (0, 1))(jnp.float32(1.0), jnp.float32(0.0))] == [0, 0]
    assert float(jax.grad(root)(jnp.float32(0.0))) == 0
    assert float(jax.grad(root)(jnp.float32(4.0))) == 0.25


@pytest.mark.parametrize("values", [(1.0, 1.0, -2.0, 0.5), (1.0, 1.0, 1.0, 1.0), (-1.0, -1.0, 3.0, 0.2)])
def test_the_positive_part_of_a_matrix_can_be_differentiated(float64, values):
    """Also where eigenvalues are alike, in which `eigh` has no derivative."""
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.normal(size=(4, 4)))[0]
    matrix = jnp.asarray(basis @ np.diag(values) @ basis.T)
    change = generator.normal(size=(4, 4))
    change, step = jnp.asarray(change + change.T), 1e-6
    expected = (positive_part(matrix + step * change) - positive_part(matrix - step * change)) / (2 * step)
    np.testing.assert_allclose(jax.jvp(positive_part, (matrix,), (change,))[1], expected, atol=1e-7)
    np.testing.assert_allclose(positive_part(matrix), basis @ np.diag(np.maximum(values, 0)) @ basis.T, atol=1e-12)


def test_a_small_measurement_is_solved_by_its_matrix():
    assert 15 <= base.DENSE_SIZE < 18 < np.prod(SHAPE)  # the function's above, and not the others'
