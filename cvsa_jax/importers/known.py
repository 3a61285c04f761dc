"""Public models, with what their files do not say.

Configurations are those of the repositories that publish them; docs/models.md says where each lies.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Known(NamedTuple):
    """A public model.

    format: in FORMATS. options: what its file does not say. parameters: of the file's network. size: of its images.
    file: its published name. home: where it is published. licence: of the weights, as stated there.
    """

    format: str
    options: Mapping[str, Any]
    parameters: int
    size: int
    file: str
    home: str
    licence: str


_ADM_256 = {"num_head_channels": 64, "schedule": "linear", "image_size": 256}
_P2 = "github.com/jychoi118/P2-weighting"
_GUIDED = "github.com/openai/guided-diffusion"
_DDPM = "github.com/pesser/pytorch_diffusion"
_EDM = "github.com/NVlabs/edm"
_CLD = "github.com/nv-tlabs/CLD-SGM"
_KAIR = "github.com/cszn/KAIR"
_GOOGLE = "huggingface.co/google"
_UNSTATED = "not stated for the weights"
_NVIDIA_NC = "CC BY-NC-SA 4.0"

KNOWN: dict[str, Known] = {
    "ffhq_10m": Known(
        "adm", _ADM_256, 93_563_910, 256, "ffhq_10m.pt", "github.com/DPS2022/diffusion-posterior-sampling", _UNSTATED
    ),
    "ffhq_p2": Known("adm", _ADM_256, 93_563_910, 256, "ffhq_p2.pt", _P2, _UNSTATED),
    "celebahq_p2": Known("adm", _ADM_256, 93_563_910, 256, "celebahq_p2.pt", _P2, _UNSTATED),
    "afhqdog_p2": Known("adm", _ADM_256, 93_563_910, 256, "afhqdog_p2.pt", _P2, _UNSTATED),
    "imagenet256": Known(
        "adm", _ADM_256, 552_814_086, 256, "256x256_diffusion_uncond.pt", _GUIDED, "MIT (the repository)"
    ),
}
