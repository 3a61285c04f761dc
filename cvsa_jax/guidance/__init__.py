"""The observation velocity score grad_v log p(y | u_t) in its forms.

Each form returns the correction p of the posterior mean, E[x_0|u_t, y] = x_0hat + p; the
score itself is d_t p. Writing C = s_eff^2 J with J the denoiser's Jacobian, one pullback
of the network, scaled by 1/d_t, is w -> C' w.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.guidance.base import Form, Problem, Solution
from cvsa_jax.guidance.covariance_forms import covariance, diagonal_covariance, second_moment, spectral_covariance
from cvsa_jax.guidance.plug_in_forms import normalized_plug_in, plug_in, printed_plug_in
from cvsa_jax.guidance.projection_form import projection
from cvsa_jax.noise import GaussianNoise, NoiseModel, as_noise
from cvsa_jax.operators.algebra import is_linear, linearised, root_mean_square
from cvsa_jax.operators.base import Operator, as_operator
from cvsa_jax.priors import AnyPrior, Prior, coefficients
from cvsa_jax.samplers.base import to_device
from cvsa_jax.settings import nearest
from cvsa_jax.types import ConditionalMean, Estimate, Info

# The errors of x_0hat go together over areas, where they are larger than r_t says of the mean pixel: at 1, 2
# and 3 the first six samples came to 23.8, 27.1 and 24.7 dB (cvsa restore --task=hdr --limit=6).
SPREAD = 2.0
GUIDANCES: dict[str, Form] = {
    "plug_in": Form(plug_in),
    "printed_plug_in": Form(printed_plug_in),
    "normalized_plug_in": Form(normalized_plug_in),
    "covariance": Form(covariance),
    "diagonal_covariance": Form(diagonal_covariance, iterates=True),
    "spectral_covariance": Form(spectral_covariance, iterates=True),
    "second_moment": Form(second_moment, iterates=True),
    "projection": Form(projection),
}


def as_form(guidance: str | Form | Callable[[Problem], Solution]) -> Form:
    """The form of a name in GUIDANCES; a function of your own is one that does not iterate.

    Raises:
      ValueError: on an unknown name.
    """
    if isinstance(guidance, Form):
        return guidance
    if callable(guidance):
        return Form(guidance)
    if guidance not in GUIDANCES:
        hint = nearest(guidance, GUIDANCES)
        raise ValueError(f"guidance must be one of {', '.join(GUIDANCES)}, got {guidance!r}{hint}")
    return GUIDANCES[guidance]


def first_dual(measurement: jax.Array, guidance: str | Form | Callable) -> jax.Array | None:
    """Where the first inner solve starts: zero, or None for a form that solves without iterating."""
    return jnp.zeros_like(measurement) if as_form(guidance).iterates else None


def conditional_mean(
    measurement: jax.Array,
    operator: Callable,
    prior: AnyPrior,
    noise: float | NoiseModel,
    guidance: str | Form | Callable[[Problem], Solution],
    times,
    steps: float | np.ndarray = 1.0,
    data_weight: float = 1.0,
) -> ConditionalMean:
    """(x, v, index, dual) -> Estimate at the float64 times given.

    `steps` are the lengths of the steps taken from there, by which `plug_in` is kept stable.
    One `jax.vjp` of the network in v: its primal is x_0hat, its pullback the guidance. A
    nonlinear H is replaced by its derivative at x_0hat (Gauss-Newton), after averaging over what is not
    known of x_0 where the operator can do that. The residual is the
    root mean square of one image's y - H(x_0hat), over the entries that carry data. log_fit is
    -(<r, w> + log det)/2, that of y ~ N(H x_0hat, sigma^2 I + H C H'); at the last time, where C vanishes, of
    noise other than `GaussianNoise` the model's own log-likelihood. It is None where it is not known. sigma^2 is the
    noise's variance where H(x) = H(x_0hat), a number or one for each entry of y, over data_weight: the posterior is
    that of p(y | x)^data_weight.

    Raises:
      ValueError: on an unknown name.
    """
    form, model, operator = as_form(guidance), as_noise(noise), as_operator(operator)
    table = coefficients(prior.cld, times)
    stiffness = to_device(2 * prior.cld.damping * prior.cld.beta * steps * table.data**2)
    table, last = jax.tree.map(to_device, table), len(table.data) - 1

    def mean(x, v, index, dual=None):
        sized = prior.at(x.shape)
        y = operator.restrict(measurement)
        c = jax.tree.map(lambda a: a[index], table)
        estimate, pullback = jax.vjp(lambda velocity: prior.mean(x, velocity, c), v)
        spread = SPREAD * jnp.sqrt(sized.error_variance(c.noise))
        predicted, forward, backward = linearised(lambda image: operator.expected(image, spread), estimate)
        r = y - predicted
        variance = model.variance(predicted) / data_weight
        problem = Problem(
            operator=operator,
            forward=forward,
            backward=backward,
            residual=r,
            pull=lambda w: pullback(w)[0] / c.data,
            noise_variance=variance,
            precision=1 / variance if jnp.ndim(variance) > 0 and model.fixed else None,
            error_variance=sized.error_variance(c.noise),
            error_covariance=sized.error_covariance(c.noise, x.shape),
            error_gain=sized.error_gain(c.noise, x.shape),
            image_shape=x.shape,
            dual=dual,
            data=c.data,
            stiffness=stiffness[index],
            mass=prior.cld.mass,
            estimate=estimate,
            measurement=y,
            fixed_noise=model.fixed,
            linear=lambda: is_linear(operator, x.shape),
            near_gram=_near_gram(operator, sized, c.noise, variance, r.shape),
        )
        found = form.solve(problem)
        fit = None
        if found.log_determinant is not None:
            fit = -(jnp.vdot(r, found.dual) + found.log_determinant) / 2
        if fit is not None and not isinstance(model, GaussianNoise):
            exact = model.log_likelihood(y, predicted)
            fit = None if exact is None else jnp.where(index == last, data_weight * exact, fit)
        return Estimate(
            estimate + found.correction,
            Info(residual=root_mean_square(operator, r)),
            found.correction,
            fit,
            None if dual is None else found.dual,
        )

    return mean


def _near_gram(operator: Operator, prior: AnyPrior, noise, variance, shape: tuple[int, ...]) -> Callable | None:
    """The operator's own, of r alone; None without one, without a spectrum, or if the noise differs by entry."""
    spectrum = getattr(prior, "spectrum", None)
    if spectrum is None or jnp.ndim(variance) or not operator.offers("near_gram"):
        return None
    assert isinstance(prior, Prior)
    power = prior.error_spectrum(noise, spectrum.variances(*shape[:2]))
    return lambda r: operator.near_gram(r, variance, power)
