"""Makers of the loops that a batch runs: of `restore`, of blind restoration, of the baselines."""

from collections.abc import Callable
from typing import NamedTuple

from cvsa_jax.baselines import BLIND_BASELINES, baseline_loop
from cvsa_jax.blind import Layout, PairPrior, blind_loop
from cvsa_jax.noise import NoiseModel
from cvsa_jax.plans import Plan, make_plan, of_size
from cvsa_jax.priors import Prior
from cvsa_jax.restoration import make_loop
from cvsa_jax.sampler_settings import SamplerSettings
from cvsa_jax.samplers import Loop


class KernelPrior(NamedTuple):
    """What a blind task knows of kernels: the prior, and the side of the kernel's image for a canvas (H, W, C)."""

    prior: Prior
    side: Callable[[tuple[int, ...]], int]


# (measurement, operator, (prior, prior of kernels or None), canvas, its own noise or None) -> Loop
LoopMaker = Callable[..., Loop]


def guided_loops(
    prior: Prior, noise: NoiseModel, settings: SamplerSettings | Plan, kernel: KernelPrior | None
) -> LoopMaker:
    """Loops of `restore`, or with a prior of kernels those of `blind_loop`; their tables are made once.

    Args:
      prior, noise, kernel: of the images, their measurements where they have none of their own, the kernels.
      settings: of the loops, or their plan.

    Raises:
      ValueError: on settings that `restore` would refuse.
    """
    noise.check()
    plan = settings if isinstance(settings, Plan) else make_plan(settings, prior.cld, prior.highest_noise)

    def make(measurement, operator, priors, canvas, own: NoiseModel | None = None):
        if kernel is None:
            return make_loop(measurement, operator, priors[0], own or noise, of_size(plan, priors[0], canvas))
        pair = PairPrior(*priors, layout=Layout(canvas, kernel.side(canvas)))
        return blind_loop(measurement, operator, pair, own or noise, plan)

    return make


def baseline_loops(
    name: str, noise: NoiseModel, num_steps: int, constants: dict, kernel: KernelPrior | None
) -> LoopMaker:
    """Loops of one of BASELINES or, with a prior of kernels, of BLIND_BASELINES."""

    def make(measurement, operator, priors, canvas, own: NoiseModel | None = None):
        if kernel is None:
            return baseline_loop(name, measurement, operator, priors[0], canvas, num_steps, own or noise, **constants)
        factory, side = BLIND_BASELINES[name].factory, kernel.side(canvas)
        denoisers = (p.denoise for p in priors)
        return factory(*denoisers, measurement, operator, canvas, side, num_steps, **constants)

    return make
