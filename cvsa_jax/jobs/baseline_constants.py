"""The constants of the baselines by task, each with where it comes from."""

from typing import Any, NamedTuple

from cvsa_jax.baselines import BASELINES, BLIND_BASELINES, constants
from cvsa_jax.baselines.base import TRAINING_STEPS

NUM_STEPS = "num_steps"
BLUR = ("gaussian_deblur", "motion_deblur")
HOLES = ("box_inpaint", "random_inpaint", "mask_inpaint")
REDUCTION = ("sr2", "sr4", "sr8")
PUBLISHED, ELSEWHERE, PAPER = "published code", "published for another task", "its paper's"
# The tasks that the authors' code has itself, of those methods that take a constant from it. The published nonlinear
# blur is `bkse_deblur`; `nonlinear_deblur` is another operator.
RELEASED = {
    "dps": ("phase_retrieval",),
    "ddnm": ("denoise", "gaussian_deblur", *HOLES, *REDUCTION),
    "diffpir_texture": (*BLUR, *HOLES, *REDUCTION),
    "daps": (*BLUR, "box_inpaint", "random_inpaint", "sr4", "phase_retrieval", "hdr", "bkse_deblur"),
}


class Constant(NamedTuple):
    """A constant of a method.

    method: in BASELINES or BLIND_BASELINES. name: of the factory, or NUM_STEPS. tasks: which have it; none are all.
    value: None is the factory's own default, of NUM_STEPS the registry's. source: where it comes from; see `origin`.
    scaled: whether `value` is that of 1000 steps, and 1000/T times it that of T. at_least: evaluations of a chain from
    which it holds.
    """

    method: str
    name: str
    tasks: tuple[str, ...]
    value: float | None
    source: str
    scaled: bool = False
    at_least: int = 0

    @property
    def number(self) -> float:
        """The value, wherever it stands."""
        if self.value is not None:
            return self.value
        baseline = (BASELINES | BLIND_BASELINES)[self.method]
        return baseline.num_steps if self.name == NUM_STEPS else constants(self.method)[self.name]

    def origin(self, task: str) -> str:
        """The source in a job of one task: what is published is so for the tasks of RELEASED alone."""
        return ELSEWHERE if self.source == PUBLISHED and task not in RELEASED[self.method] else self.source


