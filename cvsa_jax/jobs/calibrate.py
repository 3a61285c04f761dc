"""Measuring a prior: its denoising error by noise level, and the spectrum of its images, stored beside it."""

import dataclasses
import pathlib

from cvsa_jax import checkpoints, data, folders
from cvsa_jax.calibration import Calibration
from cvsa_jax.denoising import calibrate
from cvsa_jax.jobs import records
from cvsa_jax.jobs.settings import JobSettings
from cvsa_jax.seeds import key_of_seed
from cvsa_jax.settings import Settings, like, require, setting
from cvsa_jax.types import InputError


@dataclasses.dataclass(frozen=True)
class CalibrateSettings(Settings):
    """A measurement of a prior."""

    checkpoint: str = like(JobSettings, "checkpoint")
    data: str | None = setting(
        None, "Folder of images such as the prior is of, best not those that it was trained on.", path=True
    )
    image_size: int | None = setting(
        None, "Cut the centre square and resize it to this side.", "pixels", low=8,
        otherwise="that of the training images",
    )  # fmt: skip
    limit: int = setting(128, "Images, evenly spaced in the folder.", low=1)
    batch_size: int = setting(8, "Images that are denoised together.", low=1)
    class_label: int | None = like(JobSettings, "class_label")
    dtype: str | None = like(JobSettings, "dtype")
    seed: int = like(JobSettings, "seed")
    overwrite: bool = setting(False, "Replace what was measured before.")


@dataclasses.dataclass
class Calibrating:
    """A prior and its images, checked."""

    own: CalibrateSettings
    loaded: checkpoints.LoadedPrior
    files: list[pathlib.Path]
    size: int

    def run(self) -> Calibration:
        """Measure, store and return the denoising error; the spectrum is stored alone."""
        own, prior = self.own, self.loaded.prior
        batch = data.load_squares(self.files, self.size, self.loaded.spec.image_channels)
        found = calibrate(prior, batch, key=key_of_seed(own.seed), batch_size=own.batch_size)
        assert found.calibration is not None  # as it was measured now
        facts = {"images": len(batch), "image_size": self.size, "folder": pathlib.Path(str(own.data)).name,
                 "class_label": own.class_label, "seed": own.seed, **records.versions()}  # fmt: skip
        checkpoints.save_statistics(own.checkpoint, found.calibration, found.spectrum, facts)
        return found.calibration


def prepare(own: CalibrateSettings) -> Calibrating:
    """Read the prior, and find the images.

    Raises:
      ValueError: if there is no such prior or no image, the prior was measured before, or does not take the size.
    """
    require({"data": own.data}, "data")
    folder = checkpoints.find_prior(own.checkpoint)
    if folder.parent == checkpoints.shipped_folder().absolute():
        raise InputError(f"{own.checkpoint} is a shipped prior: copy its folder, and calibrate the copy")
    loaded = checkpoints.load_prior(str(folder), dtype=own.dtype, class_label=own.class_label)
    if loaded.calibrated and not own.overwrite:
        raise InputError(f"{folder} was calibrated before; --overwrite replaces that")
    files = folders.list_images(str(own.data))
    size = own.image_size or loaded.spec.image_size
    if size % loaded.spec.stride:
        raise InputError(f"--image_size={size} must be a multiple of {loaded.spec.stride}, which the network takes")
    return Calibrating(own, loaded, files[:: -(-len(files) // own.limit)], size)
