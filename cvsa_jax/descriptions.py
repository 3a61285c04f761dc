"""What is stored of a prior beside its parameters, as plain JSON values and back."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from cvsa_jax.diffusion import CLD
from cvsa_jax.networks import NetworkSpec
from cvsa_jax.priors import Calibration
from cvsa_jax.pyramid import Level
from cvsa_jax.spectral import Spectrum


class Description(NamedTuple):
    """All that is known of a prior but its parameters.

    spec: what rebuilds it. calibration, spectrum: what was measured of it, or None. training: facts about it, JSON
    values. calibrated_on: facts about the measuring, or None. levels: what was measured on larger images.
    """

    spec: NetworkSpec
    calibration: Calibration | None
    spectrum: Spectrum | None
    training: dict[str, Any]
    calibrated_on: dict[str, Any] | None = None
    levels: tuple[Level, ...] = ()


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
    return Description(
        spec_from_json(record["network"]), _curve(record["calibration"]), spectrum_from_json(record.get("spectrum")),
        record.get("training", {}), record.get("calibrated_on"), tuple(map(_level, record.get("larger", []))),
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


def statistics_to_json(
    calibration: Calibration | None, spectrum: Spectrum | None, levels: tuple[Level, ...] = ()
) -> dict[str, Any]:
    """What was measured of a prior, as plain JSON values."""
    found: dict[str, Any] = {"calibration": None, "spectrum": spectrum and dataclasses.asdict(spectrum)}
    if calibration is not None:
        found["calibration"] = {"noise": _rounded(calibration.noise), "error": _rounded(calibration.error)}
    if levels:
        found["larger"] = [
            {
                **statistics_to_json(level.calibration, level.spectrum),
                "weights": [_rounded(row, 3) for row in level.weights],
            }
            for level in levels
        ]
    return found


def _rounded(values, digits: int = 6) -> list[float]:
    return [float(f"{value:.{digits}g}") for value in np.asarray(values)]


def _curve(record: dict[str, Any] | None) -> Calibration | None:
    return None if record is None else Calibration(*(np.array(record[name], np.float32) for name in ("noise", "error")))


def _level(record: dict[str, Any]) -> Level:
    """Of a level as plain JSON values.

    Raises:
      KeyError, TypeError, ValueError: if it is none.
    """
    curve, spectrum = _curve(record["calibration"]), spectrum_from_json(record["spectrum"])
    if curve is None or spectrum is None:
        raise ValueError("a level of a pyramid has a calibration and a spectrum")
    return Level(np.array(record["weights"], np.float32), curve, spectrum).checked()
