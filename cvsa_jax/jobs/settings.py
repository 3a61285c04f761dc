"""One restoration job as an object, made from what the user gave and the presets.

`resolve` turns given values into a `RestorationJob`; `values` and `command` turn it back.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from cvsa_jax.checkpoints import LoadedPrior, spec_of
from cvsa_jax.diffusion import CLD
from cvsa_jax.experts import experts
from cvsa_jax.jobs import buckets, pairing
from cvsa_jax.jobs.job_settings import JobSettings
from cvsa_jax.jobs.methods import CLASSICAL, METHODS, MethodSettings
from cvsa_jax.jobs.records import load_prior
from cvsa_jax.noise import AUTO, NOISES, GaussianSettings, PoissonSettings
from cvsa_jax.noise_estimation import estimable
from cvsa_jax.operators import TASKS, Task, find_task, in_linear_light
from cvsa_jax.operators.task import BlindSettings
from cvsa_jax.presets import ACCURACY, USUAL
from cvsa_jax.priors import Prior
from cvsa_jax.sampler_settings import COARSE, GUESS, NOISE, SOLUTION
from cvsa_jax.settings import (
    Field,
    build,
    fields,
    nearest,
    refuse,
    replaced,
    require,
    text_of,
    values,
)  # fmt: skip

REQUIRED = ("task", "input", "output")


@dataclasses.dataclass(frozen=True)
class RestorationJob:
    """A job with every value known.

    job: its own settings. operator: those of the task. noise: those of the noise. method: those of the method.
    diffusion: the CLD.
    """

    job: JobSettings
    operator: Any
    noise: GaussianSettings | PoissonSettings
    method: MethodSettings
    diffusion: CLD

    @property
    def task(self) -> Task:
        """The entry of the task."""
        return in_linear_light(find_task(str(self.job.task)), self.job.gamma_decode)

    def load(self, checkpoint: str, class_label: int | None = None) -> LoadedPrior:
        """A prior as this job runs it."""
        return load_prior(checkpoint, self.diffusion, self.job.dtype, self.job.remat, class_label, self.job.pyramid)

    def prior(self) -> Prior:
        """The prior of the images: --checkpoint's, or that and --high_noise_checkpoint's, each for its noise levels.

        Of two priors --class_label is for each that knows classes.

        Raises:
          ValueError: if one cannot be loaded, or they do not go together.
        """
        own = self.job
        second, label = own.high_noise_checkpoint, own.class_label
        high_label = label if label is not None and second and spec_of(second).classes else None
        # Where neither knows classes the first refuses the label.
        low_label = label if high_label is None or spec_of(own.checkpoint).classes else None
        low = self.load(own.checkpoint, low_label).prior
        if second is None:
            if own.switch_noise is not None:
                raise ValueError("--switch_noise has no effect without --high_noise_checkpoint")
            if low.highest_noise is not None and self.task.blind:
                raise ValueError(
                    f"{own.checkpoint} knows noise up to {low.highest_noise:g} alone, and a search for the kernel "
                    "needs more: give --high_noise_checkpoint"
                )
            return low
        return experts(low, self.load(second, high_label).prior, own.switch_noise)

    @property
    def groups(self) -> tuple:
        """The settings objects."""
        own = (self.diffusion,) if METHODS[self.job.method].diffuses else ()
        return self.job, self.operator, self.noise, self.method, *own

    def values(self) -> dict[str, Any]:
        """Every setting by the name of its flag."""
        return {name: value for group in self.groups for name, value in values(group).items()}

    def record(self) -> dict[str, Any]:
        """The settings that decide what comes out; a job may go on only with the same ones."""
        free = {f.name for group in self.groups for f in fields(type(group)) if f.setting.free}
        return {name: value for name, value in self.values().items() if name not in free}


def known() -> dict[str, tuple[str, Sequence[Field]]]:
    """Every setting of a job, by a heading with a remark: (remark, fields)."""
    operators: dict[str, Field] = {}
    for task in TASKS.values():
        operators |= {f.name: f for f in fields(task.settings) if f.setting.flag}
    methods: dict[str, Field] = {}
    for method in METHODS.values():
        methods |= {f.name: f for f in fields(method.settings) if f.setting.flag} | methods
    preset = USUAL[ACCURACY].values()  # whose values are not the defaults of the loop
    methods = {n: f._replace(default=None) if n in preset else f for n, f in methods.items()}
    noises = {f.name: f for kind in NOISES.values() for f in fields(kind)}
    return {
        "Job": ("", fields(JobSettings)),
        "Degradation": ("Each belongs to the tasks named behind it.", list(operators.values())),
        "Noise": ("", list(noises.values())),
        "Restoration": ("By default that of the task's preset, see --list_tasks.", list(methods.values())),
        "Diffusion": ("", fields(CLD)),
    }


def owners(name: str) -> list[tuple[str, list[str]]]:
    """What a setting belongs to: (flag, its values that have the setting)."""
    has = lambda owner: name in [f.name for f in fields(owner) if f.setting.flag]  # noqa: E731
    found = [
        ("task", [t.name for t in TASKS.values() if has(t.settings)]),
        ("noise", [k for k, kind in NOISES.items() if has(kind)]),
        ("method", [k for k, m in METHODS.items() if has(m.settings) or (m.diffuses and has(CLD))]),
    ]
    return [(flag, names) for flag, names in found if names]


def belongs() -> dict[str, str]:
    """For the help of a verb: the tasks or the noise that a flag is for."""
    shared = {f.name for f in fields(JobSettings)}
    found = {}
    for name in [f.name for _, some in known().values() for f in some if f.name not in shared]:
        places = [f"--{flag}={', '.join(names)}" for flag, names in owners(name) if flag != "method"]
        found[name] = f" [{'; '.join(places)}]" if places else ""
    return found


def resolve(given: Mapping[str, Any]) -> RestorationJob:
    """The job of some given values; the rest are those of the presets and the defaults.

    Raises:
      ValueError: if a value is missing, wrong, or of no effect in this job.
      UnsuitableError: if the method cannot do the task at all.
    """
    given = {name: value for name, value in given.items() if value is not None}
    require(given, *REQUIRED)
    job = build(JobSettings, given)
    task = in_linear_light(find_task(given["task"]), job.gamma_decode)
    method, noise = METHODS[job.method], NOISES[job.noise]
    groups = (JobSettings, task.settings, noise, method.settings, *([CLD] if method.diffuses else []))
    usable = {f.name for group in groups for f in fields(group) if f.setting.flag}
    for name in given:
        if name not in usable:
            raise ValueError(_refusal(name, job))
    method.check(task)
    usual = {"noise_std": AUTO} if job.measured and noise is GaussianSettings and estimable(task) else {}
    resolved = RestorationJob(
        job, build(task.settings, given), build(noise, given, **usual), method.fill(task, given), build(CLD, given)
    )
    _refuse_idle(resolved, given)
    return resolved


def _refusal(name: str, job: JobSettings) -> str:
    """Why a setting is not taken."""
    found = owners(name)
    if not found:
        every = [f.name for _, some in known().values() for f in some]
        return f"there is no setting {name}{nearest(name, every)}"
    places = " or ".join(f"--{flag}={', '.join(names)}" for flag, names in found)
    flag = found[0][0]
    return f"--{name} belongs to {places}, not to --{flag}={getattr(job, flag)}"


def _refuse_idle(job: RestorationJob, given: Mapping[str, Any]) -> None:
    """Raises ValueError on a value that another one makes idle."""
    idle = replaced(map(type, job.groups), given)
    search = {f.name for f in fields(BlindSettings)}
    if job.job.method == CLASSICAL:
        idle |= dict.fromkeys(("split_rows", "shard_params"), f"with --method={CLASSICAL}, which has no network")
    if job.job.operator is not None:
        kept = search | {"kernel_size"} if job.task.blind else {"phase_measures"}
        drawn = {f.name for f in fields(job.task.settings)} - kept
        idle |= dict.fromkeys(drawn | {"gamma_decode"}, "beside --operator, which holds it")
    elif any(getattr(job.operator, name) is None for name in job.task.requires):
        name = next(n for n in job.task.requires if getattr(job.operator, n) is None)
        raise ValueError(f"{job.job.task} needs --{name}=FILE")
    if job.noise.estimated and not job.job.measured:
        raise ValueError("--noise_std=auto estimates the noise of measurements: give --measured, or a number")
    start = getattr(job.method, "start", None)
    if job.task.blind and start in (SOLUTION, COARSE):
        raise ValueError(f"--start={start} is not for blind tasks, whose kernel is not known: take {GUESS} or {NOISE}")
    if job.task.blind and start != GUESS:
        idle["search_guesses"] = f"without --start={GUESS}"
    refuse(pairing.idle(job.task, job.operator) | idle, given)
    buckets.check(job.task, job.job.method, job.job.bucket)


def command(job: RestorationJob) -> list[str]:
    """The arguments of `cvsa restore` that make this very job: what differs from the defaults and the preset."""
    wanted = job.values()
    first = (*REQUIRED, *job.task.requires, "operator")
    given = {name: wanted[name] for name in first if wanted[name] is not None}
    for _ in range(len(wanted)):
        found = resolve(given).values()
        missing = [n for n, v in wanted.items() if n not in given and found.get(n, v) != v]
        missing += [n for n in wanted if n not in found and n not in given]
        if not missing:
            break
        decisive = [n for n in ("method", "aim", "noise", "sampler", "guidance") if n in missing]
        name = decisive[0] if decisive else missing[0]
        both = ("t_start", "t_end")  # neither need go with the other's default
        given |= {n: wanted[n] for n in (both if name in both else (name,))}
    return [f"--{name}={text_of(value)}" for name, value in given.items()]