# Of a method and a name the last one that fits a task counts. "Chosen" is by PSNR on the shipped samples at 64x64,
# 100 evaluations, unless it says otherwise.
CONSTANTS = (
    Constant("dps", NUM_STEPS, (), None, PAPER),
    Constant("dps", "step_size", (), 0.3, "chosen of .3, 1, 3", scaled=True),
    Constant("dps", "step_size", (*BLUR, "sr4"), 1.0, "chosen of .3, 1, 3", scaled=True),
    Constant("dps", "step_size", ("phase_retrieval",), 1.0, PUBLISHED, scaled=True),
    Constant("mcg", NUM_STEPS, (), None, PAPER),
    Constant("mcg", "step_size", (), None, "as in DPS; at T = 100 chosen of 1, 10 (`random_inpaint`)", scaled=True),
    Constant("ilvr", NUM_STEPS, (), None, "set, not tuned"),
    Constant("ilvr", "factor", (), None, "chosen of 2, 4 (`gaussian_deblur`)"),
    Constant("ddrm", NUM_STEPS, (), None, PAPER),
    Constant("ddrm", "eta", (), None, PAPER),
    Constant("ddrm", "eta_b", (), None, PAPER),
    Constant("pigdm", NUM_STEPS, (), None, "chosen of 20, 50, 100 (`gaussian_deblur`)"),
    Constant("pigdm", NUM_STEPS, HOLES, 100, "chosen of 50, 100 (`random_inpaint`)"),
    Constant("pigdm", "data_variance", (), None, PAPER),
    Constant("ddnm", NUM_STEPS, (), None, PAPER),
    Constant("ddnm", "repeats", (), None, "chosen of 1, 2 (`gaussian_deblur`)"),
    Constant("ddnm", "eta", (), None, PUBLISHED),
    Constant("diffpir", NUM_STEPS, (), None, PAPER),
    Constant("diffpir", "trust", (), None, "chosen of .25, .75, 1.75, 3 (`gaussian_deblur`)"),
    Constant("diffpir", "trust", ("random_inpaint",), 0.25, "chosen of .25, 1, 3"),
    Constant("diffpir", "trust", REDUCTION, 0.25, "chosen of .25, 1, 3 (`sr4`)"),
    Constant("diffpir", "zeta", (), None, "chosen of .3, 1 (`gaussian_deblur`)"),
    Constant("diffpir_texture", NUM_STEPS, (), None, PAPER),
    Constant("diffpir_texture", "trust", (), 1.75, PUBLISHED),
    Constant("diffpir_texture", "zeta", (), 0.3, PUBLISHED),
    Constant("diffpir_texture", "trust", REDUCTION, 0.5, "chosen of .5, 1.5, within the published .5 to 3"),
    Constant("diffpir_texture", "zeta", REDUCTION, 0.25, PUBLISHED),
    Constant("diffpir_texture", "trust", HOLES, 0.25, PUBLISHED),
    Constant("diffpir_texture", "zeta", HOLES, 1.0, PUBLISHED),
    Constant("daps", NUM_STEPS, (), None, PUBLISHED),
    Constant("daps", "ode_steps", (), None, "chosen of 1, 2 (`random_inpaint`)"),
    Constant("daps", "ode_steps", (), 5, PUBLISHED, at_least=1000),
    Constant("daps", "langevin_steps", (), None, PUBLISHED),
    Constant("daps", "langevin_steps", ("nonlinear_deblur", "bkse_deblur"), 200, PUBLISHED),
    Constant("daps", "step_size", (), None, PUBLISHED),
    Constant("daps", "step_size", ("motion_deblur", "box_inpaint", "phase_retrieval"), 5e-5, PUBLISHED),
    Constant("daps", "step_size", ("nonlinear_deblur", "bkse_deblur"), 1e-5, PUBLISHED),
    Constant("daps", "step_size", ("hdr",), 2e-5, PUBLISHED),
    Constant("daps", "decay", (), None, PUBLISHED),
    Constant("daps", "tau", (), None, PUBLISHED),
    Constant("blind_dps", NUM_STEPS, (), None, PAPER),
    Constant("blind_dps", "step_size", (), None, "at T = 100 chosen of 5, 10 (`blind_motion_deblur`)", scaled=True),
)


def _entries(method: str, task: str) -> list[Constant]:
    """Those of a method that fit a task, the last of a name being the one that counts."""
    return [entry for entry in CONSTANTS if entry.method == method and (not entry.tasks or task in entry.tasks)]


def constants_of(method: str, task: str, num_steps: int) -> dict[str, tuple[float, str]]:
    """(value, source) of every constant of a method, but its steps, in a job of one task with chains of num_steps."""
    found: dict[str, tuple[float, str]] = {name: (value, "its own") for name, value in constants(method).items()}
    for entry in _entries(method, task):
        if entry.name != NUM_STEPS and num_steps >= entry.at_least:
            scale = TRAINING_STEPS / num_steps if entry.scaled else 1
            found[entry.name] = entry.number * scale, entry.origin(task)
    return found


def steps_of(method: str, task: str) -> int:
    """Evaluations of a chain of a method's own; a baseline that the table does not know has those of its registry."""
    own = (BASELINES | BLIND_BASELINES)[method].num_steps
    return int([own, *(entry.number for entry in _entries(method, task) if entry.name == NUM_STEPS)][-1])


def documented() -> list[dict[str, Any]]:
    """The table as documents show it."""
    rows = []
    for entry in CONSTANTS:
        value = f"{entry.number:g}" + (" * 1000/T" if entry.scaled else "")
        where = ", ".join(f"`{task}`" for task in entry.tasks) or "all"
        if entry.at_least:
            where += f", from {entry.at_least} steps on"
        rows.append({
            "`--method`": f"`{entry.method}`", "constant": f"`{entry.name}`", "tasks": where, "value": value,
            "from": entry.source,
        })  # fmt: skip
    return rows
