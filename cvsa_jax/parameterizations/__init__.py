"""How a network of each kind becomes a prior, by name."""

from cvsa_jax.parameterizations import epsilon, noise_map, own
from cvsa_jax.parameterizations.base import Network, Parameterization

PARAMETERIZATIONS: dict[str, Parameterization] = {
    "denoiser": own.DENOISER,
    "velocity": own.VELOCITY,
    "epsilon": epsilon.EPSILON,
    "noise_map": noise_map.NOISE_MAP,
}
TRAINABLE = tuple(name for name, kind in PARAMETERIZATIONS.items() if kind.trainable)

__all__ = ["PARAMETERIZATIONS", "TRAINABLE", "Network", "Parameterization"]
