"""What the importers of published noise predictors share: their schedules, and where their arrays go."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cvsa_jax.adapters import preserving
from cvsa_jax.importers.arrays import LEAVES, convolution, shapes_of
from cvsa_jax.importers.source import Imported, take
from cvsa_jax.models.epsilon_unet import EpsilonUNet
from cvsa_jax.networks import NetworkSpec
from cvsa_jax.parameterizations.epsilon import DEFAULTS, SCHEDULES, usable_of
from cvsa_jax.settings import Settings, setting

PREDICTS = ("epsilon", "v", "x0")
IMAGE_SIZE = 256  # of nearly all published ones
STEPS, FIRST, LAST = DEFAULTS["num_steps"], DEFAULTS["first"], DEFAULTS["last"]

State = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class ScheduleOptions(Settings):
    """What the weights of a noise predictor do not tell; None is what stands beside them, or the usual."""

    image_size: int | None = setting(
        None, "Side of the training images.", "pixels", low=1, otherwise=f"the file's, or {IMAGE_SIZE}"
    )
    schedule: str | None = setting(
        None, "How the rates (betas) of the noise rise.", choices=SCHEDULES, otherwise="the file's, or linear"
    )
    diffusion_steps: int | None = setting(
        None, "Steps of the noise schedule.", low=2, otherwise=f"the file's, or {STEPS}"
    )
    beta_start: float | None = setting(
        None, "First rate of the noise.", above=0, below=1, otherwise=f"the file's, or {FIRST:g}"
    )
    beta_end: float | None = setting(
        None, "Last rate of the noise.", above=0, below=1, otherwise=f"the file's, or {LAST:g}"
    )
    predicts: str | None = setting(
        None, "What the network predicts.", choices=PREDICTS, otherwise="the file's, or epsilon"
    )


def usual_schedule(options: ScheduleOptions, name: str = "linear", rate: float = 1.0) -> tuple[dict, list[str]]:
    """(constants of the parameterization 'epsilon', notes) where only the options tell the schedule.

    Args:
      name: the schedule that is taken where no option names one. rate: what the usual first and last rate are
        multiplied by.
    """
    chosen, steps = options.schedule or name, options.diffusion_steps or STEPS
    notes = []
    if options.schedule is None:
        notes = [f"the file does not tell its noise: taken to be {chosen} of {steps} steps (--options=schedule=...)"]
    ends = options.beta_start, options.beta_end
    if chosen == "cosine":
        if ends != (None, None):
            raise ValueError("beta_start and beta_end are of no use beside the schedule cosine")
        return constants_of(chosen, steps, FIRST, LAST, options.predicts or PREDICTS[0]), notes
    first, last = ends[0] or FIRST * rate, ends[1] or LAST * rate
    return constants_of(chosen, steps, first, last, options.predicts or PREDICTS[0]), notes


def constants_of(name: str, steps: int, first: float, last: float, predicts: str) -> dict[str, Any]:
    """The constants of the parameterization 'epsilon'."""
    ends = {} if name == "cosine" else {"first": first, "last": last}
    return {"schedule": name, "num_steps": steps, **ends, "predicts": predicts}


def shape_of(state: Mapping[str, np.ndarray], key: str, rank: int) -> tuple[int, ...]:
    """The shape of an array from which a number of the network is read.

    Raises:
      ValueError: if it is missing or has another number of axes.
    """
    if key not in state:
        raise ValueError(f"{key} is missing in the file")
    shape = np.shape(state[key])
    if len(shape) != rank:
        raise ValueError(f"{key} must have {rank} axes, its shape is {shape}")
    return shape


def image_channels(state: Mapping[str, np.ndarray], first: str, last: str) -> tuple[int, int]:
    """(image, output) channels of the network whose first and last convolutions are these.

    Raises:
      ValueError: if it is shown more than a grey or a colour image, or gives neither one nor two of them.
    """
    taken, given = shape_of(state, first, 4)[1], shape_of(state, last, 4)[0]
    if taken not in (1, 3):
        raise ValueError(f"{first} takes {taken} channels: a network that is shown more than a grey or a colour image "
                         "cannot be a prior of images")  # fmt: skip
    if given not in (taken, 2 * taken):
        raise ValueError(f"{last} gives {given} channels: expected {taken}, or {2 * taken} with learned variances")
    return taken, given


def features_of(state: Mapping[str, np.ndarray], key: str) -> int:
    """The features of the time embedding, whose first layer makes four times as many of them.

    Raises:
      ValueError: if it does not.
    """
    made, features = shape_of(state, key, 2)
    if made != 4 * features:
        raise ValueError(f"{key} must make four times as many features as it takes, its shape is {made, features}")
    return features


def parameters(
    state: Mapping[str, np.ndarray], network: EpsilonUNet, channels: int, prefixes: Mapping[str, str],
    names: Mapping[str, str | tuple[str, str, str]],
    ordered: Callable[[str, np.ndarray], np.ndarray] = lambda part, rows: rows, ignored: tuple[str, ...] = (),
) -> dict:  # fmt: skip
    """The arrays of a file as parameters of a network.

    Args:
      state: the arrays by name. network: what they are of. channels: of its input.
      prefixes: what the file calls each part of our network.
      names: what it calls each layer of a part; of `qkv` perhaps three, whose arrays are put together.
      ordered: (part, array of the one layer `qkv`) -> the array with its rows ordered [q, k, v][head][feature].
      ignored: patterns of keys that are not used.

    Raises:
      ValueError: names the keys that are missing, unknown or of another shape.
    """
    side, parts = 2 * network.stride, names["qkv"]
    layout = cast(dict[tuple, Any], flatten_dict(shapes_of(network, (1, side, side, channels), (1,))))
    entries, expected = [], {}
    for path, leaf in layout.items():
        part, *layer, kind = path
        turn = functools.partial(_turned, kind == "kernel", len(leaf.shape))
        if layer == ["qkv"] and isinstance(parts, tuple):
            third = jax.ShapeDtypeStruct((*leaf.shape[:-1], leaf.shape[-1] // 3), np.float32)
            for name in parts:
                expected[part, name, kind] = third
                entries.append((f"{prefixes[part]}.{name}.{LEAVES[kind]}", (part, name, kind), turn))
            continue
        expected[path] = leaf
        theirs = ".".join([prefixes[part], *(str(names[name]) for name in layer), LEAVES[kind]])
        first = functools.partial(ordered, part) if layer == ["qkv"] else np.asarray
        entries.append((theirs, path, lambda array, first=first, turn=turn: turn(first(array))))
    taken = cast(dict[tuple, np.ndarray], flatten_dict(take(state, entries, unflatten_dict(expected), ignored)))
    for path in layout.keys() - taken.keys():
        taken[path] = np.concatenate([taken.pop((path[0], name, path[-1])) for name in parts], -1)
    return {"params": unflatten_dict(taken)}


def _turned(kernel: bool, rank: int, array: np.ndarray) -> np.ndarray:
    """An array as our layer has it: a kernel (O, I, h, w) as (h, w, I, O), or (O, I), (O, I, 1, 1) as (I, O)."""
    if not kernel:
        return array
    return convolution(array) if rank == 4 else array.reshape(len(array), -1).T


def imported(
    options: ScheduleOptions, network: dict[str, Any], params: dict, channels: int, constants: dict[str, Any],
    image_size: int, notes: list[str],
) -> Imported:  # fmt: skip
    """All of it together; image_size is taken where no option says it.

    Raises:
      ValueError: if the schedule is none, as one whose noise does not grow.
    """
    outputs, classes = network["out_channels"], network.get("classes", 0)
    if outputs > channels:
        notes = [*notes, f"of the network's {outputs} outputs the last {outputs - channels}, variances, are not used"]
    kept = usable_of(constants)
    preserving(kept)
    spec = NetworkSpec(
        parameterization="epsilon", image_channels=channels, image_size=options.image_size or image_size,
        model="epsilon_unet", options=network, constants=constants, classes=classes, needs_class=classes > 0,
        highest_noise=float(((1 - kept[-1]) / kept[-1]) ** 0.5),
    )  # fmt: skip
    return Imported(spec, params, notes)
