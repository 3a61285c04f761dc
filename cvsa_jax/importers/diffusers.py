"""Weights of the diffusers library's UNet2DModel, a folder with config.json, as a prior."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cvsa_jax.importers.epsilon import (
    FIRST,
    IMAGE_SIZE,
    LAST,
    STEPS,
    ScheduleOptions,
    constants_of,
    image_channels,
    imported,
    parameters,
    usual_schedule,
)
from cvsa_jax.importers.source import Imported, Source, plain_state, state_of
from cvsa_jax.models.epsilon_unet import ACTIVATIONS, EpsilonUNet
from cvsa_jax.parameterizations.epsilon import kept_of
from cvsa_jax.settings import setting

SUMMARY = "a folder of the diffusers library with a UNet2DModel: config.json, its weights, scheduler_config.json"
MODEL, SCHEDULER = "config.json", "scheduler_config.json"
# What a missing key means: the library's defaults.
DEFAULTS: dict[str, Any] = {
    "sample_size": None, "center_input_sample": False, "time_embedding_type": "positional", "time_embedding_dim": None,
    "freq_shift": 0, "flip_sin_to_cos": True, "mid_block_type": "UNetMidBlock2D",
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896), "layers_per_block": 2, "mid_block_scale_factor": 1.0,
    "downsample_padding": 1, "downsample_type": "conv", "upsample_type": "conv", "act_fn": "silu",
    "attention_head_dim": 8, "norm_num_groups": 32, "attn_norm_num_groups": None, "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default", "add_attention": True, "class_embed_type": None, "num_class_embeds": None,
}  # fmt: skip
_UNUSED = {"in_channels", "out_channels", "dropout", "num_train_timesteps"}  # the weights show them, or of no effect
_CLASSES = (None, "UNet2DModel", "UNetUnconditionalModel")
# By type of block: whether with attention, and its sampling; None is what downsample_type or upsample_type says.
BLOCKS = {
    "down": {"DownBlock2D": (0, "conv"), "AttnDownBlock2D": (1, None), "ResnetDownsampleBlock2D": (0, "block")},
    "up": {"UpBlock2D": (0, "conv"), "AttnUpBlock2D": (1, None), "ResnetUpsampleBlock2D": (0, "block")},
}
SAMPLINGS = {"conv": "conv", "resnet": "block"}
PADDINGS = {0: "conv_after", 1: "conv"}
CLASS_EMBEDDINGS = {None: "table", "timestep": "sinusoids"}
NAMES = {
    "norm0": "norm1", "conv0": "conv1", "embed": "time_emb_proj", "norm1": "norm2", "conv1": "conv2",
    "skip": "conv_shortcut", "norm": "group_norm", "qkv": ("to_q", "to_k", "to_v"), "out": "to_out.0",
}  # fmt: skip
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # of attention
SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine", "sigmoid": "sigmoid"}
PREDICTS = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
_USUAL_SCHEDULERS = (None, "DDPMScheduler", "DDIMScheduler", "PNDMScheduler")  # whose rates are linear if not told


@dataclasses.dataclass(frozen=True)
class Options(ScheduleOptions):
    """What the folder may not tell; what it tells cannot be changed."""

    num_classes: int | None = setting(
        None, "Classes of a network that embeds their numbers as it does the time.", low=1, otherwise="the file's"
    )


def matches(source: Source) -> bool:
    """Whether a folder, or a file of one, is of this format."""
    return {"time_embedding.linear_1.weight", "conv_in.weight", "conv_out.weight"} <= plain_state(source).keys()


def convert(source: Source, options: Options) -> Imported:
    """The folder as a prior's description and its parameters.

    Raises:
      ValueError: if config.json is missing or describes another network, or the weights are not those it describes.

    References: github.com/huggingface/diffusers, src/diffusers/models/unets/unet_2d.py; Ho, Jain, Abbeel (2020),
      arXiv:2006.11239.
    """
    if MODEL not in source.config:
        raise ValueError(f"{MODEL} is missing beside the weights: give the folder that has both")
    state = {re.sub(r"(\.attentions\.\d+\.)(\w+)", _renamed, key): a for key, a in state_of(source).items()}
    channels, out_channels = image_channels(state, "conv_in.weight", "conv_out.weight")
    told = told_by(source.config, out_channels, options)
    params = parameters(state, EpsilonUNet(**told.network), channels, told.prefixes, NAMES)
    return imported(options, told.network, params, channels, told.constants, told.image_size, told.notes)


class Told(NamedTuple):
    """What the JSON files tell: the network's options, the names of its parts, constants, notes for the user."""

    network: dict[str, Any]
    prefixes: dict[str, str]
    constants: dict[str, Any]
    image_size: int
    notes: list[str]


