"""Weights of the DDPM U-Net in PyTorch (of DDRM and SDEdit, and the DDIM code's own training states) as a prior."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from cvsa_jax.importers.epsilon import (
    IMAGE_SIZE,
    ScheduleOptions,
    State,
    features_of,
    image_channels,
    imported,
    parameters,
    shape_of,
    usual_schedule,
)
from cvsa_jax.importers.source import Imported, Source, plain_state
from cvsa_jax.models.epsilon_unet import EpsilonUNet

SUMMARY = "the DDPM U-Net, a state dictionary (.ckpt) of DDRM or SDEdit, or a training state of the DDIM code"
GROUPS, EPSILON = 32, 1e-6
ATTENTION_SIDE = 16  # of the level at which every published one attends
_NAMES = {
    "norm0": "norm1", "conv0": "conv1", "embed": "temb_proj", "norm1": "norm2", "conv1": "conv2",
    "skip": "nin_shortcut", "norm": "norm", "qkv": ("q", "k", "v"), "out": "proj_out",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options(ScheduleOptions):
    """What the file does not tell."""


def matches(source: Source) -> bool:
    """Whether a file is of this format."""
    return {"temb.dense.0.weight", "conv_in.weight", "conv_out.weight"} <= _state(source)[0].keys()


def convert(source: Source, options: Options) -> Imported:
    """The file as a prior's description and its parameters.

    Raises:
      ValueError: if it is no such network.

    References: Ho, Jain, Abbeel (2020), arXiv:2006.11239; github.com/bahjat-kawar/ddrm, models/diffusion.py.
    """
    state, notes = _state(source)
    channels, out_channels = image_channels(state, "conv_in.weight", "conv_out.weight")
    network, prefixes = _structure(state)
    network["out_channels"] = out_channels
    constants, told = usual_schedule(options)
    attended, size = network["attend_down"], IMAGE_SIZE
    if len(attended) == 1:
        size = ATTENTION_SIDE * 2 ** attended[0]
    if options.image_size is None:
        told.append(f"the file does not tell the side of its images: taken to be {size} (--options=image_size=...)")
    if "logvar" in state:
        told.append("logvar, the fixed variances of a sampler, is not used")
    params = parameters(state, EpsilonUNet(**network), channels, prefixes, _NAMES, ignored=("logvar",))
    return imported(options, network, params, channels, constants, size, notes + told)


def _state(source: Source) -> tuple[State, list[str]]:
    """(arrays by name, notes): of the DDIM code's list [model, optimizer, epoch, step, averages] the averages."""
    tree, notes = source.tree, []
    if isinstance(tree, list | tuple) and tree:
        parts = list(tree)
        averaged = len(parts) > 4 and isinstance(parts[4], Mapping)
        tree = parts[4 if averaged else 0]
        notes = ["of the training state the moving averages of the weights are taken" if averaged else
                 "the training state has no moving averages: the weights themselves are taken"]  # fmt: skip
    state = plain_state(source._replace(tree=tree))
    return {key.removeprefix("module."): array for key, array in state.items()}, notes


def _structure(state: State) -> tuple[dict[str, Any], dict[str, str]]:
    """The network's options as keys and shapes show them, and what the file calls each part."""

    def numbers(pattern: str) -> tuple[int, ...]:
        matched = (re.match(pattern, key) for key in state)
        return tuple(sorted({int(match[1]) for match in matched if match}))

    levels, blocks = len(numbers(r"down\.(\d+)\.")), len(numbers(r"down\.0\.block\.(\d+)\."))
    prefixes = {
        "time0": "temb.dense.0", "time1": "temb.dense.1", "stem": "conv_in", "middle_block0": "mid.block_1",
        "middle_attention": "mid.attn_1", "middle_block1": "mid.block_2", "out_norm": "norm_out", "out": "conv_out",
    }  # fmt: skip
    for side, count in (("down", blocks), ("up", blocks + 1)):
        for level in range(levels):
            prefixes[f"{side}{level}_resample"] = f"{side}.{level}.{side}sample.conv"
            for i in range(count):
                prefixes[f"{side}{level}_block{i}"] = f"{side}.{level}.block.{i}"
                prefixes[f"{side}{level}_attention{i}"] = f"{side}.{level}.attn.{i}"
    return {
        "features": features_of(state, "temb.dense.0.weight"), "cosine_first": False, "shift": 1.0,
        "stem": shape_of(state, "conv_in.weight", 4)[0], "blocks": blocks,
        "widths": tuple(shape_of(state, f"down.{i}.block.0.conv1.weight", 4)[0] for i in range(levels)),
        "attend_down": numbers(r"down\.(\d+)\.attn\."), "attend_up": numbers(r"up\.(\d+)\.attn\."),
        "down": ("conv_after" if numbers(r"down\.(\d+)\.downsample\.") else "pool",) * (levels - 1),
        "up": ("conv" if numbers(r"up\.(\d+)\.upsample\.") else "nearest",) * (levels - 1),
        "groups": GROUPS, "middle_groups": GROUPS, "epsilon": EPSILON,
    }, prefixes  # fmt: skip
