"""What can restore: CVSA, the baselines, and the classical yardstick, behind one interface."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

from cvsa_jax.baselines import BASELINES, BLIND_BASELINES, Baseline, check_constant, constants
from cvsa_jax.batch import BatchRestorer, KernelPrior, baseline_loops, guided_loops
from cvsa_jax.jobs.baseline_constants import constants_of, steps_of
from cvsa_jax.jobs.classical import ClassicalRestorer
from cvsa_jax.noise import NoiseModel
from cvsa_jax.operators import Task
from cvsa_jax.placement import TOGETHER, Spread
from cvsa_jax.plans import Plan, make_plan, takes_particles
from cvsa_jax.presets import ACCURACY, AIMS, COMBINATIONS, MEAN, RESIDUAL, preset_of
from cvsa_jax.priors import Prior
from cvsa_jax.sampler_settings import NOISE, SamplerSettings
from cvsa_jax.samplers import Sampler
from cvsa_jax.settings import Settings, build, fields, setting
from cvsa_jax.types import UnsuitableError

CVSA, CLASSICAL = "cvsa", "classical"
# A magnitude has several answers: as in DAPS' own protocol, the one of least residual of a few.
PHASE_STARTS = 4
_SAMPLES = setting(None, "Samples (or starts) of an image; see --combine.", low=1)
_COMBINE = setting(None, "The restoration: the samples' mean, or the one of least residual.", choices=COMBINATIONS)


@dataclasses.dataclass(frozen=True)
class CvsaSettings(SamplerSettings):
    """This package's own method: the loop, and how its samples are combined.

    Args:
      aim: which preset of the task fills what is not given.
      num_samples: chains of an image. combine: 'mean' or 'residual'. retry: whether what diverged is tried again.
    """

    aim: str = setting(ACCURACY, "The preset: of least error, or of posterior samples.", choices=AIMS)
    num_samples: int = _SAMPLES
    combine: str = _COMBINE
    retry: bool = setting(True, "Try an image whose loop diverged again: in float32, with twice the steps.")


@dataclasses.dataclass(frozen=True)
class BaselineSettings(Settings):
    """Another method.

    Args:
      num_steps: network evaluations of a sample. num_samples, combine: as of CVSA.
      method_settings: its constants, NAME=NUMBER.
    """

    num_steps: int = setting(None, "Network evaluations of a sample.", low=2, otherwise="the method's own")
    num_samples: int = _SAMPLES
    combine: str = _COMBINE
    method_settings: tuple[str, ...] = setting(
        (), "Constants of a baseline, NAME=NUMBER,...", otherwise="those of the tables"
    )
    start: ClassVar[str] = NOISE

    def constants(self) -> dict[str, float]:
        """The constants by name."""
        pairs = (text.split("=") for text in self.method_settings)
        return {name: int(v) if v.lstrip("-").isdigit() else float(v) for name, v in pairs}


@dataclasses.dataclass(frozen=True)
class ClassicalSettings(Settings):
    """The classical yardstick has none."""

    num_steps: ClassVar[int] = 1
    num_samples: ClassVar[int] = 1
    combine: ClassVar[str] = MEAN
    start: ClassVar[str] = NOISE


MethodSettings = CvsaSettings | BaselineSettings | ClassicalSettings


class Method(NamedTuple):
    """label: for tables. settings: their class. fill: (task, given) -> the settings, every value known.
    blind: whether it does blind tasks (True), others (False), or both (None). diffuses: whether the constants of
    the diffusion matter to it."""

    label: str
    settings: type
    fill: Callable[[Task, Mapping[str, Any]], MethodSettings]
    blind: bool | None = None
    diffuses: bool = False

    def check(self, task: Task) -> None:
        """Raises UnsuitableError if the method is for blind tasks and this is none, or the other way round."""
        if task.blind and self.blind is False:
            raise UnsuitableError("it must be given the kernel")
        if not task.blind and self.blind:
            raise UnsuitableError("it is for blind tasks alone")


def _fill_own(task: Task, given: Mapping[str, Any]) -> CvsaSettings:
    """The preset of the task. A sampler of the user's own takes no corrections unless they are asked for.

    With a sampler or guidance of the user's own the likelihood is not weighted unless that is asked for: it
    is what its name says.
    """
    preset = preset_of(task.name, given.get("aim", ACCURACY)).values()
    if "sampler" in given:
        preset["num_corrections"] = SamplerSettings.num_corrections
    if "sampler" in given or "guidance" in given:
        preset["data_weight"] = SamplerSettings.data_weight
    return build(CvsaSettings, given, **preset)


def _fill_baseline(name: str, baseline: Baseline) -> Callable[[Task, Mapping[str, Any]], BaselineSettings]:
    def fill(task: Task, given: Mapping[str, Any]) -> BaselineSettings:
        several = preset_of(task.name).combine == RESIDUAL
        starts, combine = (PHASE_STARTS, RESIDUAL) if several else (1, MEAN)
        defaults = {"num_steps": steps_of(name, task.name), "num_samples": starts, "combine": combine}
        made = build(BaselineSettings, given, **defaults)
        own = {constant: value for constant, (value, _) in constants_of(name, task.name, made.num_steps).items()}
        own |= _read_constants(name, baseline.label, made.method_settings)
        return dataclasses.replace(made, method_settings=tuple(f"{k}={v}" for k, v in own.items()))

    return fill


def _read_constants(name: str, label: str, texts: tuple[str, ...]) -> dict[str, float]:
    """NAME=NUMBER,... as numbers.

    Raises:
      ValueError: on a constant that the method does not have, no number, or one out of its range.
    """
    known, found = constants(name), {}
    for text in texts:
        key, _, value = text.partition("=")
        if key not in known:
            have = ", ".join(known) or "none"
            raise ValueError(f"--method_settings={text}: {label} has these constants: {have}")
        try:
            found[key] = type(known[key])(value)
        except ValueError as error:
            raise ValueError(f"--method_settings={text}: {value!r} is no {type(known[key]).__name__}") from error
        try:
            check_constant(name, key, found[key])
        except ValueError as error:
            raise ValueError(f"--method_settings={text}: {error}") from error
    return found


METHODS: dict[str, Method] = {CVSA: Method("CVSA", CvsaSettings, _fill_own, diffuses=True)}


def register_baseline(name: str, baseline: Baseline, blind: bool = False) -> None:
    """Make a baseline known to every program; blind: its factory is that of blind tasks.

    Raises:
      ValueError: if the name is taken.
    """
    if name in METHODS:
        raise ValueError(f"there is a method {name} already")
    (BLIND_BASELINES if blind else BASELINES)[name] = baseline
    METHODS[name] = Method(baseline.label, BaselineSettings, _fill_baseline(name, baseline), blind)


for _blind, _registry in ((False, BASELINES), (True, BLIND_BASELINES)):
    for _name, _baseline in list(_registry.items()):
        register_baseline(_name, _baseline, _blind)
METHODS[CLASSICAL] = Method("classical", ClassicalSettings, lambda task, given: ClassicalSettings(), False)


def loop_settings(method: CvsaSettings) -> SamplerSettings:
    """The settings of one loop of a job; the samples of a population are its particles."""
    particles = method.num_samples if takes_particles(method) else None
    own: dict[str, Any] = {f.name: getattr(method, f.name) for f in fields(SamplerSettings)}
    own["num_particles"] = particles
    return SamplerSettings(**own)


def plan_of(method: MethodSettings, prior: Prior) -> Plan | None:
    """The plan of a job's loops, or None of a method that has none of ours.

    Raises:
      ValueError: if its settings do not go together, or the method asks the prior for more noise than it knows.
    """
    if isinstance(method, CvsaSettings):
        return make_plan(loop_settings(method), prior.cld, prior.highest_noise)
    if isinstance(method, BaselineSettings) and prior.highest_noise is not None:
        raise ValueError(
            f"the prior knows noise up to {prior.highest_noise:g} alone, and this method starts from noise: "
            "give --high_noise_checkpoint"
        )
    return None


def evaluations(method: MethodSettings, sampler: Sampler | None) -> int:
    """Of the network, for one image; a search for the kernel is not counted."""
    if isinstance(method, ClassicalSettings):
        return 0
    return method.num_steps * method.num_samples * (1 if sampler is None else sampler.evaluations)


def make_restorer(
    name: str, method: MethodSettings, prior: Prior, noise: NoiseModel, plan: Plan | None,
    kernel: KernelPrior | None, search: bool, spread: Spread = TOGETHER,
) -> "BatchRestorer | ClassicalRestorer":  # fmt: skip
    """What restores a batch; has the interface of `BatchRestorer`.

    Args:
      name: in METHODS. method: its settings. prior, noise: of the images. plan: of `plan_of`.
      kernel: for joint chains of image and kernel. search: whether a search finds the kernel first.
      spread: what is cut over the devices.

    Raises:
      ValueError, UnsuitableError: if the settings do not go together.
    """
    if isinstance(method, ClassicalSettings):
        return ClassicalRestorer(noise)
    if isinstance(method, BaselineSettings):
        loops = baseline_loops(name, noise, method.num_steps, method.constants(), kernel)
    else:
        assert plan is not None  # that of CVSA
        if search:  # the search has begun where the loop now goes on
            plan = plan._replace(settings=dataclasses.replace(plan.settings, start=NOISE))
        loops = guided_loops(prior, noise, plan, kernel)
    return BatchRestorer(prior, loops, method.num_steps, kernel, spread=spread)
