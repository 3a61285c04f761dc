"""Decoupled annealing: each noise level is drawn afresh round E[x_0 | u_t, y]."""

import numpy as np

from cvsa_jax.diffusion import CLD
from cvsa_jax.samplers.base import Sampler, cholesky, draw_noise, noised, stationary_init, to_device
from cvsa_jax.types import ConditionalMean, State


def decoupled(cld: CLD, times: np.ndarray) -> Sampler:
    """u_{t-h} = a_{t-h} E[x_0|u_t, y] + L_{t-h} z, with S = L L'; no noise in the last step.

    The noise of u_t is forgotten, so that x_0 may move far from one level to the next: what
    nonlinear measurements need, whose guidance at high noise is often wrong. As a sampler of
    posteriors it is biased, with too little variance.

    Args:
      cld: the diffusion.
      times: decreasing, (num_steps + 1,), ending in 0.

    References: Zhang et al. (2024), decoupled annealing posterior sampling, arXiv:2407.01521, there
    with Langevin steps for x_0 and for the diffusion of images.
    """
    direction, factor = cld.data_direction(times[1:]), cholesky(cld.covariance(times[1:]))
    factor[-1] = 0.0
    direction, factor = to_device(direction), to_device(factor)

    def step(state: State, index, mean: ConditionalMean):
        found = mean(state.x, state.v, index, state.dual)
        key, x_noise, v_noise = draw_noise(state)
        x, v = noised(direction[index], factor[index], found.mean, x_noise, v_noise)
        return state._replace(x=x, v=v, key=key, dual=found.dual), found.info

    return Sampler(stationary_init(cld), step, times[:-1], posterior=False)
