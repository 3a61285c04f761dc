"""The deterministic relatives of `ancestral`, and what its own second order shares with them."""

import functools
from collections.abc import Callable

import numpy as np

from cvsa_jax.diffusion import CLD
from cvsa_jax.samplers.base import Sampler, stationary_init, to_device
from cvsa_jax.types import ConditionalMean, State

# Runge-Kutta steps within a step of the sampler: at least one for each STRIDE of log t, so that the tables are
# right to float32 at any number of steps; two long steps would need more than MOST, and are coarse anyway.
LEAST, MOST, STRIDE = 4, 200, 0.004


def flow(cld: CLD, before: np.ndarray, after: np.ndarray, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(R, g) of the way of p(u_t | x_0) from t to s, with x_0 moving on a line.

    If x_0 = c + l (log s_eff(tau) - log s_eff(t)) at time tau, then
    u_s = a_s c + R (u_t - a_t c) + g l, where

        dR/dt = L R,   dg/dt = L g + b (log s_eff(tau) - log s_eff(t)),
        L = A + share diag(0, G b) S_t^-1,   b = -share diag(0, G b) S_t^-1 a_t.

    share = 1 is the probability flow, for which R S_t R' = S_s; share = 2 the mean of the
    reverse diffusion, whose R is the gain of `gaussian_bridge.bridge`. By the classical Runge-Kutta
    method in log t. A ratio of Cholesky factors has the flow's marginals, but is not the limit
    of small steps, and fails at few.

    Args:
      cld: the diffusion.
      before, after: times t >= s > 0, of one shape (...,).
      share: 1 or 2, as above.

    Returns: R (..., 2, 2) and g (..., 2), which cannot be written to: they are kept for the next caller.

    References: Zhang, Tao, Chen (2022), gDDIM, arXiv:2206.05564, section 4.
    """
    shape = np.broadcast_shapes(np.shape(before), np.shape(after))
    ends = (np.ascontiguousarray(np.broadcast_to(np.asarray(t, np.float64), shape)).tobytes() for t in (before, after))
    return _flow(cld, shape, *ends, share)


@functools.lru_cache(maxsize=16)
@np.errstate(over="ignore", invalid="ignore")  # `to_device` refuses what is not finite
def _flow(cld: CLD, shape: tuple[int, ...], before: bytes, after: bytes, share: float):
    """`flow` of times as bytes; a job asks for the same tables again and again."""
    start, end = (np.log(np.frombuffer(t)) for t in (before, after))
    substeps = int(np.clip(np.ceil(np.max(start - end, initial=0.0) / STRIDE), LEAST, MOST))
    h = ((end - start) / substeps)[..., None, None]
    drift = cld.beta * np.array([[0, 1 / cld.mass], [-1, -cld.damping / cld.mass]])
    kick = share * np.diag([0, cld.damping * cld.beta])
    origin = np.log(cld.effective_noise(np.exp(start)))

    def system(level):  # dr/d log t = change r + (0, forced), r = [R, g] side by side
        t = np.exp(level)
        a, precision = cld.data_direction(t), cld.precision(t)
        pull = kick @ precision
        line = -np.log(np.einsum("...i,...ij,...j->...", a, precision, a)) / 2 - origin
        forced = -(pull @ a[..., None]) * line[..., None, None]
        return t[..., None, None] * (drift + pull), t[..., None, None] * forced

    def slope(system, r):
        change, forced = system
        out = change @ r
        out[..., 2:] += forced
        return out

    r = np.concatenate([np.broadcast_to(np.eye(2), (*start.shape, 2, 2)), np.zeros((*start.shape, 2, 1))], -1)
    first = system(start)
    for i in range(substeps):
        level = start + i * h[..., 0, 0]
        middle, last = system(level + h[..., 0, 0] / 2), system(level + h[..., 0, 0])
        one = slope(first, r)
        two = slope(middle, r + h / 2 * one)
        three = slope(middle, r + h / 2 * two)
        four = slope(last, r + h * three)
        r, first = r + h / 6 * (one + 2 * two + 2 * three + four), last
    r = r.reshape(*shape, 2, 3)
    r.flags.writeable = False  # every caller is given the same
    return r[..., :2], r[..., 2]


def _tables(cld: CLD, times: np.ndarray):
    """R, the weight of the mean, and that of its slope, for each step; the last returns the mean."""
    gain, line = np.zeros((len(times) - 1, 2, 2)), np.zeros((len(times) - 1, 2))
    gain[:-1], line[:-1] = flow(cld, times[:-2], times[1:-1])
    direction = cld.data_direction(times)
    weight = direction[1:] - np.einsum("nij,nj->ni", gain, direction[:-1])
    return gain, weight, line


def ddim(cld: CLD, times: np.ndarray) -> Sampler:
    """u_s = a_s x_0hat + R (u_t - a_t x_0hat) with x_0hat = E[x_0 | u_t, y].

    The last step returns x_0hat as position. Of first order; exact for a point prior.

    Args:
      cld: the diffusion.
      times: decreasing, (num_steps + 1,), ending in 0.
    """
    gain, weight, _ = map(to_device, _tables(cld, times))

    def step(state: State, index, mean: ConditionalMean):
        found = mean(state.x, state.v, index, state.dual)
        x, v = _move(state, gain[index], weight[index], found.mean)
        return state._replace(x=x, v=v, dual=found.dual), found.info

    return Sampler(stationary_init(cld), step, times[:-1])


def multistep(cld: CLD, times: np.ndarray) -> Sampler:
    """`ddim` of second order: x_0hat goes on along the line through its last two values.

    u_s = a_s x_0hat + R (u_t - a_t x_0hat) + g (x_0hat - x_0hat') / (log s_eff(t) - log s_eff(t')),
    with ' the step before and (R, g) those of `flow`. The first step is that of `ddim`, and
    the last returns x_0hat. Still one evaluation a step.

    Args:
      cld: the diffusion.
      times: decreasing, (num_steps + 1,), ending in 0.

    References: Lu et al. (2022), DPM-Solver++, arXiv:2211.01095, algorithm 2, which this is
    for the diffusion of images in place of that of (x, v).
    """
    gain, weight, line = _tables(cld, times)
    gain, weight, slope = map(to_device, (gain, weight, line / noise_gaps(cld, times)[:, None]))

    def step(state: State, index, mean: ConditionalMean):
        found = mean(state.x, state.v, index, state.dual)
        assert state.last_mean is not None  # of `init_with_mean`
        change = found.mean - state.last_mean
        x, v = _move(state, gain[index], weight[index], found.mean)
        x, v = x + slope[index, 0] * change, v + slope[index, 1] * change
        return state._replace(x=x, v=v, dual=found.dual, last_mean=found.mean), found.info

    return Sampler(init_with_mean(cld), step, times[:-1])


def noise_gaps(cld: CLD, times: np.ndarray) -> np.ndarray:
    """log s_eff(t_n) - log s_eff(t_{n-1}) for each step; minus infinity at the first, which has no step before."""
    return np.diff(np.log(cld.effective_noise(times[:-1])), prepend=np.inf)


def init_with_mean(cld: CLD) -> Callable:
    """The start of a sampler that looks one step back."""
    start = stationary_init(cld)

    def init(key, image_shape):
        state = start(key, image_shape)
        return state._replace(last_mean=state.x * 0)

    return init


def _move(state: State, g, w, mean):
    assert state.v is not None
    x = g[0, 0] * state.x + g[0, 1] * state.v + w[0] * mean
    v = g[1, 0] * state.x + g[1, 1] * state.v + w[1] * mean
    return x, v
