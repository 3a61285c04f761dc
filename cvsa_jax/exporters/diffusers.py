"""A noise predictor as a folder of the diffusers library: UNet2DModel and DDPMScheduler.

The inverse of `importers.diffusers`, whose tables it reads backwards. What the folder tells is read again by that
importer before anything is written, so a network that the library does not have is refused.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from flax.traverse_util import flatten_dict

from cvsa_jax.descriptions import StoredPrior
from cvsa_jax.exporters.base import Export, Format
from cvsa_jax.importers.arrays import LEAVES, save_safetensors
from cvsa_jax.importers.diffusers import (
    BLOCKS,
    CLASS_EMBEDDINGS,
    MODEL,
    NAMES,
    PADDINGS,
    PREDICTS,
    SAMPLINGS,
    SCHEDULER,
    SCHEDULES,
    Options,
    told_by,
)
from cvsa_jax.importers.epsilon import imported
from cvsa_jax.models.epsilon_unet import EpsilonUNet
from cvsa_jax.networks import NetworkSpec
from cvsa_jax.parameterizations.epsilon import DEFAULTS

INDEX, WEIGHTS = "model_index.json", "diffusion_pytorch_model.safetensors"
PARAMETERIZATION, NETWORK = "epsilon", "epsilon_unet"
_OUTSIDE = ("parent", "name", "dtype", "remat")  # fields of a module that do not say what it computes
# What no file of the library has a place for.
_LEFT_OUT = {"data_std": "the images' deviation", "spectrum": "the images' spectrum",
             "highest_noise": "the largest noise of the training", "cld": "the diffusion"}  # fmt: skip


def prepare(stored: StoredPrior) -> Export:
    """A noise predictor as what its folder will hold.

    Raises:
      ValueError: if it is none, or its network is not one of UNet2DModel's; names what differs.
    """
    spec = stored.description.spec
    if (spec.parameterization, spec.model) != (PARAMETERIZATION, NETWORK):
        raise ValueError(
            f"the format diffusers has a place for noise predictors (parameterization {PARAMETERIZATION}, model "
            f"{NETWORK}), such as those imported from ddpm, diffusers and adm; this prior is {spec.parameterization}, "
            f"{spec.model}: --format=safetensors takes it"
        )
    network = cast(EpsilonUNet, spec.build("float32"))
    config = {MODEL: model_config(spec, network), SCHEDULER: scheduler_config(spec, network)}
    told = told_by(config, network.out_channels, Options())
    there = imported(Options(), told.network, {}, spec.image_channels, told.constants, told.image_size, []).spec
    ours, theirs = _in_effect(spec), _in_effect(there)
    differing = [f"{k} is {ours.get(k)}, there {theirs.get(k)}" for k in {**ours, **theirs}
                 if ours.get(k) != theirs.get(k)]  # fmt: skip
    if differing:
        raise ValueError(f"the library's UNet2DModel cannot be this network: {'; '.join(differing)}")
    if not spec.classes:  # for which the library has no pipeline
        parts = {"scheduler": ["diffusers", config[SCHEDULER]["_class_name"]],
                 "unet": ["diffusers", config[MODEL]["_class_name"]]}  # fmt: skip
        config[INDEX] = {"_class_name": "DDPMPipeline", **parts}
    notes = [what for name, what in _LEFT_OUT.items()
             if getattr(spec, name) not in (getattr(NetworkSpec, name, None), getattr(there, name))]  # fmt: skip
    notes += ["its measured errors"] if stored.description.calibration is not None else []
    notes = [f"the library has no place for {', '.join(notes)}: not written"] if notes else []
    return Export(functools.partial(_write, config, state_of(stored.params, told.prefixes)), notes)


def _write(config: Mapping[str, dict], state: Mapping[str, np.ndarray], folder: pathlib.Path) -> None:
    folder.mkdir()
    for name, values in config.items():
        (folder / name).write_text(json.dumps(values, indent=2) + "\n")
    save_safetensors(folder / WEIGHTS, state, {"format": "pt"})  # without it the library reads no file


def model_config(spec: NetworkSpec, network: EpsilonUNet) -> dict[str, Any]:
    """config.json of the UNet2DModel that is nearest to a network."""
    levels, sides = len(network.widths), {"down": network.down, "up": network.up}
    config: dict[str, Any] = {}
    for side, attended, first in (("down", network.attend_down, 0), ("up", network.attend_up, 1)):
        # Of one level there is no sampling: the last of the encoder, the first of the decoder.
        kinds = {level + first: "conv" if kind in PADDINGS.values() else kind for level, kind in enumerate(sides[side])}
        found = [kinds[level] for level in kinds if level in attended and kinds[level] in SAMPLINGS.values()]
        config[f"{side}sample_type"] = _backwards(SAMPLINGS, found[0] if found else "conv")
        types = [_block(side, level in attended, kinds.get(level)) for level in range(levels)]
        config[f"{side}_block_types"] = types if side == "down" else types[::-1]
    usual_groups = 0 if network.scale_shift else network.groups
    return {
        "_class_name": "UNet2DModel", "sample_size": spec.image_size, "in_channels": spec.image_channels,
        "out_channels": network.out_channels, "center_input_sample": network.center,
        "time_embedding_type": "positional", "time_embedding_dim": network.embedding, "freq_shift": network.shift,
        "flip_sin_to_cos": network.cosine_first, "block_out_channels": list(network.widths), **config,
        "mid_block_type": "UNetMidBlock2D" if network.middle else None, "layers_per_block": network.blocks,
        "mid_block_scale_factor": network.middle_scale, "act_fn": network.activation,
        "downsample_padding": next((_backwards(PADDINGS, k) for k in network.down if k in PADDINGS.values()), 1),
        "attention_head_dim": _head(network), "norm_num_groups": network.groups, "norm_eps": network.epsilon,
        "attn_norm_num_groups": None if network.middle_groups == usual_groups else network.middle_groups or None,
        "resnet_time_scale_shift": "scale_shift" if network.scale_shift else "default",
        "add_attention": network.middle_attention, "num_class_embeds": network.classes or None,
        "class_embed_type": _backwards(CLASS_EMBEDDINGS, network.class_embedding) if network.classes else None,
    }  # fmt: skip


def scheduler_config(spec: NetworkSpec, network: EpsilonUNet) -> dict[str, Any]:
    """scheduler_config.json of the noise that a network was trained with."""
    told = {**DEFAULTS, **spec.constants}
    config: dict[str, Any] = {"_class_name": "DDPMScheduler", "prediction_type": _backwards(PREDICTS, told["predicts"])}
    if "betas" in told:
        config |= {"num_train_timesteps": len(told["betas"]), "trained_betas": list(told["betas"])}
    else:
        config |= {"num_train_timesteps": told["num_steps"], "beta_schedule": _backwards(SCHEDULES, told["schedule"])}
        config |= {} if told["schedule"] == "cosine" else {"beta_start": told["first"], "beta_end": told["last"]}
    if network.out_channels > spec.image_channels:
        config["variance_type"] = "learned_range"
    return config


def state_of(params: Mapping[str, Any], prefixes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Our parameters by the library's names, in PyTorch's order of axes."""
    state = {}
    for (part, *layers, leaf), array in cast(dict[tuple, Any], flatten_dict(params["params"])).items():
        array = np.asarray(array)
        if leaf == "kernel":
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        names = [NAMES[layer] for layer in layers]
        parts = names.pop() if layers == ["qkv"] else None
        for name, piece in zip(parts, np.split(array, 3), strict=True) if parts else [(None, array)]:
            state[".".join([prefixes[part], *names, *([name] if name else []), LEAVES[leaf]])] = piece
    return state


