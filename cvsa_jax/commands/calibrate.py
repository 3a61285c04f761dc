"""Measure a prior: its denoising error by noise level, and the spectrum of the images, which guidance needs.

    cvsa calibrate --checkpoint=priors/ffhq --data=FOLDER

Both are stored with the prior. An imported prior that was not measured gets those of photographs in general. A hundred
images are enough; the cost is one evaluation of each at each of sixteen noise levels.

With --levels=2 and images of four times the training images' side, a pyramid is measured too: the weights by which
larger images are then seen at several resolutions at once.
"""

from collections.abc import Callable
from typing import Any

from cvsa_jax.commands.flags import Groups
from cvsa_jax.jobs.calibrate import CalibrateSettings, prepare
from cvsa_jax.settings import build, fields


def groups() -> Groups:
    """The verb's flags."""
    return {"Calibration": ("", fields(CalibrateSettings))}


def check(given: dict[str, Any]) -> Callable[[], None]:
    """The measurement."""
    measuring = prepare(build(CalibrateSettings, given))

    def work() -> None:
        for level, found in enumerate(measuring.run()):
            if level:
                print(f"images of {measuring.size << level} pixels")
            for noise, error in zip(found.noise, found.error, strict=True):
                print(f"noise {noise:8.4g}: mean squared error {error:.4g}")
        print(f"stored in {measuring.own.checkpoint}")

    return work
