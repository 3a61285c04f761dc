"""Weights of EDM's networks as a prior: the pickled network, or its state dictionary with `init_kwargs.json`.

Both say with what the network was made, so that nothing has to be given.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cvsa_jax.importers.edm_arrays import parameters
from cvsa_jax.importers.files import read_json
from cvsa_jax.importers.inert import Inert
from cvsa_jax.importers.source import Imported, Source, plain_state, state_of
from cvsa_jax.models.dhariwal_unet import DhariwalUNet
from cvsa_jax.models.song_unet import SongUNet
from cvsa_jax.networks import NetworkSpec
from cvsa_jax.parameterizations.edm import DEFAULTS, limits
from cvsa_jax.settings import Settings, nearest, setting

SUMMARY = "EDM, a pickle (.pkl) of its network, or state_dict.pt beside init_kwargs.json"
ARGUMENTS = "init_kwargs.json"


@dataclasses.dataclass(frozen=True)
class Options(Settings):
    """The range of the noise, which most files leave open."""

    sigma_min: float | None = setting(
        None, "The least noise that the network knows.", above=0, otherwise="the file's, or EDM's 0.002"
    )
    sigma_max: float | None = setting(
        None, "The largest noise that the network knows.", above=0, otherwise="the file's, or EDM's 80"
    )


class Kind(NamedTuple):
    """A preconditioner of EDM's code: ours, its network unless it is told another, the numbers that it takes."""

    name: str
    model_type: str
    constants: tuple[str, ...]


class Network(NamedTuple):
    """A network of EDM's code: ours, the sides at which it attends unless it is told others, and its arguments with our
    names, whose defaults are the same."""

    model: str
    module: type[SongUNet] | type[DhariwalUNet]
    attn_resolutions: tuple[int, ...]
    options: dict[str, str]


KINDS = {
    "EDMPrecond": Kind("edm", "DhariwalUNet", ("sigma_min", "sigma_max", "sigma_data")),
    "VPPrecond": Kind("edm_vp", "SongUNet", ("beta_d", "beta_min", "M", "epsilon_t")),
    "VEPrecond": Kind("edm_ve", "SongUNet", ("sigma_min", "sigma_max")),
    "iDDPMPrecond": Kind("edm_iddpm", "DhariwalUNet", ("C_1", "C_2", "M")),  # all in the table u
}
_SIZES = {name: name for name in ("model_channels", "channel_mult", "channel_mult_emb", "num_blocks")}
NETWORKS = {
    "SongUNet": Network("song_unet", SongUNet, (16,), _SIZES | {
        "channel_mult_noise": "channel_mult_noise", "embedding_type": "embedding", "encoder_type": "encoder",
        "decoder_type": "decoder", "resample_filter": "taps",
    }),
    "DhariwalUNet": Network("dhariwal_unet", DhariwalUNet, (32, 16, 8), _SIZES),
}  # fmt: skip
# Arguments that are read by their own, and those that change nothing once a network is trained.
READ = {"img_resolution", "img_channels", "label_dim", "model_type", "attn_resolutions"}
# What says of 'edm' that any noise may be asked for, not that it was trained on.
OPEN = {"sigma_min": (0,), "sigma_max": (float("inf"),)}
LISTS = {"channel_mult", "attn_resolutions", "resample_filter"}
# Of numbers that sizes follow from, and of lists: a wrong one must ask for no memory.
LARGEST_SIDE, LARGEST, LONGEST = 2**15, 2**12, 64
UNUSED = {"augment_dim", "dropout", "label_dropout", "use_fp16"}


class Found(NamedTuple):
    """A network in a file: the class of its preconditioner, what it was made with, its arrays by name."""

    class_name: str
    arguments: Mapping[str, Any]
    state: dict[str, np.ndarray]


def matches(source: Source) -> bool:
    """Whether a file is of this format."""
    layers = {"model.map_layer0.weight", "model.map_layer1.weight"}
    return _object(source.tree) is not None or layers <= plain_state(source).keys()


def _object(tree: Any) -> Inert | None:
    """The averaged network of a training state, or a network alone."""
    found = tree.get("ema") if isinstance(tree, Mapping) else tree
    return found if isinstance(found, Inert) else None


def _find(source: Source) -> Found:
    network = _object(source.tree)
    if network is not None:
        record = {"init_args": network.attributes.get("_init_args"), "init_kwargs": network.init_kwargs,
                  "class_name": network.class_name}  # fmt: skip
    else:
        record = _arguments(source)
    class_name, arguments = record.get("class_name"), record.get("init_kwargs")
    if record.get("init_args") or not isinstance(class_name, str) or not isinstance(arguments, Mapping):
        raise ValueError(f"the network's class and its arguments by name are not told, only {sorted(record)}")
    return Found(class_name.split(".")[-1], arguments, state_of(source))


def _arguments(source: Source) -> Mapping[str, Any]:
    """What the file beside a state dictionary says."""
    path = source.path.parent / ARGUMENTS
    if ARGUMENTS not in source.config and not path.is_file():
        raise ValueError(f"{source.path} does not tell its network: {ARGUMENTS} must lie beside it")
    return source.config.get(ARGUMENTS) or read_json(path)


