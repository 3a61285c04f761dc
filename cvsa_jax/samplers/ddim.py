"""The deterministic relative of `ancestral`: the same marginals, no noise after the start."""

import numpy as np

from cvsa_jax.diffusion import CLD
from cvsa_jax.samplers.base import Sampler, stationary_init, to_device
from cvsa_jax.types import ConditionalMean, State

SUBSTEPS = 200


def flow(cld: CLD, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """R with u_s - a_s x_0 = R (u_t - a_t x_0) along the probability flow of p(u_t | x_0).

    dR/dt = (A + diag(0, G b) S_t^-1) R, hence R S_t R' = S_s. By the classical Runge-Kutta
    method in log t. A ratio of Cholesky factors has the same marginals, but is not the limit
    of small steps, and fails at few of them.

    Args:
      cld: the diffusion.
      before, after: times t >= s > 0, of one shape (...,).

    Returns: (..., 2, 2).

    References: Zhang, Tao, Chen (2022), gDDIM, arXiv:2206.05564, section 4.
    """
    drift = cld.beta * np.array([[0, 1 / cld.mass], [-1, -cld.damping / cld.mass]])
    kick = np.diag([0, cld.damping * cld.beta])
    start, step = np.log(before), (np.log(after) - np.log(before)) / SUBSTEPS

    def slope(level, r):
        t = np.exp(level)
        return t[..., None, None] * (drift + kick @ cld.precision(t)) @ r

    r, h = np.broadcast_to(np.eye(2), (*before.shape, 2, 2)), step[..., None, None]
    for i in range(SUBSTEPS):
        level = start + i * step
        first = slope(level, r)
        second = slope(level + step / 2, r + h / 2 * first)
        third = slope(level + step / 2, r + h / 2 * second)
        last = slope(level + step, r + h * third)
        r = r + h / 6 * (first + 2 * second + 2 * third + last)
    return r


def ddim(cld: CLD, times: np.ndarray, conditional_mean: ConditionalMean) -> Sampler:
    """u_s = a_s x_0hat + R (u_t - a_t x_0hat) with x_0hat = E[x_0 | u_t, y].

    The last step returns x_0hat as position. Of first order; exact for a point prior.

    Args:
      cld: the diffusion.
      times: decreasing, (num_steps + 1,), ending in 0.
      conditional_mean: (x, v, index) -> (E[x_0 | u_t, y], Info).
    """
    gain = np.zeros((len(times) - 1, 2, 2))
    gain[:-1] = flow(cld, times[:-2], times[1:-1])
    direction = cld.data_direction(times)
    weight = direction[1:] - np.einsum("nij,nj->ni", gain, direction[:-1])
    gain, weight = to_device(gain), to_device(weight)

    def step(state: State, index):
        mean, info = conditional_mean(state.x, state.v, index)
        g, w = gain[index], weight[index]
        x = g[0, 0] * state.x + g[0, 1] * state.v + w[0] * mean
        v = g[1, 0] * state.x + g[1, 1] * state.v + w[1] * mean
        return state._replace(x=x, v=v), info

    return Sampler(stationary_init(cld), step, times[:-1])
