"""The symmetric splitting sampler of CLD (SSCS): half a linear step, the score, half again."""

import numpy as np

from cvsa_jax.diffusion import CLD
from cvsa_jax.priors import coefficients
from cvsa_jax.samplers.base import Sampler, cholesky, draw_noise, stationary_init, to_device
from cvsa_jax.types import ConditionalMean, State


def sscs(cld: CLD, times: np.ndarray) -> Sampler:
    """A step of length h at times t -> t - h:

        u <- F u + L z       (the linear part over h/2, exactly)
        v <- v + 2 G b h (s + v/M)    (s at time t - h/2)
        u <- F u + L z       (no z in the last step)

    The linear part dx = -b/M v dt, dv = b x dt - G b/M v dt + sqrt(2 G b) dw is the
    forward diffusion with the velocity's sign turned, so F = R D_{h/2} R with
    R = diag(1, -1), and L L' likewise. The splitting is symmetric, but the kick is one
    explicit Euler step of the score, so the order is one; its error is small where
    s is near -v/M, at large t. Stable for steps with 2 G b h < 2 S^vv_t, about .0025 near
    t = 0 at the default constants.

    Args:
      cld: the diffusion.
      times: decreasing, (num_steps + 1,), ending in 0.

    References: Dockhorn et al. (2021), section 3.3.
    """
    h = times[:-1] - times[1:]
    middle = times[:-1] - h / 2
    flip = np.outer([1.0, -1.0], [1.0, -1.0])
    linear, factor = cld.transition(h / 2) * flip, cholesky(cld.process_covariance(h / 2) * flip)
    last_factor = factor.copy()
    last_factor[-1] = 0.0
    c = coefficients(cld, middle)
    kick = 2 * cld.damping * cld.beta * h
    table = (-kick * c.precision_xv, 1 + kick * (1 / cld.mass - c.precision_vv), kick * c.data)
    linear, factor, last_factor = map(to_device, (linear, factor, last_factor))
    from_x, from_v, from_mean = map(to_device, table)

    def half(state: State, a, root):
        assert state.v is not None
        key, x_noise, v_noise = draw_noise(state)
        x = a[0, 0] * state.x + a[0, 1] * state.v + root[0, 0] * x_noise
        v = a[1, 0] * state.x + a[1, 1] * state.v + root[1, 0] * x_noise + root[1, 1] * v_noise
        return state._replace(x=x, v=v, key=key)

    def step(state: State, index, mean: ConditionalMean):
        state = half(state, linear[index], factor[index])
        assert state.v is not None
        found = mean(state.x, state.v, index, state.dual)
        v = from_x[index] * state.x + from_v[index] * state.v + from_mean[index] * found.mean
        return half(state._replace(v=v, dual=found.dual), linear[index], last_factor[index]), found.info

    return Sampler(stationary_init(cld), step, middle)
