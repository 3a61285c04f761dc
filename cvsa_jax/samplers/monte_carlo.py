"""Twisted sequential Monte Carlo: many chains, weighed and resampled as they run."""

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.diffusion import CLD
from cvsa_jax.samplers.base import Sampler, to_device
from cvsa_jax.samplers.flow_steps import flow, init_with_mean, noise_gaps
from cvsa_jax.samplers.gaussian_bridge import bridge
from cvsa_jax.types import ConditionalMean, State


def particles(cld: CLD, times: np.ndarray, num_particles: int = 1000) -> Sampler:
    """The `ancestral_multistep` step as proposal, p(y | u_t) ~ exp(log_fit) as twisting function.

    Each particle's weight is multiplied, from t to s < t, by

        p(u_s | u_t) p(y | u_s) / (q(u_s | u_t, y) p(y | u_t)),

    p and q the Gaussian bridges to E[x_0 | u_t] and E[x_0 | u_t, y], both with the second-order
    term of E[x_0 | u_t] along the particle's own past; where the effective size
    1 / sum w^2 falls below half of the particles, and before the last step, they are
    resampled systematically. As their number grows the guidance's approximation matters no
    longer, up to the steps' own error. The state is that of all particles, (P, H, W, C), and
    so is the result: equally weighted posterior samples. Weights of large images degenerate;
    made for measurements of few numbers.

    Args:
      cld: the diffusion.
      times: decreasing, (num_steps + 1,), ending in 0.
      num_particles: P >= 2.

    Raises:
      ValueError: if num_particles is below 2, or (when traced) if the form of guidance does not know log_fit, as
        for most large measurements that are not linear or whose noise depends on the light.

    References: Wu et al. (2023), Practical and asymptotically exact conditional sampling in
    diffusion models, arXiv:2306.17775, algorithm 1.
    """
    if num_particles < 2:
        raise ValueError(f"particles needs at least 2 particles, got {num_particles}")
    gain, weight, factor = bridge(cld, times)
    shift = np.zeros_like(weight)  # L^-1 w: how far the guidance moves the proposal, in its deviations
    shift[:-1] = np.linalg.solve(factor[:-1], weight[:-1, :, None])[..., 0]
    factor[-1] = 0.0
    slope = np.zeros_like(weight)
    slope[:-1] = flow(cld, times[:-2], times[1:-1], share=2.0)[1] / noise_gaps(cld, times)[:-1, None]
    gain, weight, factor, shift, slope = map(to_device, (gain, weight, factor, shift, slope))
    last, start = len(times) - 2, init_with_mean(cld)

    def init(key, image_shape):
        chain_key, *keys = jax.random.split(key, num_particles + 1)
        state = jax.vmap(lambda k: start(k, image_shape))(jnp.stack(keys))
        return state._replace(key=chain_key, log_weights=jnp.zeros(num_particles, state.x.dtype))

    def step(state: State, index, mean: ConditionalMean):
        found = jax.vmap(lambda x, v, dual: mean(x, v, index, dual))(state.x, state.v, state.dual)
        if found.log_fit is None:
            raise ValueError("particles needs a form of guidance that knows log p(y | u_t), such as covariance")
        assert state.log_weights is not None  # of `init`
        log_weights = jax.nn.log_softmax(state.log_weights + found.log_fit)
        effective_size = jnp.exp(-jax.nn.logsumexp(2 * log_weights))
        key, resample_key, x_key, v_key = jax.random.split(state.key, 4)
        resampled = (effective_size < num_particles / 2) | (index == last)
        parents = jnp.where(resampled, _systematic(resample_key, log_weights), jnp.arange(num_particles))
        log_weights = jnp.where(resampled, 0.0, log_weights)
        picked = (state.x, state.v, state.last_mean, found.mean, found.correction, found.log_fit, found.dual)
        x, v, last_mean, target, correction, fit, dual = jax.tree.map(lambda a: a[parents], picked)
        g, w, f, s, extra = gain[index], weight[index], factor[index], shift[index], slope[index]
        change = target - correction - last_mean
        x_noise, v_noise = (jax.random.normal(k, x.shape, x.dtype) for k in (x_key, v_key))
        inner = jax.vmap(jnp.vdot)
        ratio = -inner(s[0] * x_noise + s[1] * v_noise, correction) - jnp.sum(s**2) / 2 * inner(correction, correction)
        after = State(
            x=g[0, 0] * x + g[0, 1] * v + w[0] * target + extra[0] * change + f[0, 0] * x_noise,
            v=g[1, 0] * x + g[1, 1] * v + w[1] * target + extra[1] * change + f[1, 0] * x_noise + f[1, 1] * v_noise,
            key=key,
            dual=dual,
            last_mean=target - correction,
            log_weights=log_weights + ratio - fit,
        )
        residual = jnp.sqrt(jnp.mean(found.info.residual**2))
        return after, found.info._replace(residual=residual, effective_size=effective_size)

    return Sampler(init, step, times[:-1], population=True)


def _systematic(key: jax.Array, log_weights: jax.Array) -> jax.Array:
    """Indices of systematic resampling: the counts of each are its expectation, rounded up or down."""
    count = log_weights.shape[0]
    points = (jnp.arange(count) + jax.random.uniform(key)) / count
    total = jnp.cumsum(jnp.exp(log_weights))
    return jnp.clip(jnp.searchsorted(total / total[-1], points, side="right"), 0, count - 1)
