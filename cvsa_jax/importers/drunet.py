"""DRUNet in PyTorch: the files of DPIR, KAIR and deepinv (drunet_color.pth, drunet_gray.pth).

Their map of the noise level is the last channel of the input. A 2x2 convolution of stride 2, and its transpose, become
1x1 convolutions beside `space_to_depth` and `depth_to_space`.
"""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from cvsa_jax.importers.arrays import convolution
from cvsa_jax.importers.denoisers import (
    CHANNELS,
    denoiser_spec,
    filled,
    trained_up_to,
    vector,
    weights_are,
    weights_of,
)  # fmt: skip
from cvsa_jax.importers.source import Imported, Source
from cvsa_jax.settings import Settings, setting

SUMMARY = "DRUNet (DPIR, KAIR, deepinv): a denoising U-Net that is told the noise level"
SIZE = 128  # of the patches that the published ones were trained on


@dataclasses.dataclass(frozen=True)
class Options(Settings):
    """What the file does not say."""

    largest_noise: float = setting(
        50.0, "The highest noise level that it was trained for.", "of 255", above=0.0, high=255.0
    )


def matches(source: Source) -> bool:
    """Whether it has the parts of a DRUNet."""
    return weights_are(source, _is_one)


def _is_one(state: Mapping[str, np.ndarray]) -> bool:
    return {"m_head.weight", "m_tail.weight"} <= state.keys() and all(
        re.fullmatch(r"m_(head|body|tail|down\d|up\d)\..+", key) for key in state
    )


def convert(source: Source, options: Options) -> Imported:
    """The network and its parameters.

    Raises:
      ValueError: if it is another network, or a parameter is missing, not known or of another shape.
    """
    state, notes = weights_of(source)
    if not _is_one(state):
        raise ValueError(
            f"{source.path} is no DRUNet: not all of its parts are m_head, m_down, m_body, m_up and m_tail"
        )
    image = len(state["m_tail.weight"])
    if image not in CHANNELS or state["m_head.weight"].shape[1] != image + 1:
        raise ValueError(
            f"a DRUNet sees an image of 1 or 3 channels and one map of the noise level, but {source.path} sees "
            f"{state['m_head.weight'].shape[1]} channels and gives {image}"
        )
    levels = 1 + len({found[1] for key in state if (found := re.match(r"m_down(\d)\.", key))})
    blocks = len({key for key in state if re.fullmatch(r"m_body\.(\d+\.)?res\.0\.weight", key)})
    bias = "m_head.bias" in state
    entries = _entries(levels, blocks, bias)
    channels = [len(state["m_head.weight"])]
    for number in range(1, levels):
        down = state.get(f"m_down{number}.{blocks}.weight")
        if down is None or down.ndim != 4 or down.shape[2:] != (2, 2):
            raise ValueError(
                f"m_down{number}.{blocks}.weight must be a 2x2 convolution of stride 2, got "
                f"{'nothing' if down is None else down.shape}: other ways to change the size are not known"
            )
        channels.append(len(down))
    network = {"channels": tuple(channels), "blocks": blocks, "bias": bias}
    spec = denoiser_spec("drunet", image, network, (0.0, options.largest_noise), SIZE)
    notes.append(trained_up_to(options.largest_noise))
    return Imported(spec, filled(spec, state, entries), notes)


def _entries(levels: int, blocks: int, bias: bool) -> list:
    """(their key, our path, how its array changes) of every parameter."""
    found = []

    def add(theirs, ours, weight, shift=vector):
        found.append((f"{theirs}.weight", (*ours, "kernel"), weight))
        if bias:
            found.append((f"{theirs}.bias", (*ours, "bias"), shift))

    def add_blocks(theirs, ours, first=0):
        for number in range(blocks):
            # A part that is one block has no number in theirs.
            place = theirs if blocks == 1 and theirs == "m_body" else f"{theirs}.{first + number}"
            for half in (0, 1):
                add(f"{place}.res.{2 * half}", (f"{ours}_block{number}", f"Conv_{half}"), convolution)

    add("m_head", ("head",), convolution)
    for number in range(1, levels):
        add_blocks(f"m_down{number}", f"down{number}")
        add(f"m_down{number}.{blocks}", (f"down{number}",), _down)
        add(f"m_up{number}.0", (f"up{number}",), _up, lambda a: np.tile(vector(a), 4))
        add_blocks(f"m_up{number}", f"up{number}", 1)
    add_blocks("m_body", "body")
    add("m_tail", ("tail",), convolution)
    return found


def _down(weight: np.ndarray) -> np.ndarray:
    """(O, I, 2, 2) of stride 2 -> (1, 1, 4 I, O) behind `space_to_depth`."""
    return convolution(weight).reshape(1, 1, -1, len(weight))


def _up(weight: np.ndarray) -> np.ndarray:
    """(I, O, 2, 2) transposed, of stride 2 -> (1, 1, I, 4 O) before `depth_to_space`."""
    return np.ascontiguousarray(np.asarray(weight, np.float32).transpose(0, 2, 3, 1)).reshape(1, 1, len(weight), -1)
