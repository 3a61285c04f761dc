"""The registry of tasks, and how degradations are joined."""

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.chain import Chain, chain
from cvsa_jax.operators.light import LinearLight
from cvsa_jax.operators.task import Task
from cvsa_jax.settings import fields, join, nearest

# Each module has its tasks in TASKS; a new operator is a file of its own and its name here.
MODULES = (
    "identity",
    "kernel_blur",
    "masks",
    "reductions",
    "phase",
    "fourier",
    "tomography",
    "camera",
    "encoder",
    "tones",
    "checkout",
)
TASKS: dict[str, Task] = {}


def register_task(task: Task) -> None:
    """Make a task known to `make_operator` and to every program.

    Raises:
      ValueError: if its name is taken or joins others, or a setting has the name of a different one.
    """
    if task.name in TASKS or "+" in task.name:
        raise ValueError(f"there is a task {task.name} already" if task.name in TASKS else "a name cannot have a +")
    join(task.name, [*(t.settings for t in TASKS.values()), task.settings])
    TASKS[task.name] = task


for _name in MODULES:
    for _task in importlib.import_module(f"cvsa_jax.operators.{_name}").TASKS:
        register_task(_task)


def find_task(name: str) -> Task:
    """The task of that name; a name like 'motion_deblur+sr4' is one degradation after another.

    Raises:
      ValueError: on an unknown name, or a combination that is not possible.
    """
    parts = name.split("+")
    for part in parts:
        if part not in TASKS:
            hint = nearest(part, TASKS)
            raise ValueError(f"task must be one of {', '.join(TASKS)}, or several joined by '+', got {part!r}{hint}")
    return TASKS[name] if len(parts) == 1 else _composed(name)


@functools.cache
def _composed(name: str) -> Task:
    tasks = [TASKS[part] for part in name.split("+")]
    for task in tasks:
        if task.blind:
            raise ValueError(f"{task.name} cannot be combined with other degradations")
    for task in tasks[:-1]:
        if not task.picture:
            raise ValueError(f"nothing can follow {task.name}, whose measurement is no picture")

    def build(generator, height, width, settings):
        built, shape = [], (height, width, 1)
        for task in tasks:
            built.append(task.build(generator, shape[0], shape[1], settings))
            shape = jax.eval_shape(built[-1], jax.ShapeDtypeStruct(shape, jnp.result_type(float))).shape
        return functools.reduce(chain, built)

    return Task(
        name,
        ", then ".join(t.summary for t in tasks),
        build,
        tuple(made for t in tasks for made in t.makes),
        join(name, [t.settings for t in tasks]),
        int(np.prod([t.factor for t in tasks])),
        lambda shape, settings: functools.reduce(lambda n, t: t.image_of(n, settings), reversed(tasks), shape),
        tuple(dict.fromkeys(name for t in tasks for name in t.drawn_by)),
        tuple(dict.fromkeys(r for t in tasks for r in t.requires)),
        all(t.linear for t in tasks),
        picture=tasks[-1].picture,
        ambiguous=any(t.ambiguous for t in tasks),
        reads=tasks[-1].reads,
    )


def make_operator(
    task: str, generator: np.random.Generator, height: int, width: int, settings: Any = None, **changes
) -> Operator:
    """The operator of a task for images of height x width pixels.

    Args:
      task: a name in TASKS, or several joined by '+'.
      generator: source of the random masks and kernels.
      height, width: of the image, not of the measurement.
      settings: an object of the task's settings, files read; None are the defaults.
      changes: single settings by name in place of an object.

    Raises:
      ValueError: on an unknown task, a setting that the task does not have, or a value out of range.
    """
    found = find_task(task)
    if settings is None:
        known = [f.name for f in fields(found.settings)]
        for name in changes:
            if name not in known:
                raise ValueError(f"{task} has no setting {name}; it has {', '.join(known) or 'none'}")
        settings = found.settings(**changes)
    return found.build(generator, height, width, settings)


def fits(task: Task, operator: Operator) -> bool:
    """Whether an operator is of the kind that a task builds."""
    return all(type(part) in task.makes for part in parts(operator))


def parts(operator: Operator) -> list[Operator]:
    """The operators of a chain, in order, and of one in linear light; of any other, itself."""
    if isinstance(operator, LinearLight):
        return parts(operator.operator)
    return [*parts(operator.first), *parts(operator.last)] if isinstance(operator, Chain) else [operator]
