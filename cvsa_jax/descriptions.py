"""What is stored of a prior beside its parameters, as plain JSON values and back."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from cvsa_jax.diffusion import CLD
from cvsa_jax.networks import NetworkSpec
from cvsa_jax.priors import Calibration
from cvsa_jax.spectral import Spectrum


class Description(NamedTuple):
    """All that is known of a prior but its parameters.

    spec: what rebuilds it. calibration, spectrum: what was measured of it, or None. training: facts about it, JSON
    values. calibrated_on: facts about the measuring, or None.
    """

    spec: NetworkSpec
    calibration: Calibration | None
    spectrum: Spectrum | None
    training: dict[str, Any]
    calibrated_on: dict[str, Any] | None = None


class StoredPrior(NamedTuple):
    """A prior as it lies in its folder. record: prior.json. params: {"params": {...}}, float32."""

    record: dict[str, Any]
    description: Description
    params: Any


def description_from_json(record: dict[str, Any]) -> Description:
    """A Description from what a prior.json holds.

    Raises:
      KeyError, TypeError, ValueError: if it is none.
    """
    curve = record["calibration"]
    calibration = curve and Calibration(*(np.array(curve[name], np.float32) for name in ("noise", "error")))
    return Description(
        spec_from_json(record["network"]), calibration, spectrum_from_json(record.get("spectrum")),
        record.get("training", {}), record.get("calibrated_on"),
    )  # fmt: skip


def spec_to_json(spec: NetworkSpec) -> dict[str, Any]:
    """A NetworkSpec as plain JSON values."""
    return dataclasses.asdict(spec)


def spec_from_json(record: dict[str, Any]) -> NetworkSpec:
    """The inverse of spec_to_json; lists become tuples again."""
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in record["options"].items()}
    known = {**record, "options": options, "spectrum": spectrum_from_json(record["spectrum"])}
    return NetworkSpec(**{**known, "cld": CLD(**record["cld"])})


def spectrum_from_json(record: dict[str, Any] | None) -> Spectrum | None:
    """A Spectrum from its fields as plain JSON values; None of None."""
    return None if record is None else Spectrum(tuple(map(tuple, record["variance"])), tuple(record["mean_power"]))


def statistics_to_json(calibration: Calibration | None, spectrum: Spectrum | None) -> dict[str, Any]:
    """What was measured of a prior, as plain JSON values."""
    curve = calibration and {
        "noise": [float(f"{s:.6g}") for s in np.asarray(calibration.noise)],
        "error": [float(f"{e:.6g}") for e in np.asarray(calibration.error)],
    }
    return {"calibration": curve, "spectrum": spectrum and dataclasses.asdict(spectrum)}
