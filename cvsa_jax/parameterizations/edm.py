"""The preconditioned denoisers of EDM's code: D(x; s) = c_skip x + c_out F(c_in x; c_noise).

| name | c_skip | c_out | c_in | c_noise |
|---|---|---|---|---|
| edm | d^2/(s^2 + d^2) | s d/sqrt(s^2 + d^2) | 1/sqrt(s^2 + d^2) | ln(s)/4 |
| edm_vp | 1 | -s | 1/sqrt(1 + s^2) | (M - 1) t(s) |
| edm_ve | 1 | s | 1 | ln(s/2) |
| edm_iddpm | 1 | -s | 1/sqrt(1 + s^2) | M - 1 - j, s nearest to u_j, j < M |

with t(s) = (sqrt(beta_min^2 + 2 beta_d ln(1 + s^2)) - beta_min)/beta_d. c_noise stays in the range that the network
was trained for; the other three keep s itself.

References: Karras, Aittala, Aila, Laine (2022), arXiv:2206.00364, table 1.

Deviation: EDM's code looks for the nearest u_j among all M + 1 and would tell -1 next to u_M = 0, where its sampler
never asks; the CLD's last steps do.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.tree_util import Partial

from cvsa_jax.diffusion import CLD
from cvsa_jax.parameterizations.base import Described, Network, Parameterization, Static
from cvsa_jax.priors import Prior, prior_from_denoiser

# What EDM's code sets where a file says nothing. Its sigma_min and sigma_max of 'edm' are 0 and infinity: here they
# are the ends of the noise levels that its own sampler visits.
DEFAULTS: dict[str, dict[str, float]] = {
    "edm": {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0},
    "edm_vp": {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5},
    "edm_ve": {"sigma_min": 0.02, "sigma_max": 100.0},
    "edm_iddpm": {},
}


class Scaling(NamedTuple):
    """c_skip, c_out, c_in and c_noise at one noise level."""

    skip: Any
    out: Any
    scale: Any
    label: Any


def limits(name: str, constants: Mapping[str, float]) -> tuple[float, float]:
    """The least and the largest noise that a network knows, of 'edm', 'edm_vp' or 'edm_ve'."""
    c = {**DEFAULTS[name], **constants}
    if name == "edm_vp":
        low, high = (math.sqrt(math.expm1(c["beta_d"] * t**2 / 2 + c["beta_min"] * t)) for t in (c["epsilon_t"], 1.0))
        return low, high
    return c["sigma_min"], c["sigma_max"]


def _edm(c, s, params):
    norm = jnp.hypot(s, c["sigma_data"])  # whose square float32 may not hold
    shrink = c["sigma_data"] / norm
    return Scaling(shrink**2, s * shrink, 1 / norm, jnp.log(jnp.clip(s, *limits("edm", c))) / 4)


def _vp(c, s, params):
    # EDM's code has log(1 + s^2), which float32 rounds away at low noise; and a difference in place of this quotient.
    rate = jnp.log1p(jnp.clip(s, *limits("edm_vp", c)) ** 2)
    t = 2 * rate / (c["beta_min"] + jnp.sqrt(c["beta_min"] ** 2 + 2 * c["beta_d"] * rate))
    return Scaling(1.0, -s, 1 / jnp.hypot(1.0, s), (c["M"] - 1) * t)


def _ve(c, s, params):
    return Scaling(1.0, s, 1.0, jnp.log(jnp.clip(s, *limits("edm_ve", c)) / 2))


def _iddpm(c, s, params):
    # Of M + 1 levels that fall to u_M = 0, which is the image: the network has no step for it.
    levels = params["params"]["levels_of_noise"][:-1]
    index = jnp.argmin(jnp.abs(levels - s))
    return Scaling(1.0, -s, 1 / jnp.hypot(1.0, s), (levels.size - 1 - index).astype(s.dtype))


FORMS: dict[str, Callable[..., Scaling]] = {"edm": _edm, "edm_vp": _vp, "edm_ve": _ve, "edm_iddpm": _iddpm}


def _denoise(name, constants, network, params, x, sigma):
    s = jnp.asarray(sigma, x.dtype)
    c = FORMS[name](dict(constants), s, params)
    label = jnp.reshape(c.label, (1,)).astype(jnp.float32)
    output = network(params, (c.scale * x)[None], label)[0, ..., : x.shape[-1]]  # channels beyond are variances
    return c.skip * x + c.out * output.astype(x.dtype)


def _prior(name: str, spec: Described, network: Network, params, cld: CLD) -> Prior:
    constants = tuple(sorted({**DEFAULTS[name], **spec.constants}.items()))
    return prior_from_denoiser(Partial(Static(_denoise, (name, constants, network)), params), cld)


def _kind(name: str, summary: str) -> Parameterization:
    return Parameterization(Static(_prior, (name,)), summary)


EDM = _kind("edm", "EDM's preconditioned denoiser")
EDM_VP = _kind("edm_vp", "the noise, as EDM's code asks a variance-preserving network")
EDM_VE = _kind("edm_ve", "minus the unit noise, as EDM's code asks a variance-exploding network")
EDM_IDDPM = _kind("edm_iddpm", "the noise, as EDM's code asks a network of discrete steps")
