"""Public models, with what their files do not say.

Configurations are those of the repositories that publish them; docs/models.md says where each lies.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Known(NamedTuple):
    """A public model.

    format: in FORMATS. options: what its file does not say. parameters: of its network, None where that is not known to
    the last one. size: of its images. file: its published name, or that of its folder. home: where it is published.
    """

    format: str
    options: Mapping[str, Any]
    parameters: int | None
    size: int
    file: str
    home: str


_ADM_256 = {"num_head_channels": 64, "schedule": "linear", "image_size": 256}
_DDPM_256 = {"schedule": "linear", "image_size": 256}
_CLD = {"m_inv": 4.0, "gamma": 0.04, "mixed_score": True}
_CELEBA_CLD = _CLD | {"numerical_eps": 1e-6, "use_fir": False, "image_size": 256}
_DPS, _P2 = "github.com/DPS2022/diffusion-posterior-sampling", "github.com/jychoi118/P2-weighting"
_GUIDED, _SDEDIT = "github.com/openai/guided-diffusion", "github.com/ermongroup/SDEdit"
_PESSER, _EDM = "github.com/pesser/pytorch_diffusion", "github.com/NVlabs/edm"
_SGM, _KAIR, _GOOGLE = "github.com/nv-tlabs/CLD-SGM", "github.com/cszn/KAIR", "huggingface.co/google"


def _adm(parameters: int, file: str, home: str, **options) -> Known:
    return Known("adm", _ADM_256 | options, parameters, options.get("image_size", 256), file, home)


def _edm(parameters: int | None, size: int, file: str) -> Known:
    return Known("edm", {}, parameters, size, file, _EDM)


KNOWN: dict[str, Known] = {
    "ffhq_10m": _adm(93_563_910, "ffhq_10m.pt", _DPS),
    "imagenet256": _adm(552_814_086, "256x256_diffusion_uncond.pt", _GUIDED),
    "lsun_bedroom": _adm(552_814_086, "lsun_bedroom.pt", _GUIDED),
    "lsun_cat": _adm(552_814_086, "lsun_cat.pt", _GUIDED),
    "lsun_horse": _adm(552_814_086, "lsun_horse.pt", _GUIDED),
    "ffhq_p2": _adm(93_563_910, "ffhq_p2.pt", _P2),
    "celebahq_p2": _adm(93_563_910, "celebahq_p2.pt", _P2),
    "afhqdog_p2": _adm(93_563_910, "afhqdog_p2.pt", _P2),
    "cub_p2": _adm(93_563_910, "cub_p2.pt", _P2),
    "flower_p2": _adm(93_563_910, "flower_p2.pt", _P2),
    "metface_p2": _adm(93_563_910, "metface_p2.pt", _P2),
    "celeba_hq": Known("ddpm", _DDPM_256, 113_673_219, 256, "celeba_hq.ckpt", _SDEDIT),
    "ddpm_bedroom": Known("ddpm", _DDPM_256, 113_673_219, 256, "model-2388000.ckpt", _PESSER),
    "ddpm_cat": Known("ddpm", _DDPM_256, 113_673_219, 256, "model-1761000.ckpt", _PESSER),
    "ddpm_church": Known("ddpm", _DDPM_256, 113_673_219, 256, "model-4432000.ckpt", _PESSER),
    "ddpm_cifar10": Known(
        "ddpm", {"schedule": "linear", "image_size": 32}, 35_746_307, 32, "model-790000.ckpt",
        _PESSER,
    ),
    "google_celebahq": Known("diffusers", {}, 113_673_219, 256, "ddpm-ema-celebahq-256", _GOOGLE),
    "google_church": Known("diffusers", {}, 113_673_219, 256, "ddpm-ema-church-256", _GOOGLE),
    "google_bedroom": Known("diffusers", {}, 113_673_219, 256, "ddpm-ema-bedroom-256", _GOOGLE),
    "google_cat": Known("diffusers", {}, 113_673_219, 256, "ddpm-ema-cat-256", _GOOGLE),
    "google_cifar10": Known("diffusers", {}, 35_746_307, 32, "ddpm-cifar10-32", _GOOGLE),
    "edm_ffhq_vp": _edm(None, 64, "edm-ffhq-64x64-uncond-vp.pkl"),
    "edm_ffhq_ve": _edm(None, 64, "edm-ffhq-64x64-uncond-ve.pkl"),
    "edm_afhqv2_vp": _edm(None, 64, "edm-afhqv2-64x64-uncond-vp.pkl"),
    "edm_afhqv2_ve": _edm(None, 64, "edm-afhqv2-64x64-uncond-ve.pkl"),
    "edm_cifar10_vp": _edm(None, 32, "edm-cifar10-32x32-uncond-vp.pkl"),
    "edm_cifar10_ve": _edm(None, 32, "edm-cifar10-32x32-uncond-ve.pkl"),
    "edm_imagenet": _edm(None, 64, "edm-imagenet-64x64-cond-adm.pkl"),
    "cld_cifar10": Known(
        "cld_sgm", _CLD | {"beta0": 4.0, "beta1": 0.0, "numerical_eps": 1e-9, "use_fir": True, "image_size": 32}, None,
        32, "checkpoint_800000.pth", _SGM,
    ),
    "cld_celebahq_paper": Known(
        "cld_sgm", _CELEBA_CLD | {"beta0": 4.0, "beta1": 0.0}, None, 256, "of two residual blocks a level", _SGM
    ),
    "cld_celebahq_post_paper": Known(
        "cld_sgm", _CELEBA_CLD | {"beta0": 0.1, "beta1": 6.9}, None, 256, "of four residual blocks a level", _SGM
    ),
    "ffdnet_color": Known("ffdnet", {"largest_noise": 75.0}, 852_108, 256, "ffdnet_color.pth", _KAIR),
    "ffdnet_gray": Known("ffdnet", {"largest_noise": 75.0}, 485_316, 256, "ffdnet_gray.pth", _KAIR),
    "drunet_color": Known("drunet", {"largest_noise": 50.0}, 32_640_960, 256, "drunet_color.pth", _KAIR),
    "drunet_gray": Known("drunet", {"largest_noise": 50.0}, 32_638_656, 256, "drunet_gray.pth", _KAIR),
    "dncnn_15": Known("dncnn", {"sigma": 15.0}, None, 256, "dncnn_15.pth", _KAIR),
    "dncnn_25": Known("dncnn", {"sigma": 25.0}, None, 256, "dncnn_25.pth", _KAIR),
    "dncnn_50": Known("dncnn", {"sigma": 50.0}, None, 256, "dncnn_50.pth", _KAIR),
    "dncnn_color_blind": Known("dncnn", {"largest_noise": 55.0}, None, 256, "dncnn_color_blind.pth", _KAIR),
}  # fmt: skip
