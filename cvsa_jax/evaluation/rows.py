"""The rows of a comparison: what each adds to a job, which tasks it is for, and its share of evaluations."""

from collections.abc import Iterator, Mapping
from typing import Any

from cvsa_jax.diffusion import SMALLEST_TIME
from cvsa_jax.jobs.methods import CLASSICAL, CVSA, METHODS
from cvsa_jax.operators import Task, find_task
from cvsa_jax.presets import POSTERIOR, preset_of
from cvsa_jax.restoration import evaluations_of
from cvsa_jax.types import UnsuitableError

PAPER, SAMPLE = "paper", "cvsa_sample"
_OWN: dict[str, tuple[str, dict[str, Any]]] = {
    CVSA: ("CVSA", {}),
    SAMPLE: ("CVSA, one posterior sample", {"aim": POSTERIOR, "num_samples": 1}),
    PAPER: (
        "CVSA as in the paper",
        {
            "sampler": "euler_maruyama", "guidance": "plug_in", "time_grid": "uniform", "num_steps": 1000,
            "num_samples": 1, "start": "noise", "t_start": 1.0, "t_end": SMALLEST_TIME,
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


def equal_evaluations(task: str, row: str, evaluations: int) -> dict[str, int]:
    """The settings with which a method takes at most about so many evaluations an image.

    Ours changes the number of samples, of about as many steps as its preset has; the others change their
    steps. A search for a kernel has a fixed number.
    """
    (loop, _, _), entry = preset_of(task), find_task(task)
    if row == CLASSICAL:
        return {}
    if row == PAPER:
        return {"num_steps": evaluations}
    if row == SAMPLE:
        if entry.posterior is None:
            return {}
        return {"num_steps": max(2, evaluations // evaluations_of(preset_of(task, POSTERIOR).sampler))}
    if row == CVSA:
        if entry.blind:
            return {}
        each = evaluations_of(loop)
        samples = max(1, evaluations // (loop.num_steps * each))
        return {"num_samples": samples, "num_steps": max(2, evaluations // (samples * each))}
    steps = evaluations // METHODS[row].fill(entry, {}).num_samples
    return {"num_steps": min(max(2, steps // 2 * 2), 1000)}  # even, as two evaluations a level need
