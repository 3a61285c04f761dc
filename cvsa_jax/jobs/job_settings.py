"""What every restoration job has, whatever its task and its method."""

import dataclasses

from cvsa_jax.checkpoints import DEFAULT
from cvsa_jax.jobs import shards
from cvsa_jax.jobs.measurements import MeasurementSettings
from cvsa_jax.jobs.methods import CVSA, METHODS
from cvsa_jax.networks import DTYPES
from cvsa_jax.noise import NOISES
from cvsa_jax.pictures.formats import FORMATS
from cvsa_jax.seeds import LARGEST
from cvsa_jax.settings import setting


@dataclasses.dataclass(frozen=True)
class JobSettings(MeasurementSettings):
    """What every restoration job has, whatever its task and its method."""

    task: str | None = setting(None, "The degradation, or several joined by '+': motion_deblur+sr4; see --list_tasks.")
    input: str | None = setting(
        None, "An image, or a folder of images (subfolders are searched).", free=True, path=True, remote=True
    )
    list: str | None = setting(
        None, "Text file that names the images to take, a path a line, relative to --input.", free=True, path=True
    )
    output: str | None = setting(None, "Folder of the results.", free=True, path=True, remote=True)
    measured: bool = setting(False, "The inputs are degraded already; else they are clean, and are degraded first.")
    operator: str | None = setting(None, "An operator/NAME.npz of an earlier job, to use for every image.", path=True)
    checkpoint: str = setting(DEFAULT, "The prior: the name of a shipped one, or a folder.", path=True)
    high_noise_checkpoint: str | None = setting(
        None, "Another prior, for more noise than --switch_noise.", path=True, otherwise="--checkpoint serves all noise"
    )
    switch_noise: float | None = setting(
        None, "The noise above which --high_noise_checkpoint takes over, on the scale of images in [-1, 1].", above=0,
        otherwise="the largest that --checkpoint knows",
    )  # fmt: skip
    class_label: int | None = setting(
        None, "The class that a class-conditional prior is asked for; of two priors each that knows classes.", low=0
    )
    dtype: str | None = setting(
        None, "Arithmetic inside the network.", choices=DTYPES, otherwise="float32 on a CPU, bfloat16 elsewhere"
    )
    remat: bool = setting(
        False, "Compute the network's blocks again for the pullback: less memory, more time.", free=True
    )
    pyramid: bool = setting(
        True, "See images of twice the prior's side or more at several resolutions, if the prior was measured there."
    )
    split_rows: bool = setting(
        False, "Cut each image by rows over the devices of this machine, for one that is too large for a device.",
        free=True,
    )  # fmt: skip
    shard_params: bool | None = setting(
        None, "Cut the network's parameters over the devices of this machine.", free=True,
        otherwise="where they take more than half of a device's memory, as far as it tells",
    )  # fmt: skip
    tile: int | None = setting(
        None, "Side of the tiles in which the network sees larger images; 0 is the whole image.", "pixels", low=0,
        otherwise="by the memory at hand",
    )  # fmt: skip
    image_size: int | None = setting(
        None, "Cut the centre square and resize it to this side.", "pixels", low=1, otherwise="the image as it is"
    )
    limit: int | None = setting(None, "Restore only the first N images.", low=1, free=True, otherwise="all")
    shard: str | None = setting(
        None, "I/N: do only the I-th of N shares of the images; others may do theirs in the same --output meanwhile.",
        free=True, otherwise="all of them",
    )  # fmt: skip
    format: str | None = setting(
        None, "The files of restored/ and samples/.", choices=FORMATS,
        otherwise="png, with 16 bits where the input has more than 8",
    )  # fmt: skip
    overwrite: bool = setting(False, "Write into a folder that holds other results.", free=True)
    report: bool = setting(False, "Write report.html too: one page with everything, which needs no network.", free=True)
    keep_known: bool | None = setting(None, "Put measured pixels back into an inpainting.", otherwise="with --measured")
    noise: str = setting("gaussian", "The noise of the measurement.", choices=NOISES)
    method: str = setting(CVSA, "What restores.", choices=METHODS)
    seed: int = setting(0, "Seed of masks, kernels, noise and samples.", low=0, high=LARGEST)
    batch_size: int = setting(16, "Samples restored together.", low=1, free=True)
    bucket: int = setting(
        0, "Restore images of near sizes together, each side taken for the next multiple of this; 0 is off.", "pixels",
        low=0,
    )  # fmt: skip
    profile: str | None = setting(
        None, "Folder for a trace of a few batches, which XProf and Perfetto read.", free=True, path=True
    )

    def __post_init__(self):
        super().__post_init__()
        shards.parse(self.shard)
        if self.shard is not None and self.overwrite:
            raise ValueError("--overwrite beside --shard would remove what other shards did: empty --output, or do all")