def told_by(config: Mapping[str, dict], out_channels: int, options: Options) -> Told:
    """What config.json and scheduler_config.json tell of a network with so many output channels.

    Raises:
      ValueError: if they describe another network, or the options contradict them.
    """
    said = _read(config[MODEL])
    network, prefixes = _structure(said)
    network |= {"out_channels": out_channels, **_classes(said, options)}
    constants, notes = _schedule(config.get(SCHEDULER), options), []
    if constants is None:
        constants, notes = usual_schedule(options)
    size = said["sample_size"]
    size = min(size) if isinstance(size, list | tuple) else size
    _agreed("image_size", options.image_size, size, MODEL)
    if size is None and options.image_size is None:
        notes.append(
            f"{MODEL} does not tell the side of the images: taken to be {IMAGE_SIZE} (--options=image_size=...)"
        )
    return Told(network, prefixes, constants, size or IMAGE_SIZE, notes)


def _renamed(match: re.Match) -> str:
    return match[1] + _OLD_NAMES.get(match[2], match[2])


def _agreed(name: str, asked: Any, said: Any, where: str) -> None:
    if None not in (asked, said) and asked != said:
        raise ValueError(f"{name} {asked} contradicts {where}, which says {said}")


def _chosen(value: Any, key: str, known: Mapping[Any, Any], where: str = MODEL) -> Any:
    if not isinstance(value, str | int | None) or value not in known:
        raise ValueError(f"{where}: {key} is {value!r}, but must be one of {', '.join(map(repr, known))}")
    return known[value]


