"""Measuring a prior: its denoising error by noise level, and the spectrum of its images, stored beside it."""

import dataclasses
import pathlib

import jax
from tqdm import tqdm

from cvsa_jax import checkpoints, data, folders
from cvsa_jax.calibration import Calibration
from cvsa_jax.denoising import calibrate, noises_of
from cvsa_jax.images import open_image
from cvsa_jax.jobs import records
from cvsa_jax.jobs.settings import JobSettings
from cvsa_jax.priors import denoiser_of
from cvsa_jax.pyramid import Level, measure_levels
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
    levels: int = setting(
        0, "Doublings of that side for which a pyramid is measured, to see larger images at several resolutions.",
        low=0, high=6,
    )  # fmt: skip
    seed: int = like(JobSettings, "seed")
    overwrite: bool = setting(False, "Replace what was measured before.")


@dataclasses.dataclass
class Calibrating:
    """A prior and its images, checked."""

    own: CalibrateSettings
    loaded: checkpoints.LoadedPrior
    files: list[pathlib.Path]
    size: int

    def run(self) -> tuple[Calibration, ...]:
        """Measure and store; returns the denoising error, and that at each level of a pyramid."""
        own, prior = self.own, self.loaded.prior
        batch = data.load_squares(self.files, self.size, self.loaded.spec.image_channels)
        found = calibrate(prior, batch, key=key_of_seed(own.seed), batch_size=own.batch_size)
        assert found.calibration is not None  # as it was measured now
        levels = self._levels()
        facts = {
            "images": len(batch), "image_size": self.size, "levels": own.levels,
            "folder": pathlib.Path(str(own.data)).name, "class_label": own.class_label, "seed": own.seed,
            **records.versions(),
        }  # fmt: skip
        checkpoints.save_statistics(own.checkpoint, found.calibration, found.spectrum, facts, levels)
        return found.calibration, *(level.calibration for level in levels)

    def _levels(self) -> tuple[Level, ...]:
        own, denoise = self.own, denoiser_of(self.loaded.prior)
        if not own.levels:
            return ()
        assert denoise is not None  # `prepare` looked
        large = data.load_squares(self.files, self.size << own.levels, self.loaded.spec.image_channels)
        key, noises = jax.random.fold_in(key_of_seed(own.seed), 1), noises_of(self.loaded.prior)
        with tqdm(total=own.levels * len(noises), unit="noise") as bar:
            return measure_levels(denoise, large, self.size, noises, key, bar.update)


def prepare(own: CalibrateSettings) -> Calibrating:
    """Read the prior, and find the images.

    Raises:
      ValueError: if there is no such prior or no image, the prior was measured before, or does not take the size.
    """
    require({"data": own.data}, "data")
    folder = checkpoints.find_prior(own.checkpoint)
    if folder.parent == checkpoints.shipped_folder().absolute():
        raise InputError(f"{own.checkpoint} is a shipped prior: copy its folder, and calibrate the copy")
    loaded = checkpoints.load_prior(str(folder), dtype=own.dtype, class_label=own.class_label, pyramid=False)
    if loaded.calibrated and not own.overwrite:
        raise InputError(f"{folder} was calibrated before; --overwrite replaces that")
    files = folders.list_images(str(own.data), say=folders.note)
    size = own.image_size or loaded.spec.image_size
    if size % loaded.spec.stride:
        raise InputError(f"--image_size={size} must be a multiple of {loaded.spec.stride}, which the network takes")
    files = data.readable(files[:: -(-len(files) // own.limit)])
    if own.levels:
        _check_levels(own, loaded, files, size)
    return Calibrating(own, loaded, files, size)


def _check_levels(
    own: CalibrateSettings, loaded: checkpoints.LoadedPrior, files: list[pathlib.Path], size: int
) -> None:
    """Raises InputError unless a pyramid can be measured."""
    if denoiser_of(loaded.prior) is None:
        raise InputError(f"--levels is for denoisers, and {own.checkpoint} was trained on the diffusion itself")
    if size != loaded.spec.image_size:
        raise InputError(f"--levels counts from the side {loaded.spec.image_size} of training, not from {size}")
    for file in files:
        side = min(open_image(file).size)
        if side < size << own.levels:
            raise InputError(f"{file} has {side} pixels a side, but --levels={own.levels} needs {size << own.levels}")
