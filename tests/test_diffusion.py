"""The diffusion's tables against integration, the published figures, and themselves."""

import numpy as np
import pytest
import references

from cvsa_jax.diffusion import CLD, TIME_GRIDS, time_grid

FRICTIONS = [None, 0.3, 0.9999999, 3.0]
TIMES = np.array([1e-3, 0.01, 0.05, 0.1, 0.3, 0.5, 1.0])


@pytest.mark.parametrize("friction", FRICTIONS)
@pytest.mark.parametrize(("mass", "beta", "gamma"), [(0.25, 4.0, 0.04), (1.0, 8.0, 0.5)])
def test_transition_and_covariance_solve_the_moment_equation(friction, mass, beta, gamma):
    cld = CLD(mass=mass, friction=friction, beta=beta, gamma=gamma)
    for t in TIMES:
        d, s = references.integrated_moments(cld, t)
        np.testing.assert_allclose(cld.transition(t), d, rtol=0, atol=1e-10)
        np.testing.assert_allclose(cld.covariance(t), s, rtol=0, atol=1e-10)


@pytest.mark.parametrize("friction", FRICTIONS)
def test_covariance_is_the_closed_form(friction):
    cld = CLD(friction=friction)
    d, start = cld.transition(TIMES), np.diag([0, cld.gamma * cld.mass])
    limit = cld.stationary_covariance
    np.testing.assert_allclose(
        cld.covariance(TIMES), limit + d @ (start - limit) @ np.swapaxes(d, -1, -2), rtol=0, atol=1e-13
    )


def test_critical_damping_has_the_papers_closed_form():
    cld = CLD()
    b, g = cld.beta * TIMES, cld.damping
    expected = np.exp(-2 * b / g) * np.array([[1 + 2 * b / g, 4 * b / g**2], [-b, 1 - 2 * b / g]])
    np.testing.assert_allclose(cld.transition(TIMES), np.moveaxis(expected, -1, 0), rtol=1e-13, atol=1e-16)


def test_data_coefficient_and_effective_noise_have_the_published_values():
    cld = CLD()
    t = np.array([1e-3, 0.01, 0.05, 0.1, 0.5, 1.0])
    np.testing.assert_allclose(cld.data_coefficient(t), [-27279, -389.8, -18.0, -4.675, -0.1497, -0.00537], rtol=2e-3)
    t = np.array([1e-3, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0])
    np.testing.assert_allclose(
        cld.effective_noise(t), [0.00068, 0.0151, 0.149, 0.408, 1.16, 2.36, 8.43, 247.6], rtol=6e-3
    )


@pytest.mark.parametrize("friction", FRICTIONS)
def test_steps_compose(friction):
    """D_{s+t} = D_s D_t, and noise of s + t is noise of s carried on plus that of t."""
    cld = CLD(friction=friction)
    s, t = 0.013, 0.4
    np.testing.assert_allclose(cld.transition(s + t), cld.transition(t) @ cld.transition(s), atol=1e-14)
    carried = cld.transition(t) @ cld.process_covariance(s) @ cld.transition(t).T
    np.testing.assert_allclose(cld.process_covariance(s + t), carried + cld.process_covariance(t), atol=1e-14)


@pytest.mark.parametrize("friction", FRICTIONS)
def test_noise_grows_and_inverts(friction):
    cld = CLD(friction=friction)
    t = np.geomspace(1e-8, 1, 200)
    noise = cld.effective_noise(t)
    assert (np.diff(noise) > 0).all()
    np.testing.assert_allclose(cld.time_of_noise(noise), t, rtol=1e-9)
    with pytest.raises(ValueError, match="a noise of 1e-16 is below"):
        cld.time_of_noise(np.array([0.1, 1e-16]))


def test_short_times_keep_their_digits():
    """The position's covariance grows like t^3; the textbook form would lose it to rounding."""
    cld, t = CLD(), np.array([1e-6, 1e-5])
    leading = 2 * cld.damping * cld.beta**3 / (3 * cld.mass**2) * t**3
    np.testing.assert_allclose(cld.process_covariance(t)[:, 0, 0], leading, rtol=1e-3)


@pytest.mark.parametrize("name", TIME_GRIDS)
@pytest.mark.parametrize("end", [2e-3, 1e-5, 1e-7, 1e-8, 1e-10])
def test_grids_decrease_from_start_to_zero(name, end):
    cld = CLD()
    times = time_grid(name, 50, cld, 0.9, end)
    assert times.shape == (51,)
    assert times.dtype == np.float64
    assert (np.diff(times) < 0).all()
    assert (times[0], times[-2], times[-1]) == (0.9, end, 0.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("uniform", 9, CLD(), 0.5, np.nextafter(0.5, 0)), "9 times from 0.5 to 0.5 are not told apart"),
        (("logarithmic", 9, CLD(friction=0.05), 1.0, 1e-17), "t_end"),
        (("edm", 9, CLD(gamma=1e9), 1.0, 1e-8), "t_end"),
    ],
)
def test_times_that_double_precision_does_not_tell_apart_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        time_grid(*arguments)


def test_grids_are_uniform_in_their_own_measure():
    cld = CLD()
    measures = {
        "uniform": lambda t: t,
        "quadratic": np.sqrt,
        "logarithmic": lambda t: np.log(cld.effective_noise(t)),
        "edm": lambda t: cld.effective_noise(t) ** (1 / 7),
    }
    assert measures.keys() == TIME_GRIDS.keys()
    for name, measure in measures.items():
        steps = np.diff(measure(time_grid(name, 30, cld)[:-1]))
        np.testing.assert_allclose(steps, steps.mean(), rtol=1e-6)


@pytest.mark.parametrize(
    "settings", [{"mass": 0.0}, {"friction": -1.0}, {"beta": float("nan")}, {"gamma": float("inf")}]
)
def test_constants_must_be_positive(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        CLD(**settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("linear", 10), "time_grid"), (("uniform", 1), "num_steps"), (("uniform", 9, CLD(), 0.1, 0.5), "t_end")],
)
def test_bad_grids_are_refused(arguments, message):
    arguments = (*arguments, CLD()) if len(arguments) == 2 else arguments
    with pytest.raises(ValueError, match=message):
        time_grid(*arguments)
