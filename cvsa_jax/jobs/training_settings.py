"""The settings of a training run."""

import dataclasses

from cvsa_jax import networks
from cvsa_jax.growing import SHAPE
from cvsa_jax.models.unet import UNet
from cvsa_jax.parameterizations import TRAINABLE
from cvsa_jax.seeds import LARGEST
from cvsa_jax.settings import Settings, fields, require, setting, values

KERNELS = "kernels"
PRECONDITIONINGS = ("spectral", "scalar")
LISTS = ("channels", "encoder_blocks", "decoder_blocks")


def _default(name: str) -> str:
    """The default of a shape, in words."""
    value = getattr(UNet, name)
    return f"{','.join(map(str, value)) if name in LISTS else value}, with --start as it has"


@dataclasses.dataclass(frozen=True)
class TrainingSettings(Settings):
    """A training run."""

    data: str | None = setting(
        None, "Folder of images of any size (subfolders are searched), or `kernels`: motion and Gaussian blur.",
        free=True, path=True,
    )  # fmt: skip
    output: str | None = setting(None, "Folder of the run.", free=True, path=True)
    parameterization: str = setting(networks.NetworkSpec.parameterization, "What is trained.", choices=TRAINABLE)
    start: str | None = setting(
        None, "A trained prior to begin with: the name of a shipped one, or a folder; its network may grow.", path=True
    )
    preconditioning: str | None = setting(
        None, "Denoiser: scale each frequency by the data's spectrum, or all alike as EDM does.",
        choices=PRECONDITIONINGS, otherwise="spectral, with --start as it does",
    )  # fmt: skip
    image_size: int = setting(networks.NetworkSpec.image_size, "Side of the training images.", "pixels", low=8)
    image_channels: int | None = setting(
        None, "3 for colour, 1 for grey.", low=1, high=3, odd=True, otherwise="3, and 1 for kernels"
    )
    channels: tuple[int, ...] | None = setting(
        None, "Features of each level of the U-Net.", otherwise=_default("channels")
    )
    encoder_blocks: tuple[int, ...] | None = setting(
        None, "Residual blocks of each level on the way down.", otherwise=_default("encoder_blocks")
    )
    decoder_blocks: tuple[int, ...] | None = setting(
        None, "Residual blocks of each level on the way up.", otherwise=_default("decoder_blocks")
    )
    patch: int | None = setting(None, "Space-to-depth factor of the stem.", low=1, otherwise=_default("patch"))
    attention: bool | None = setting(
        None, "Attend over all positions at the lowest level.", otherwise="not, with --start as it does"
    )
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
        if self.start is None:
            defaults = {name: getattr(UNet, name) for name in SHAPE} | {"preconditioning": PRECONDITIONINGS[0]}
            for name, value in defaults.items():
                if getattr(self, name) is None:
                    object.__setattr__(self, name, value)
        lists = {name: getattr(self, name) for name in LISTS if getattr(self, name) is not None}
        for name, texts in lists.items():
            object.__setattr__(self, name, whole_numbers(name, texts))
        if len({len(texts) for texts in lists.values()}) > 1:
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
