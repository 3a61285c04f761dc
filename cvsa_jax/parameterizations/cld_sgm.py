"""The velocity score of CLD-SGM's networks.

    s(u, t') = -v / S^vv - l alpha(u, t'),    l = sqrt(S^xx / (S^xx S^vv - (S^xv)^2))

without the first term if the score is not mixed. S is the covariance of u_t given x_0 with a small number added to
S^xx and S^vv. Their rate is beta_0 + beta_1 t', ours its mean B: the same diffusion at B t = beta_0 t' + beta_1 t'^2/2.

References: Dockhorn, Vahdat, Kreis (2021), arXiv:2112.07068, sections 3.1 and 3.2, appendix B.
"""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from cvsa_jax.diffusion import CLD
from cvsa_jax.parameterizations.base import Described, Network, Parameterization, Static
from cvsa_jax.priors import Coefficients, Prior

# What the published networks were trained with, but that of the post-paper rate, and 1e-6 on CelebA-HQ.
DEFAULTS = {"beta0": 4.0, "beta1": 0.0, "numerical_eps": 1e-9, "mixed_score": True}


def mean_rate(beta0: float, beta1: float) -> float:
    """B, the rate of our diffusion that is at t = 1 where theirs is."""
    return beta0 + beta1 / 2


def their_time(t: jax.Array, beta0: float, beta1: float) -> jax.Array:
    """t' of our time t: the solution of beta_0 t' + beta_1 t'^2 / 2 = B t."""
    if not beta1:
        return t
    distance = mean_rate(beta0, beta1) * t
    return 2 * distance / (beta0 + jnp.sqrt(beta0**2 + 2 * beta1 * distance))


def noise_multiplier(c: Coefficients, epsilon: float) -> jax.Array:
    """l with epsilon added to S^xx and S^vv, from the coefficients without it.

    1/l^2 = (L^vv)^2 + e + r^2 e S^xx / (S^xx + e), r = S^xv / S^xx, so that nothing cancels. S^xx is found from
    r^2 S^xx = S^vv - (L^vv)^2; where that loses its digits, at the end of the diffusion, r is small.
    """
    slope = (c.precision_xv / c.precision_vv) ** 2
    shared = jnp.maximum(c.variance_v - c.std_v**2, 0.0)
    hidden = epsilon * slope * shared / (shared + epsilon * slope + 1e-30)
    return 1 / jnp.sqrt(c.std_v**2 + epsilon + hidden)


def velocity_score(constants, network, params, x: jax.Array, v: jax.Array, c: Coefficients) -> jax.Array:
    """s(u, t) of one image.

    Args:
      constants: a mapping, or its items, with the keys of DEFAULTS.
      network: (params, u, t') -> alpha for a batch.
    """
    k = dict(constants)
    t = jnp.reshape(jnp.asarray(their_time(c.time, k["beta0"], k["beta1"]), jnp.float32), (1,))
    alpha = network(params, jnp.concatenate([x, v], -1)[None], t)[0].astype(x.dtype)
    score = -noise_multiplier(c, k["numerical_eps"]) * alpha
    return score - v / (c.variance_v + k["numerical_eps"]) if k["mixed_score"] else score


def _mean(constants, network, params, x, v, c):
    score = velocity_score(constants, network, params, x, v, c)
    return (c.precision_xv * x + c.precision_vv * v + score) / c.data


def _prior(spec: Described, network: Network, params, cld: CLD) -> Prior:
    constants = tuple(sorted({**DEFAULTS, **spec.constants}.items()))
    return Prior(Partial(Static(_mean, (constants, network)), params), cld)


CLD_SGM = Parameterization(_prior, "the velocity score of CLD-SGM", lambda _: 2, fixed=True)