def _backwards(table: Mapping[Any, Any], value: Any) -> Any:
    """The first key of a value; the value itself where there is none, which is told later."""
    return next((key for key, known in table.items() if known == value), value)


def _block(side: str, attends: bool, kind: str | None) -> str:
    """The type of a level's block; kind None where it ends in no sampling."""
    fitting = [name for name, (attention, _) in BLOCKS[side].items() if bool(attention) == attends]
    return next((name for name in fitting if BLOCKS[side][name][1] == kind), fitting[0])


def _heads(network: EpsilonUNet) -> dict[str, int]:
    """Features of each head, by the level where attention is."""
    widths, wide = network.widths, network.head_features
    found = {f"down{i}": wide or widths[i] // network.heads for i in network.attend_down}
    if network.middle and network.middle_attention:
        found["middle"] = wide or widths[-1] // network.heads
    return found | {f"up{i}": wide or widths[i] // network.heads_up for i in network.attend_up}


def _head(network: EpsilonUNet) -> int | None:
    """attention_head_dim: None is one head of all features."""
    each = set(_heads(network).values())
    if network.head_features is not None or network.heads == network.heads_up == 1:
        return network.head_features
    return each.pop() if len(each) == 1 else None


def _in_effect(spec: NetworkSpec) -> dict[str, Any]:
    """What a noise predictor is, each thing said in one way."""
    network = cast(EpsilonUNet, spec.build("float32"))
    found = {f.name: getattr(network, f.name) for f in dataclasses.fields(network) if f.name not in _OUTSIDE}
    found |= {"embedding": network.embedding or 4 * network.features, "stem": network.stem or network.widths[0]}
    if not network.middle:
        found |= {"middle_attention": False, "middle_scale": 1.0}
    if not found["middle_attention"]:
        found["middle_groups"] = 0
    if not network.classes:
        found["class_embedding"] = "table"
    for name in ("heads", "heads_up", "head_features"):
        del found[name]
    constants = {**DEFAULTS, **spec.constants}
    if "betas" in constants:
        constants = {"betas": list(constants["betas"]), "predicts": constants["predicts"]}
    elif constants.get("schedule") == "cosine":
        constants = {name: constants[name] for name in constants if name not in ("first", "last")}
    same = {name: getattr(spec, name) for name in ("image_channels", "image_size", "classes", "needs_class")}
    return {**found, "features of each head": _heads(network), **constants, **same}


DIFFUSERS = Format("", prepare)
