"""Weights of OpenAI's ADM network (guided diffusion; DPS, ILVR and P2 weighting use the same) as a prior.

The file is a state dictionary. Its keys and shapes show the structure of the network, but neither how attention is
split into heads nor the noise schedule: options say these, or that the structure is that of a published file.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from cvsa_jax.importers.epsilon import (
    IMAGE_SIZE,
    STEPS,
    ScheduleOptions,
    State,
    features_of,
    image_channels,
    imported,
    parameters,
    shape_of,
    usual_schedule,
)
from cvsa_jax.importers.source import Imported, Source, plain_state, state_of
from cvsa_jax.models.epsilon_unet import EpsilonUNet
from cvsa_jax.settings import setting

SUMMARY = "ADM, a state dictionary (.pt) of OpenAI's guided diffusion, DPS, ILVR or P2 weighting"
GROUPS, EPSILON = 32, 1e-5
_NAMES = {
    "norm0": "in_layers.0", "conv0": "in_layers.2", "embed": "emb_layers.1", "norm1": "out_layers.0",
    "conv1": "out_layers.3", "skip": "skip_connection", "norm": "norm", "qkv": "qkv", "out": "proj_out",
}  # fmt: skip
_DOWN = {"op": "conv", "in_layers": "block"}  # by the layers of a sampling; without layers it has no parameters
_UP = {"conv": "conv", "in_layers": "block"}
_TAIL = {"op": ".op", "conv": ".conv"}


@dataclasses.dataclass(frozen=True)
class Options(ScheduleOptions):
    """What the file does not tell; most names are those of the official flags."""

    num_heads: int | None = setting(
        None, "Heads of each attention; of no effect beside num_head_channels. -1 is none given.", low=-1,
        otherwise="that of the published file whose structure it is",
    )  # fmt: skip
    num_head_channels: int | None = setting(
        None, "Channels of each head; -1 is none given.", low=-1, otherwise="as num_heads"
    )
    num_heads_upsample: int | None = setting(
        None, "Heads of each attention in the decoder; -1 is none given.", low=-1, otherwise="num_heads"
    )
    use_new_attention_order: bool | None = setting(
        None, "Whether q, k, v come before the heads in the layer that makes them.", otherwise="as num_heads, or false"
    )
    rescale_timesteps: bool | None = setting(
        None, f"Whether the network is told t {STEPS} / diffusion_steps in place of t.", otherwise="false"
    )


class Known(NamedTuple):
    """A published network: which, and what its file does not tell."""

    name: str
    image_size: int
    num_head_channels: int | None = 64
    num_heads: int | None = None
    use_new_attention_order: bool = False
    schedule: str = "linear"


# By channels, their multiples per level, blocks per level, and the levels with attention.
KNOWN = {
    (128, (1, 1, 2, 2, 4, 4), 1, (4,)): Known("the 256 pixel networks of DPS, ILVR and P2 weighting", 256),
    (256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5)): Known("guided diffusion's 256 pixel networks", 256),
    (256, (0.5, 1, 1, 2, 2, 4, 4), 2, (4, 5, 6)): Known("guided diffusion's 512 pixel network", 512),
    (256, (1, 1, 2, 3, 4), 2, (2, 3, 4)): Known("guided diffusion's 128 pixel network", 128, None, 4),
    (192, (1, 2, 3, 4), 3, (1, 2, 3)): Known("guided diffusion's 64 pixel network", 64, 64, None, True, "cosine"),
}


def matches(source: Source) -> bool:
    """Whether a file is of this format."""
    return {"time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight"} <= plain_state(source).keys()


def convert(source: Source, options: Options) -> Imported:
    """The file as a prior's description and its parameters.

    Raises:
      ValueError: if it is no such network, an option is missing, or one contradicts it.

    References: Dhariwal, Nichol (2021), arXiv:2105.05233; github.com/openai/guided-diffusion, guided_diffusion/unet.py.
    """
    state = state_of(source)
    channels, out_channels = image_channels(state, "input_blocks.0.0.weight", "out.2.weight")
    network, prefixes = _structure(state)
    known = _known(network)
    network |= {"out_channels": out_channels, **_heads(options, known, network)}
    # The official linear rates of fewer steps are larger by as much.
    rate = STEPS / (options.diffusion_steps or STEPS)
    constants, notes = usual_schedule(options, known.schedule if known else "linear", rate)
    network["time_scale"] = rate if options.rescale_timesteps else 1.0
    new, several = (
        options.use_new_attention_order,
        network["head_features"] or network["heads"] * network["heads_up"] > 1,
    )
    if known is not None:
        notes = [f"the structure is that of {known.name}: what no option says is taken to be as there"]
    elif new is None and several:
        notes.append("the file does not tell how q, k, v are ordered: taken to be by heads "
                     "(--options=use_new_attention_order=...)")  # fmt: skip
    if known is None and options.image_size is None:
        notes.append(
            f"the file does not tell the side of its images: taken to be {IMAGE_SIZE} (--options=image_size=...)"
        )
    if new is None:
        new = known is not None and known.use_new_attention_order

    def ordered(part, rows):
        if new:
            return rows
        heads = network["heads_up" if part.startswith("up") else "heads"]
        heads = len(rows) // 3 // network["head_features"] if network["head_features"] else heads
        return rows.reshape(heads, 3, -1, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)

    params = parameters(state, EpsilonUNet(**network), channels, prefixes, _NAMES, ordered)
    return imported(options, network, params, channels, constants, known.image_size if known else IMAGE_SIZE, notes)


def _entries(state: State, stack: str) -> dict[int, dict[str, set[str]]]:
    """What the entries of a stack have: {number: {index: names of layers}}."""
    found: dict[int, dict[str, set[str]]] = {}
    for key in state:
        match = re.match(rf"{stack}\.(\d+)\.(\d+)\.(\w+)\.", key)
        if match:
            found.setdefault(int(match[1]), {}).setdefault(match[2], set()).add(match[3])
    return found


def _sampling(layers: Mapping[str, set[str]], known: Mapping[str, str], plain: str) -> tuple[str, str]:
    """(kind, what its part is called below the entry) of the sampling among an entry's layers; '' as there is none."""
    for index, names in layers.items():
        for name in known:
            if name in names:
                return known[name], f"{index}{_TAIL.get(name, '')}"
    return plain, ""


