"""Other methods on the same denoisers and operators, each a Sampler(init, step)."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

from cvsa_jax.baselines.blind_dps import blind_dps
from cvsa_jax.baselines.classical import classical
from cvsa_jax.baselines.daps import daps
from cvsa_jax.baselines.ddnm import ddnm
from cvsa_jax.baselines.ddrm import ddrm
from cvsa_jax.baselines.diffpir import diffpir
from cvsa_jax.baselines.dps import dps
from cvsa_jax.baselines.ilvr import ilvr
from cvsa_jax.baselines.mcg import mcg
from cvsa_jax.baselines.pigdm import pigdm
from cvsa_jax.noise import GaussianNoise, as_noise
from cvsa_jax.priors import Prior
from cvsa_jax.samplers.base import Sampler
from cvsa_jax.types import Operator, UnsuitableError


class Baseline(NamedTuple):
    """label: for tables. factory: of its sampler. num_steps: network evaluations by its own paper's setting."""

    label: str
    factory: Callable[..., Sampler]
    num_steps: int


BASELINES = {
    "dps": Baseline("DPS", dps, 1000),
    "mcg": Baseline("MCG", mcg, 1000),
    "ilvr": Baseline("ILVR", ilvr, 100),
    "ddrm": Baseline("DDRM", ddrm, 20),
    "pigdm": Baseline("ΠGDM", pigdm, 100),
    "ddnm": Baseline("DDNM+", ddnm, 100),
    "diffpir": Baseline("DiffPIR", diffpir, 100),
    "daps": Baseline("DAPS", daps, 100),
}
BLIND_BASELINES = {"blind_dps": Baseline("BlindDPS", blind_dps, 1000)}


def constants(name: str) -> dict[str, float]:
    """What can be set of a baseline beside its steps, with its default."""
    parameters = inspect.signature((BASELINES | BLIND_BASELINES)[name].factory).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty and p.name != "num_steps"}


def baseline_sampler(
    name: str, measurement, operator: Operator, prior: Prior, image_shape, num_steps: int, noise_std, **settings
) -> Sampler:  # fmt: skip
    """The chain of one of BASELINES under a prior that was made from a denoiser; `run_steps` runs it.

    Args:
      name: in BASELINES. measurement, operator, prior, image_shape, noise_std: as for `restore`.
      num_steps: network evaluations. settings: of the factory's `constants`.

    Raises:
      UnsuitableError: if the method cannot do it.
      ValueError: on bad settings, or a prior that is no denoiser.
    """
    noise = as_noise(noise_std)
    if not isinstance(noise, GaussianNoise):
        raise UnsuitableError("it knows Gaussian noise alone")
    noise.check()
    factory = BASELINES[name].factory
    return factory(prior.denoise, measurement, operator, noise.std, tuple(image_shape), num_steps, **settings)


__all__ = [
    "BASELINES", "BLIND_BASELINES", "Baseline", "baseline_sampler", "blind_dps", "classical", "constants", "daps",
    "ddnm", "ddrm", "diffpir", "dps", "ilvr", "mcg", "pigdm",
]  # fmt: skip
