"""The settings of a training run."""

import dataclasses

from cvsa_jax import networks
from cvsa_jax.models.unet import UNet
from cvsa_jax.parameterizations import TRAINABLE
from cvsa_jax.seeds import LARGEST
from cvsa_jax.settings import Settings, fields, require, setting, values

KERNELS = "kernels"
PRECONDITIONINGS = ("spectral", "scalar")


@dataclasses.dataclass(frozen=True)
class TrainingSettings(Settings):
    """A training run."""

    data: str | None = setting(
        None, "Folder of images of any size (subfolders are searched), or `kernels`: motion and Gaussian blur.",
        free=True, path=True,
    )  # fmt: skip
    output: str | None = setting(None, "Folder of the run.", free=True, path=True)
    parameterization: str = setting(networks.NetworkSpec.parameterization, "What is trained.", choices=TRAINABLE)
    preconditioning: str = setting(
        "spectral", "Denoiser: scale each frequency by the data's spectrum, or all alike as EDM does.",
        choices=PRECONDITIONINGS,
    )  # fmt: skip
    image_size: int = setting(networks.NetworkSpec.image_size, "Side of the training images.", "pixels", low=8)
    image_channels: int | None = setting(
        None, "3 for colour, 1 for grey.", low=1, high=3, odd=True, otherwise="3, and 1 for kernels"
    )
    channels: tuple[int, ...] = setting(tuple(UNet.channels), "Features of each level of the U-Net.")
    encoder_blocks: tuple[int, ...] = setting(
        tuple(UNet.encoder_blocks), "Residual blocks of each level on the way down."
    )
    decoder_blocks: tuple[int, ...] = setting(
        tuple(UNet.decoder_blocks), "Residual blocks of each level on the way up."
    )
    patch: int = setting(UNet.patch, "Space-to-depth factor of the stem.", low=1)
    attention: bool = setting(UNet.attention, "Attend over all positions at the lowest level.")
    num_steps: int = setting(10000, "Optimiser steps of the whole run.", low=1)
    batch_size: int = setting(16, "Images in a step, over all devices.", low=1)
    learning_rate: float = setting(1.5e-3, "Peak learning rate of Adam.", above=0)
    warmup_steps: int = setting(200, "Steps of linear warm-up.", low=0)
    average_decay: float = setting(0.999, "Decay of the moving average of the parameters.", low=0, below=1)
    seed: int = setting(0, "Seed of the parameters, the data order and the noise.", low=0, high=LARGEST)
    num_validation: int = setting(256, "Images held out to measure the denoising error.", low=1)
    log_every: int = setting(50, "Steps between lines of metrics.csv.", low=1, free=True)
    save_every: int = setting(500, "Steps between checkpoints.", low=1, free=True)
    sample_every: int = setting(2000, "Steps between sample grids and validations.", low=1, free=True)

    def __post_init__(self):
        super().__post_init__()
        require(values(self), "data", "output")
        for name in ("channels", "encoder_blocks", "decoder_blocks"):
            object.__setattr__(self, name, whole_numbers(name, getattr(self, name)))
        if len({len(self.channels), len(self.encoder_blocks), len(self.decoder_blocks)}) != 1:
            raise ValueError("--channels, --encoder_blocks and --decoder_blocks must have the same length")
        if self.image_channels is None:
            object.__setattr__(self, "image_channels", 1 if self.data == KERNELS else 3)
        if self.data == KERNELS and self.image_channels != 1:
            raise ValueError(f"kernels have one channel, but --image_channels={self.image_channels}")
        if self.warmup_steps >= self.num_steps:
            raise ValueError(f"need --warmup_steps < --num_steps, got {self.warmup_steps} and {self.num_steps}")

    def record(self) -> dict:
        """The settings that decide what comes out."""
        free = {f.name for f in fields(type(self)) if f.setting.free}
        return {name: value for name, value in values(self).items() if name not in free}


def whole_numbers(name: str, texts: tuple) -> tuple[int, ...]:
    """The numbers that a flag lists; raises ValueError unless each is a whole number of at least 1."""
    try:
        found = tuple(int(text) for text in texts)
    except ValueError as error:
        raise ValueError(f"--{name} must be whole numbers, got {','.join(map(str, texts))}") from error
    if min(found, default=0) < 1:
        raise ValueError(f"--{name} must be at least 1 each, got {','.join(map(str, texts))}")
    return found
