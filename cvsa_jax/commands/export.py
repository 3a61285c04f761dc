"""Take a prior elsewhere: into one safetensors file, or a folder that the diffusers library loads.

    cvsa export --checkpoint=priors/ffhq --output=ffhq.safetensors
    cvsa import --source=ffhq.safetensors --output=priors/again

The safetensors file holds every prior whole: each parameter by its place, as params/stem/kernel, and in the metadata,
under cvsa_jax, the JSON of prior.json. It comes back bit for bit.

    cvsa export --checkpoint=priors/ffhq --format=diffusers --output=ffhq

The folder holds a noise predictor as UNet2DModel and DDPMScheduler: those that were imported from diffusers, and those
of ddpm and adm whose network is one of UNet2DModel's. What differs is named.
"""

from collections.abc import Callable
from typing import Any

from cvsa_jax.commands.flags import Groups
from cvsa_jax.jobs import export
from cvsa_jax.settings import build, fields


def groups() -> Groups:
    """The verb's flags."""
    return {"Export": ("", fields(export.ExportSettings))}


def check(given: dict[str, Any]) -> Callable[[], None]:
    """The export."""
    own = build(export.ExportSettings, given)
    ready = export.prepare(own)

    def work() -> None:
        export.write(own, ready)
        for line in ready.notes:
            print(f"- {line}")
        print(f"the prior is in {own.output}")

    return work
