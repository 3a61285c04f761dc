"""The structure of public models, for timing them at their size without their weights."""

from typing import Any

from cvsa_jax.networks import NetworkSpec

_DDPM: dict[str, Any] = {"cosine_first": False, "shift": 1.0, "epsilon": 1e-6, "blocks": 2}
_LINEAR = {"schedule": "linear"}


def _adm(features: int, blocks: int, attend: tuple[int, ...]) -> NetworkSpec:
    widths = tuple(features * m for m in (1, 1, 2, 2, 4, 4))
    options = {
        "features": features, "widths": widths, "blocks": blocks, "attend_down": attend, "attend_up": attend,
        "down": ("block",) * 5, "up": ("block",) * 5, "scale_shift": True, "head_features": 64, "out_channels": 6,
    }  # fmt: skip
    return NetworkSpec("epsilon", 3, 256, model="epsilon_unet", options=options, constants=_LINEAR)


def _ddpm(size: int, multiples: tuple[int, ...], attend: int) -> NetworkSpec:
    levels = len(multiples) - 1
    options = _DDPM | {
        "features": 128, "widths": tuple(128 * m for m in multiples), "attend_down": (attend,), "attend_up": (attend,),
        "down": ("conv_after",) * levels, "up": ("conv",) * levels,
    }  # fmt: skip
    return NetworkSpec("epsilon", 3, size, model="epsilon_unet", options=options, constants=_LINEAR)


def _denoiser(model: str, highest: float, **options) -> NetworkSpec:
    noise = {"lowest_noise": 0.0, "highest_noise": 2 * highest / 255}
    return NetworkSpec("noise_map", 3, 256, model=model, options=options, constants=noise,
                       highest_noise=noise["highest_noise"])  # fmt: skip


STRUCTURES: dict[str, NetworkSpec] = {
    "ffhq_10m": _adm(128, 1, (4,)),
    "imagenet256": _adm(256, 2, (3, 4, 5)),
    "google_celebahq": _ddpm(256, (1, 1, 2, 2, 4, 4), 4),
    "google_cifar10": _ddpm(32, (1, 2, 2, 2), 1),
    "edm_ffhq_vp": NetworkSpec("edm", 3, 64, model="song_unet", options={}, constants={}),
    "edm_imagenet": NetworkSpec("edm", 3, 64, model="dhariwal_unet", options={"classes": 1000}, classes=1000),
    "ffdnet_color": _denoiser("ffdnet", 75),
    "drunet_color": _denoiser("drunet", 50),
}
