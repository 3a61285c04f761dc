"""Other methods on the same denoisers and operators, each a Loop(init, step)."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from cvsa_jax.baselines import blind_dps, daps, ddnm, ddrm, diffpir, dps, ilvr, mcg, pigdm
from cvsa_jax.baselines.classical import restore_classically
from cvsa_jax.door import as_measurement, check_fit
from cvsa_jax.noise import GaussianNoise, as_noise
from cvsa_jax.operators.base import as_operator
from cvsa_jax.operators.stacked import stack
from cvsa_jax.priors import Prior
from cvsa_jax.samplers.base import Loop
from cvsa_jax.settings import Field, Setting, check_value
from cvsa_jax.types import UnsuitableError


class Baseline(NamedTuple):
    """label: for tables. factory: of its loop; its constants are what has a default. num_steps: network evaluations
    of a chain, unless others are asked for. ranges: of those constants that cannot be every number from zero on.
    pads: whether pixels that nobody sees may be added to an image."""

    label: str
    factory: Callable[..., Loop]
    num_steps: int
    ranges: Mapping[str, Setting] = {}
    pads: bool = True


# What the constants of the methods below mean: a share of noise or of a length, or what is divided by.
_SHARE, _POSITIVE = Setting("", low=0, high=1), Setting("", above=0)
_RANGES = {
    **dict.fromkeys(("eta", "eta_b", "zeta", "decay"), _SHARE),
    **dict.fromkeys(("step_size", "data_variance", "trust", "tau"), _POSITIVE),
}


BASELINES = {
    "dps": Baseline("DPS", dps.dps, 1000, _RANGES),
    "mcg": Baseline("MCG", mcg.mcg, 1000, _RANGES),
    "ilvr": Baseline("ILVR", ilvr.ilvr, 100, _RANGES, pads=False),
    "ddrm": Baseline("DDRM", ddrm.ddrm, 20, _RANGES),
    "pigdm": Baseline("ΠGDM", pigdm.pigdm, 50, _RANGES),
    "ddnm": Baseline("DDNM+", ddnm.ddnm, 100, _RANGES),
    "diffpir": Baseline("DiffPIR", diffpir.diffpir, 100, _RANGES),
    "diffpir_texture": Baseline("DiffPIR for texture", diffpir.diffpir, 100, _RANGES),
    "daps": Baseline("DAPS", daps.daps, 1000, _RANGES),
}
BLIND_BASELINES = {"blind_dps": Baseline("BlindDPS", blind_dps.blind_dps, 1000, _RANGES)}


def constants(name: str) -> dict[str, float]:
    """What can be set of a baseline beside its steps, with its default."""
    parameters = inspect.signature((BASELINES | BLIND_BASELINES)[name].factory).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty and p.name != "num_steps"}


def check_constant(name: str, key: str, value: Any) -> None:
    """Raises ValueError unless a constant of a baseline is in its range: by default finite, >= 0, a count >= 1."""
    baseline, default = (BASELINES | BLIND_BASELINES)[name], constants(name)[key]
    usual = Setting("", low=1 if isinstance(default, int) else 0)
    check_value(Field(key, type(default), default, baseline.ranges.get(key, usual)), value)


def baseline_loop(
    name: str, measurement: Any, operator: Callable, prior: Prior, image_shape, num_steps: int, noise_std, **settings
) -> Loop:  # fmt: skip
    """The loop of one of BASELINES under a prior that was made from a denoiser; `run_steps` runs it.

    Args:
      name: in BASELINES. measurement, operator, prior, noise_std: as for `restore`.
      image_shape: that the prior takes. num_steps: network evaluations. settings: of the factory's `constants`.

    Raises:
      UnsuitableError: if the method cannot do it.
      ValueError: on bad settings, a measurement that `restore` would refuse, or a prior that is no denoiser.
    """
    noise = as_noise(noise_std)
    if not isinstance(noise, GaussianNoise):
        raise UnsuitableError("it knows Gaussian noise alone")
    noise.check()
    whole = as_operator(operator)
    given = as_measurement(measurement, whole)
    check_fit(given, whole, image_shape)
    y, h, noise = stack(given, whole, noise)
    assert isinstance(noise, GaussianNoise)  # as it went in
    if jnp.ndim(noise.std) and h.offers("solve_gram"):  # whose closed form is that of one level
        raise UnsuitableError("it knows one noise level alone")
    for key in constants(name).keys() & settings.keys():
        check_constant(name, key, settings[key])
    return BASELINES[name].factory(prior.denoise, y, h, noise.bounded, tuple(image_shape), num_steps, **settings)


__all__ = [
    "BASELINES",
    "BLIND_BASELINES",
    "Baseline",
    "baseline_loop",
    "check_constant",
    "constants",
    "restore_classically",
]