def _structure(state: State) -> tuple[dict[str, Any], dict[str, str]]:
    """The network's options as keys and shapes show them, and what the file calls each part.

    Raises:
      ValueError: if the entries are not those of whole levels.
    """
    inputs, outputs = _entries(state, "input_blocks"), _entries(state, "output_blocks")
    # Of an entry of the decoder, 0 is a block; the sampling at the end of a level is what is no attention after it.
    after = {k: {i: names for i, names in layers.items() if i != "0"} for k, layers in outputs.items()}
    ups = [k for k in after if _sampling(after[k], _UP, "")[0]]
    pools = [k for k in range(1, len(outputs)) if k not in inputs]
    levels = 1 + (len(ups) or len(pools))
    blocks = len(outputs) // levels - 1
    if len(outputs) % levels or blocks < 1:
        raise ValueError(f"{len(outputs)} output_blocks of {levels} levels are not those of an ADM network")
    prefixes = {
        "time0": "time_embed.0", "time1": "time_embed.2", "class": "label_emb", "stem": "input_blocks.0.0",
        "middle_block0": "middle_block.0", "middle_attention": "middle_block.1", "middle_block1": "middle_block.2",
        "out_norm": "out.0", "out": "out.2",
    }  # fmt: skip
    found: dict[str, list] = {name: [] for name in ("widths", "attend_down", "attend_up", "down", "up")}
    for level in range(levels):
        down, up = 1 + level * (blocks + 1), (levels - 1 - level) * (blocks + 1)  # its first entries
        for side, stack, first, count in (("down", "input", down, blocks), ("up", "output", up, blocks + 1)):
            for i in range(count):
                prefixes[f"{side}{level}_block{i}"] = f"{stack}_blocks.{first + i}.0"
                prefixes[f"{side}{level}_attention{i}"] = f"{stack}_blocks.{first + i}.1"
        found["widths"].append(shape_of(state, f"input_blocks.{down}.0.out_layers.3.weight", 4)[0])
        found["attend_down"] += [level] if "1" in inputs[down] else []
        found["attend_up"] += [level] if "qkv" in after.get(up, {}).get("1", ()) else []
        if level < levels - 1:
            kind, name = _sampling(inputs.get(down + blocks, {}), _DOWN, "pool")
            found["down"].append(kind)
            prefixes[f"down{level}_resample"] = f"input_blocks.{down + blocks}.{name}"
        if level:
            kind, name = _sampling(after.get(up + blocks, {}), _UP, "nearest")
            found["up"].append(kind)
            prefixes[f"up{level}_resample"] = f"output_blocks.{up + blocks}.{name}"
    return {
        "features": features_of(state, "time_embed.0.weight"), "stem": shape_of(state, "input_blocks.0.0.weight", 4)[0],
        "blocks": blocks, **{name: tuple(values) for name, values in found.items()},
        "scale_shift": shape_of(state, "input_blocks.1.0.emb_layers.1.weight", 2)[0] == 2 * found["widths"][0],
        "classes": shape_of(state, "label_emb.weight", 2)[0] if "label_emb.weight" in state else 0,
        "groups": GROUPS, "middle_groups": GROUPS, "epsilon": EPSILON,
    }, prefixes  # fmt: skip


def _known(network: Mapping[str, Any]) -> Known | None:
    """The published network that has this structure."""
    multiples = tuple(width / network["features"] for width in network["widths"])
    usual = network["scale_shift"] and {*network["down"], *network["up"]} == {"block"}
    return KNOWN.get((network["features"], multiples, network["blocks"], network["attend_down"])) if usual else None


def _heads(options: Options, known: Known | None, network: Mapping[str, Any]) -> dict[str, Any]:
    """How attention is split: as options say, else as in the known file.

    Raises:
      ValueError: if neither says it, or it does not fit the channels.
    """
    asked = {name: getattr(options, name) for name in ("num_head_channels", "num_heads", "num_heads_upsample")}
    asked = {name: None if value == -1 else value for name, value in asked.items()}
    if asked["num_head_channels"] is asked["num_heads"] is None:
        if known is None:
            raise ValueError("the file does not tell how attention is split into heads: "
                             "give --options=num_head_channels=... or num_heads=...")  # fmt: skip
        asked |= {"num_head_channels": known.num_head_channels, "num_heads": known.num_heads}
    if asked["num_head_channels"] is not None:
        asked = {"num_head_channels": asked["num_head_channels"]}
    attended = {*network["attend_down"], *network["attend_up"], len(network["widths"]) - 1}
    for name, value in asked.items():
        for width in sorted({network["widths"][level] for level in attended}):
            if value is not None and (value < 1 or width % value):
                raise ValueError(f"{name} is {value}, which does not divide the {width} channels of an attention "
                                 "in the file")  # fmt: skip
    heads = asked.get("num_heads") or 1
    return {"head_features": asked.get("num_head_channels"), "heads": heads,
            "heads_up": asked.get("num_heads_upsample") or heads}  # fmt: skip
