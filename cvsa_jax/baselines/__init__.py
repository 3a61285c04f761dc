"""Other methods on the same denoisers and operators, each a Sampler(init, step)."""

from collections.abc import Callable

from cvsa_jax.baselines.ddrm import ddrm
from cvsa_jax.baselines.dps import dps
from cvsa_jax.baselines.pigdm import pigdm
from cvsa_jax.samplers.base import Sampler

BASELINES: dict[str, Callable[..., Sampler]] = {"dps": dps, "pigdm": pigdm, "ddrm": ddrm}

__all__ = ["BASELINES", "ddrm", "dps", "pigdm"]
