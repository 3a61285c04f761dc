"""DnCNN and FDnCNN in PyTorch: the files of KAIR (dncnn_25.pth, fdncnn_color.pth), of DnCNN-PyTorch and of deepinv.

A DnCNN is not told the noise level. One that was trained at one level knows that level alone; a blind one was trained
at all levels of a range, and finds the level in the image. Neither is written in the file: the names of the published
files say it, or `sigma` or `largest_noise`. An FDnCNN is told the level and predicts the image.
"""

import dataclasses

from cvsa_jax.importers.denoisers import (
    CHANNELS,
    DEEPINV,
    DNCNN,
    KAIR,
    LAYOUTS,
    NORM_EPSILON,
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
from cvsa_jax.settings import Settings, setting

SUMMARY = "DnCNN and FDnCNN (KAIR, DnCNN-PyTorch, deepinv): a denoiser of one noise level, blind, or told the level"
# The noise levels that the published files were trained for, lowest and highest, in 8-bit steps.
PUBLISHED: dict[str, tuple[float, float]] = {
    "dncnn_15": (15.0, 15.0),
    "dncnn_25": (25.0, 25.0),
    "dncnn_50": (50.0, 50.0),
    "dncnn_gray_blind": (0.0, 55.0),
    "dncnn_color_blind": (0.0, 55.0),
    "dncnn_sigma2_gray": (2.0, 2.0),
    "dncnn_sigma2_color": (2.0, 2.0),
    "dncnn_sigma2_lipschitz_gray": (2.0, 2.0),
    "dncnn_sigma2_lipschitz_color": (2.0, 2.0),
}
TOLD = 75.0  # the highest level of the published FDnCNN


@dataclasses.dataclass(frozen=True)
class Options(Settings):
    """What the file does not say."""

    sigma: float | None = setting(
        None, "The one noise level that it was trained for.", "of 255", otherwise="by the name of a published file",
        above=0.0, high=255.0,
    )  # fmt: skip
    largest_noise: float | None = setting(
        None, "The highest noise level, of one that is blind or told the level.", "of 255",
        otherwise=f"{TOLD:g} of one that is told, else by the name of a published file", above=0.0, high=255.0,
    )  # fmt: skip
    norm_epsilon: float | None = NORM_EPSILON


def matches(source: Source) -> bool:
    """Whether it is a stack of convolutions from an image, with or without a map, to an image."""
    return weights_are(source, lambda state: _is_one(stack_of(state)))


def _is_one(stack: Stack | None) -> bool:
    if stack is None or stack.layout not in (KAIR, DNCNN, DEEPINV):
        return False
    inputs, outputs = stack.channels
    return outputs in CHANNELS and inputs - outputs in (0, 1)


def convert(source: Source, options: Options) -> Imported:
    """The network and its parameters.

    Raises:
      ValueError: if it is another network, its layers do not fit each other, or its noise levels are not known.
    """
    state, notes = weights_of(source)
    stack = stack_of(state)
    if stack is None or not _is_one(stack):
        raise ValueError(f"{source.path} is no DnCNN: it is not a stack of convolutions from an image to an image")
    inputs, outputs = stack.channels
    told = inputs > outputs
    levels, note = _levels(source.path.stem, told, options)
    found = convolutions(stack, options.norm_epsilon)
    if not told and not LAYOUTS[stack.layout].subtracts:  # x + F(x) = x - (-F)(x)
        last = found[-1]
        found[-1] = last._replace(weight=-last.weight, bias=None if last.bias is None else -last.bias)
    network = {
        **stack_options(found),
        "residual": not told,
        "noise_map": told,
    }
    spec = denoiser_spec("dncnn", outputs, network, levels)
    return Imported(spec, stack_params(spec, found), [*notes, note])


def _levels(name: str, told: bool, options: Options) -> tuple[tuple[float, float], str]:
    """The lowest and the highest noise level, and where they come from."""
    sigma, largest = options.sigma, options.largest_noise
    if sigma is not None and (told or largest is not None):
        reason = "one that is told the level" if told else "one of the levels up to largest_noise"
        raise ValueError(f"sigma={sigma:g} is of a network of one level, and this is {reason}")
    if sigma is not None:
        return (sigma, sigma), f"it knows the noise level {sigma:g}/255 alone"
    if largest is not None:
        return (0.0, largest), f"it knows noise up to {largest:g}/255"
    if told:
        return (0.0, TOLD), trained_up_to(TOLD)
    if name in PUBLISHED:
        low, high = PUBLISHED[name]
        known = f"the noise level {high:g}/255 alone" if low == high else f"noise up to {high:g}/255"
        return (low, high), f"by its name {name} it knows {known}"
    raise ValueError(
        f"the file does not say which noise {name} was trained for: give sigma=25 if it was one level, of 255, "
        "or largest_noise=55 if it is blind"
    )
