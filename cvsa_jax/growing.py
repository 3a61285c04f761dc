"""Parameters of a larger network that computes what a smaller one does, to train further from there."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from cvsa_jax.networks import NetworkSpec
from cvsa_jax.types import InputError

SHAPE = ("channels", "encoder_blocks", "decoder_blocks", "patch", "attention")
# What must be alike beside the shape: the network's input and output, and what they mean.
ALIKE = ("parameterization", "image_channels", "model", "data_std", "spectrum", "constants", "classes")


def shape_of(spec: NetworkSpec) -> dict[str, Any]:
    """What `cvsa train` is told of a network, by the names of its flags; raises InputError if it trains no such."""
    if spec.model != "unet":
        raise InputError(f"it is a {spec.model}; only networks of `cvsa train` can be trained further")
    network = spec.build("float32")
    preconditioning = "scalar" if spec.spectrum is None else "spectral"
    return {name: getattr(network, name) for name in SHAPE} | {"preconditioning": preconditioning}


def grow(small: NetworkSpec, params: Any, large: NetworkSpec, key: jax.Array) -> Any:
    """Parameters of `large`, the same function as `small` with `params`, up to rounding.

    A residual block that is new ends in a convolution of zeros, and so does attention: both add nothing yet. A new,
    lower level is joined to the one above by zeros beside the identity. All of these have gradients, and learn.

    Args:
      small, params: a U-Net with its parameters. large: one with as many features in each level of `small`, at least
        as many blocks, and perhaps more levels below. key: of what is new.

    References: Chen, Goodfellow and Shlens, Net2Net (2016), for networks that grow without a change of function.

    Raises:
      InputError: if `large` cannot compute what `small` does.
    """
    old, new = shape_of(small), shape_of(large)
    if old["preconditioning"] != new["preconditioning"]:
        raise InputError(f"its preconditioning is {old['preconditioning']}, not {new['preconditioning']}")
    for name in ALIKE:
        if getattr(small, name) != getattr(large, name):
            raise InputError(f"its {name} is {getattr(small, name)!r}, not {getattr(large, name)!r}")
    ours, theirs = dict(_names(**old)), dict(_names(**new))
    channels, levels = tuple(new["channels"]), len(old["channels"])
    if old["patch"] != new["patch"] or tuple(old["channels"]) != channels[:levels]:
        raise InputError(
            f"its patch is {old['patch']} and its channels {_listed(old['channels'])}, which may only be continued by "
            f"more levels; got {new['patch']} and {_listed(channels)}"
        )
    if old["attention"] and (not new["attention"] or len(channels) > levels):
        raise InputError("it attends at its lowest level, which must stay the lowest, with --attention")
    if ours.keys() - theirs.keys():
        raise InputError("the new network has fewer blocks than it in some level")
    grown = dict(jax.jit(large.init)(key)["params"])
    for place, name in ours.items():
        grown[theirs[place]] = params["params"][name]
    for level in range(levels - 1, len(channels) - 1):  # whose own features come behind those from below
        features, mix = channels[level], theirs["mix", level]
        identity = jnp.concatenate([jnp.zeros((features, features)), jnp.eye(features)])[None, None]
        grown[mix] = grown[mix] | {"kernel": identity}
    return {"params": grown}


def _listed(numbers) -> str:
    return ",".join(map(str, numbers))


def _names(channels, encoder_blocks, decoder_blocks, attention: bool, **_) -> Iterator[tuple[tuple, str]]:
    """(place, name) of each module of a UNet, in the order in which Flax numbers those of a kind."""
    levels = len(channels)
    yield ("embedding",), "NoiseEmbedding_0"
    yield ("norm",), "GroupNorm_0"
    if attention:
        yield ("attention",), "SelfAttention_0"
    convolutions = [("stem",), *(("down", level) for level in range(1, levels))]
    for level in reversed(range(levels - 1)):
        convolutions += [("up", level), ("mix", level)]
    convolutions += [("head",), ("out",)]
    blocks = [("encoder", level, i) for level in range(levels) for i in range(encoder_blocks[level])]
    blocks += [("decoder", level, i) for level in reversed(range(levels)) for i in range(decoder_blocks[level])]
    for kind, places in (("Conv", convolutions), ("ResidualBlock", blocks)):
        yield from ((place, f"{kind}_{number}") for number, place in enumerate(places))