def convert(source: Source, options: Options) -> Imported:
    """The file as a prior's description and its parameters.

    Raises:
      ValueError: if it is another network, or asks for something that is not known.

    References: Karras, Aittala, Aila, Laine (2022), arXiv:2206.00364; training/networks.py of NVlabs/edm.
    """
    class_name, arguments, state = _find(source)
    kind = _one_of("the network's class", class_name, KINDS)
    theirs = arguments.get("model_type", kind.model_type)
    network = _one_of("model_type", theirs, NETWORKS)
    known = {*network.options, *kind.constants, *READ, *UNUSED}
    for name in arguments:
        if name not in known:
            raise ValueError(f"{class_name} of {theirs} has no argument {name!r}{nearest(name, known)}")
    spec = _spec(kind, network, arguments, state, options)
    return Imported(spec, parameters(spec, state), _notes(spec, arguments, options))


def _one_of(what: str, name: Any, known: Mapping[str, Any]) -> Any:
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"{what} must be one of {', '.join(known)}, got {name!r}{nearest(name, known)}")
    return known[name]


def _spec(kind: Kind, network: Network, arguments: Mapping[str, Any], state, options: Options) -> NetworkSpec:
    side, channels = (_whole(arguments, name, None) for name in ("img_resolution", "img_channels"))
    classes = _whole(arguments, "label_dim", 0)
    made = {ours: _plain(name, arguments[name]) for name, ours in network.options.items() if name in arguments}
    levels = range(len(made.get("channel_mult", network.module.channel_mult)))
    if len(levels) * made.get("num_blocks", network.module.num_blocks) > len(state):
        raise ValueError(f"num_blocks and channel_mult are of more blocks than the {len(state)} arrays of the file")
    attended = _plain("attn_resolutions", arguments.get("attn_resolutions", network.attn_resolutions))
    made |= {"attention": tuple(i for i in levels if side >> i in attended), "classes": classes}
    constants = _constants(kind, arguments, options)
    if kind.name == "edm_iddpm":
        table = state.get("u", np.zeros(0))
        if table.ndim != 1 or table.size < 2:
            raise ValueError(f"u, the table of noise levels, must be a row of them, its shape is {table.shape}")
        made |= {"levels_of_noise": table.size, "out_channels": 2 * channels}
        highest = float(table.max())
    else:
        highest = limits(kind.name, constants)[1]
    return NetworkSpec(
        parameterization=kind.name, image_channels=channels, image_size=side, model=network.model, options=made,
        data_std=constants.get("sigma_data", NetworkSpec.data_std), constants=constants, classes=classes,
        highest_noise=highest,
    )  # fmt: skip


def _whole(arguments: Mapping[str, Any], name: str, default: int | None) -> int:
    value, least = arguments.get(name, default), 1 if default is None else 0
    if not isinstance(value, int | np.integer) or not least <= value <= LARGEST_SIDE:
        raise ValueError(f"{name} must be a whole number from {least} to {LARGEST_SIDE}, got {value!r}")
    return int(value)


def _plain(name: str, value: Any) -> Any:
    """A value of JSON or of a pickle as an option of a module: a name, a whole number, or a list of numbers."""
    listed = isinstance(value, list | tuple)
    found = tuple(v.item() if isinstance(v, np.generic) else v for v in (value if listed else (value,)))
    if name.endswith("_type"):
        wanted, sound = "a name", isinstance(value, str)
    else:
        kinds = (int, float) if name == "resample_filter" else (int,)
        sound = all(type(v) in kinds and 0 < v <= LARGEST for v in found) and listed == (name in LISTS)
        sound = sound and (name == "attn_resolutions" or len(found) > 0) and len(found) <= LONGEST
        wanted = "a list of positive numbers" if name in LISTS else f"a whole number from 1 to {LARGEST}"
    if not sound:
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return found if listed else next(iter(found))


def _constants(kind: Kind, arguments: Mapping[str, Any], options: Options) -> dict[str, Any]:
    constants = dict(DEFAULTS[kind.name])
    for name in constants:
        value = arguments.get(name, constants[name])
        if kind.name == "edm" and name in OPEN and value in OPEN[name]:
            continue
        if not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
            raise ValueError(f"{name} must be a positive number, got {value!r}")
        constants[name] = float(value)
    for name, value in (("sigma_min", options.sigma_min), ("sigma_max", options.sigma_max)):
        if value is not None and name not in constants:
            raise ValueError(f"{name} of this network follows from its own schedule and cannot be given")
        constants |= {} if value is None else {name: value}
    try:
        low, high = (0.0, 1.0) if kind.name == "edm_iddpm" else limits(kind.name, constants)
    except OverflowError as error:
        raise ValueError(f"beta_d is too large, {constants['beta_d']:g}, or beta_min") from error
    if low >= high:
        raise ValueError(f"the least noise, {low:g}, must be below the largest, {high:g}")
    return constants


def _notes(spec: NetworkSpec, arguments: Mapping[str, Any], options: Options) -> list[str]:
    notes = []
    if arguments.get("augment_dim"):
        notes.append("map_augment, for the augmentation of the training images, is left out")
    if spec.options.get("levels_of_noise"):
        notes.append(f"of the network's outputs the last {spec.image_channels}, variances, are not used")
    if spec.parameterization == "edm" and options.sigma_max is None and arguments.get("sigma_max") in (None, np.inf):
        notes.append(f"the noise is taken to be known up to {spec.highest_noise:g} (--options=sigma_max=...)")
    if spec.classes:
        notes.append(f"it knows {spec.classes} classes; unless one is asked for it is told none, for which only some "
                     "were trained")  # fmt: skip
    return notes
