"""How a network of each kind becomes a prior, by name."""

from cvsa_jax.parameterizations import cld_sgm, edm, epsilon, noise_map, own
from cvsa_jax.parameterizations.base import Network, Parameterization

PARAMETERIZATIONS: dict[str, Parameterization] = {
    "denoiser": own.DENOISER,
    "velocity": own.VELOCITY,
    "epsilon": epsilon.EPSILON,
    "noise_map": noise_map.NOISE_MAP,
    "edm": edm.EDM,
    "edm_vp": edm.EDM_VP,
    "edm_ve": edm.EDM_VE,
    "edm_iddpm": edm.EDM_IDDPM,
    "cld_sgm": cld_sgm.CLD_SGM,
}
TRAINABLE = tuple(name for name, kind in PARAMETERIZATIONS.items() if kind.trainable)

__all__ = ["PARAMETERIZATIONS", "TRAINABLE", "Network", "Parameterization"]
