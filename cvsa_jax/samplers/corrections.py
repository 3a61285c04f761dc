"""Inner correction steps: the state is partly drawn again before the sampler goes on."""

import jax
import numpy as np

from cvsa_jax.diffusion import CLD
from cvsa_jax.samplers.base import Sampler, cholesky, draw_noise, to_device
from cvsa_jax.types import ConditionalMean, State

KEPT = 0.7


def with_corrections(sampler: Sampler, cld: CLD, times: np.ndarray, count: int) -> Sampler:
    """A sampler with `count` Langevin steps at each noise level before its own.

    u <- a_t m + c (u - a_t m) + sqrt(1 - c^2) L_t z,  m = E[x_0 | u_t, y],  L_t L_t' = S_t,

    with c = KEPT. It is the Langevin step u + d S_t grad log p(u_t | y) + sqrt(2 d) L_t z,
    d = 1 - c, as grad log p(u_t | y) = S_t^-1 (a_t m - u), with the noise cut so that a point
    prior's marginal is kept at any c. Each costs one more network evaluation. Errors of the
    start, such as a seam round a hole, are forgotten; what is uncertain at this noise level
    loses variance.

    Raises:
      ValueError: if the sampler is a population, or asks for the mean elsewhere than at the grid's times.
    """
    if sampler.population:
        raise ValueError("correction steps are for samplers of one chain, not for a population of particles")
    if not np.array_equal(sampler.model_times, times[:-1]):
        raise ValueError("correction steps need a sampler that asks for the mean at the grid's own times")
    direction, factor = cld.data_direction(times[:-1]), cholesky(cld.covariance(times[:-1]))
    direction, factor = to_device(direction), to_device((1 - KEPT**2) ** 0.5 * factor)

    def correct(state: State, index, mean: ConditionalMean) -> State:
        assert state.v is not None
        found = mean(state.x, state.v, index, state.dual)
        key, x_noise, v_noise = draw_noise(state)
        a, f = direction[index], factor[index]
        x = KEPT * state.x + (1 - KEPT) * a[0] * found.mean + f[0, 0] * x_noise
        v = KEPT * state.v + (1 - KEPT) * a[1] * found.mean + f[1, 0] * x_noise + f[1, 1] * v_noise
        return state._replace(x=x, v=v, key=key, dual=found.dual)

    def step(state: State, index, mean: ConditionalMean):
        state = jax.lax.fori_loop(0, count, lambda _, s: correct(s, index, mean), state)
        return sampler.step(state, index, mean)

    return sampler._replace(step=step, evaluations=count + sampler.evaluations)
