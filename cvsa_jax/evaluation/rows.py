"""The rows of a comparison: what each adds to a job, which tasks it is for, and its share of evaluations."""

from collections.abc import Iterator, Mapping
from typing import Any

from cvsa_jax.baselines.base import TRAINING_STEPS
from cvsa_jax.diffusion import SMALLEST_TIME
from cvsa_jax.jobs.methods import CLASSICAL, CVSA, METHODS, PHASE_STARTS
from cvsa_jax.operators import Task, find_task
from cvsa_jax.plans import evaluations_of
from cvsa_jax.presets import POSTERIOR, RESIDUAL, preset_of
from cvsa_jax.types import UnsuitableError

PAPER, SAMPLE, TEXTURE = "paper", "cvsa_sample", "diffpir_texture"
CHAINS = (1, 2, 4)  # numbers of chains of which a method has the best, where all have equal evaluations
# A second try of what diverged would have evaluations that the other methods have not.
_ONCE = {"retry": False}
_OWN: dict[str, tuple[str, dict[str, Any]]] = {
    CVSA: ("CVSA", _ONCE),
    SAMPLE: ("CVSA, one posterior sample", {"aim": POSTERIOR, "num_samples": 1, **_ONCE}),
    PAPER: (
        "CVSA as in the paper",
        {
            "sampler": "euler_maruyama", "guidance": "plug_in", "time_grid": "uniform", "num_steps": 1000,
            "num_samples": 1, "start": "noise", "t_start": 1.0, "t_end": SMALLEST_TIME,
            **_ONCE,
        },
    ),
}  # fmt: skip


class _Rows(Mapping[str, tuple[str, dict[str, Any]]]):
    """A row's name, and the settings that it adds to a job: ours, and every method that is registered."""

    def __getitem__(self, name: str) -> tuple[str, dict[str, Any]]:
        return _OWN[name] if name in _OWN else (METHODS[name].label, {"method": name})

    def __iter__(self) -> Iterator[str]:
        return iter([*_OWN, *(name for name in METHODS if name != CVSA)])

    def __len__(self) -> int:
        return len(list(iter(self)))


ROWS = _Rows()


def may(row: str, task: Task) -> bool:
    """Whether a row is for such tasks at all, blind or not."""
    try:
        METHODS.get(row, METHODS[CVSA]).check(task)
    except UnsuitableError:
        return False
    return True


def judged_by(row: str) -> str:
    """The measure that chooses between a row's numbers of chains."""
    return "patch_distance" if row == TEXTURE else "psnr"


def equal_evaluations(task: str, row: str, evaluations: int) -> list[dict[str, int]]:
    """The settings with which a method takes at most about so many evaluations an image, for each number of chains.

    CHAINS of them, whose mean has less error than a chain; where the answer is the start of least residual, one and
    PHASE_STARTS. A posterior sample is one chain. A search for a kernel has a fixed number. A chain of another method
    has at most TRAINING_STEPS: a number of chains that would need longer ones is left out.

    Raises:
      ValueError: if no number of chains takes so many.
    """
    entry, each, counts = find_task(task), 1, [1, PHASE_STARTS] if preset_of(task).combine == RESIDUAL else CHAINS
    if row == CLASSICAL or (row == CVSA and entry.blind) or (row == SAMPLE and entry.posterior is None):
        return [{}]
    if row == CVSA:
        each = evaluations_of(preset_of(task).sampler)
    if row == SAMPLE:
        each, counts = evaluations_of(preset_of(task, POSTERIOR).sampler), CHAINS[:1]
    found = [{"num_steps": evaluations // (each * n), "num_samples": n} for n in counts]
    if row not in _OWN:
        found = [settings for settings in found if settings["num_steps"] <= TRAINING_STEPS]
        if not found:
            most = max(counts) * (TRAINING_STEPS + 1) - 1
            raise ValueError(f"--evaluations={evaluations}: {ROWS[row][0]} takes at most {most}; see --methods")
    usable = [settings for settings in found if settings["num_steps"] >= 2]
    return usable or [{"num_steps": 2, "num_samples": 1}]
