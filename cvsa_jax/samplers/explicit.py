"""Algorithm 1 of the paper, with its signs mended: explicit Euler-Maruyama."""

import numpy as np

from cvsa_jax.diffusion import CLD
from cvsa_jax.priors import coefficients
from cvsa_jax.samplers.base import Sampler, draw_noise, stationary_init, to_device
from cvsa_jax.types import ConditionalMean, State


def euler_maruyama(cld: CLD, times: np.ndarray) -> Sampler:
    """A step of length h, old x and v on both right-hand sides:

        x <- x - b/M v h
        v <- v + b x h + G b/M v h + 2 G b s h + sqrt(2 G b h) z,  no z in the last step,

    where s = d_t E[x_0|u_t, y] - P^xv x - P^vv v is the conditional velocity score. The
    three weights of v are summed in float64, since the last two nearly cancel at small t.
    Stable for about 1000 uniform steps, not for few.

    Args:
      cld: the diffusion.
      times: decreasing, (num_steps + 1,), ending in 0.

    Deviation: the paper prints "-" before the score, which diverges, and a test t > 0 for
    the last step, which never fails.
    """
    h = times[:-1] - times[1:]
    rate = cld.damping * cld.beta
    c = coefficients(cld, times[:-1])
    noise = np.sqrt(2 * rate * h)
    noise[-1] = 0.0
    drift = to_device(cld.beta / cld.mass * h)
    from_x = to_device(cld.beta * h - 2 * rate * h * c.precision_xv)
    from_v = to_device(1 + rate / cld.mass * h - 2 * rate * h * c.precision_vv)
    from_mean, noise = to_device(2 * rate * h * c.data), to_device(noise)

    def step(state: State, index, mean: ConditionalMean):
        assert state.v is not None
        found = mean(state.x, state.v, index, state.dual)
        key, _, v_noise = draw_noise(state)
        x = state.x - drift[index] * state.v
        v = from_x[index] * state.x + from_v[index] * state.v + from_mean[index] * found.mean
        return state._replace(x=x, v=v + noise[index] * v_noise, key=key, dual=found.dual), found.info

    return Sampler(stationary_init(cld), step, times[:-1])