def _read(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with its defaults.

    Raises:
      ValueError: if a key is not known here, or a number is none.
    """
    _chosen(config.get("_class_name"), "_class_name", dict.fromkeys(_CLASSES))
    for key, value in config.items():
        if key not in DEFAULTS and key not in _UNUSED and not key.startswith("_") and value not in (None, False):
            raise ValueError(f"{MODEL}: {key} is {value!r}, but such networks are not known here")
    said = {**DEFAULTS, **{key: value for key, value in config.items() if key in DEFAULTS}}
    whole = {"layers_per_block": said["layers_per_block"], "norm_num_groups": said["norm_num_groups"]}
    whole |= {key: said[key] for key in ("attention_head_dim", "attn_norm_num_groups", "time_embedding_dim",
                                         "num_class_embeds") if said[key] is not None}  # fmt: skip
    whole |= {f"block_out_channels[{i}]": value for i, value in enumerate(said["block_out_channels"])}
    for key, value in whole.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{MODEL}: {key} is {value!r}, but must be a whole number of at least 1")
    return said


def _blocks(said: Mapping[str, Any], side: str) -> list[tuple[bool, str]]:
    """(whether with attention, its sampling) of each block of one side, in the file's order."""
    key, usual = f"{side}_block_types", f"{side}sample_type"
    sampling, levels = _chosen(said[usual], usual, SAMPLINGS), len(said["block_out_channels"])
    if len(said[key]) != levels:
        raise ValueError(f"{MODEL}: {key} has {len(said[key])} entries, but block_out_channels {levels}")
    found = (_chosen(str(name).removeprefix("UNetRes"), key, BLOCKS[side]) for name in said[key])
    return [(bool(attends), kind or sampling) for attends, kind in found]


def _structure(said: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The network's options, and what the file calls each part: its first block of the decoder is the lowest level."""
    _chosen(said["time_embedding_type"], "time_embedding_type", {"positional": None})
    scale_shift = _chosen(said["resnet_time_scale_shift"], "resnet_time_scale_shift",
                          {"default": False, "scale_shift": True})  # fmt: skip
    sides = {"down": _blocks(said, "down"), "up": _blocks(said, "up")[::-1]}
    attends = {side: tuple(i for i, (with_attention, _) in enumerate(found) if with_attention)
               for side, found in sides.items()}  # fmt: skip
    strided = _chosen(said["downsample_padding"], "downsample_padding", PADDINGS)
    widths, blocks, head = tuple(said["block_out_channels"]), said["layers_per_block"], said["attention_head_dim"]
    for level in {*attends["down"], *attends["up"], *([len(widths) - 1] if said["add_attention"] else [])}:
        if head is not None and head > widths[level]:
            raise ValueError(f"{MODEL}: attention_head_dim is {head}, but attention has {widths[level]} channels")
    prefixes = {
        "time0": "time_embedding.linear_1", "time1": "time_embedding.linear_2", "stem": "conv_in",
        "class0": "class_embedding.linear_1", "class1": "class_embedding.linear_2", "class": "class_embedding",
        "middle_block0": "mid_block.resnets.0", "middle_attention": "mid_block.attentions.0",
        "middle_block1": "mid_block.resnets.1", "out_norm": "conv_norm_out", "out": "conv_out",
    }  # fmt: skip
    for side, found in sides.items():
        for level, (_, kind) in enumerate(found):
            theirs = f"{side}_blocks.{level if side == 'down' else len(widths) - 1 - level}"
            prefixes[f"{side}{level}_resample"] = f"{theirs}.{side}samplers.0{'.conv' if kind == 'conv' else ''}"
            for i in range(blocks + (side == "up")):
                prefixes[f"{side}{level}_block{i}"] = f"{theirs}.resnets.{i}"
                prefixes[f"{side}{level}_attention{i}"] = f"{theirs}.attentions.{i}"
    return {
        "features": widths[0], "embedding": said["time_embedding_dim"], "cosine_first": bool(said["flip_sin_to_cos"]),
        "shift": float(said["freq_shift"]), "widths": widths, "blocks": blocks, "head_features": head,
        "attend_down": attends["down"], "attend_up": attends["up"],
        "middle": _chosen(said["mid_block_type"], "mid_block_type", {"UNetMidBlock2D": True, None: False}),
        "middle_attention": bool(said["add_attention"]), "middle_scale": float(said["mid_block_scale_factor"]),
        "middle_groups": said["attn_norm_num_groups"] or (0 if scale_shift else said["norm_num_groups"]),
        "scale_shift": scale_shift, "groups": said["norm_num_groups"], "epsilon": float(said["norm_eps"]),
        "activation": _chosen(str(said["act_fn"]).lower(), "act_fn", {"swish": "silu", **{n: n for n in ACTIVATIONS}}),
        "down": tuple(strided if kind == "conv" else kind for _, kind in sides["down"][:-1]),
        "up": tuple(kind for _, kind in sides["up"][1:]), "center": bool(said["center_input_sample"]),
    }, prefixes  # fmt: skip


def _classes(said: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """The part of the network's options that says how it is told a class."""
    kind, count = _chosen(said["class_embed_type"], "class_embed_type", CLASS_EMBEDDINGS), said["num_class_embeds"]
    if kind == "table" and count is None:
        if options.num_classes is not None:
            raise ValueError(f"num_classes {options.num_classes} contradicts {MODEL}: the network knows no classes")
        return {}
    _agreed("num_classes", options.num_classes, count, MODEL)
    if count is options.num_classes is None:
        raise ValueError(f"{MODEL} does not tell how many classes there are: give --options=num_classes=...")
    return {"classes": count or options.num_classes, "class_embedding": kind}


def _schedule(said: Mapping[str, Any] | None, options: Options) -> dict[str, Any] | None:
    """The constants of the parameterization, as scheduler_config.json tells them."""
    if said is None:
        return None
    if "beta_schedule" not in said and said.get("_class_name") not in _USUAL_SCHEDULERS:
        raise ValueError(
            f"{SCHEDULER}: the noise of a {said['_class_name']} has no beta_schedule, and is not known here"
        )
    name = _chosen(said.get("beta_schedule", "linear"), "beta_schedule", SCHEDULES, SCHEDULER)
    predicts = _chosen(said.get("prediction_type", "epsilon"), "prediction_type", PREDICTS, SCHEDULER)
    steps = said.get("num_train_timesteps", STEPS)
    first, last = said.get("beta_start", FIRST), said.get("beta_end", LAST)
    for option, value in (("schedule", name), ("diffusion_steps", steps), ("beta_start", first),
                          ("beta_end", last), ("predicts", predicts)):  # fmt: skip
        _agreed(option, getattr(options, option), value, SCHEDULER)
    constants = constants_of(name, steps, first, last, predicts)
    if said.get("trained_betas") is not None:
        constants = {"betas": list(map(float, said["trained_betas"])), "predicts": predicts}
    elif name == "sigmoid":
        rates = first + (last - first) / (1 + np.exp(-np.linspace(-6, 6, steps)))
        constants = {"betas": rates.tolist(), "predicts": predicts}
    if not said.get("rescale_betas_zero_snr"):
        return constants
    # The roots of alpha bar are moved so that the last is zero, and stretched so that the first is as before.
    root = np.sqrt(kept_of(constants))
    kept = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return {"betas": (1 - kept / np.append(1.0, kept[:-1])).tolist(), "predicts": predicts}
