"""Magnitudes of a Fourier transform as files have them."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from cvsa_jax.operators.fourier import begins_at_zero, opposite
from cvsa_jax.settings import Settings, setting

MAGNITUDE, INTENSITY = "magnitude", "intensity"
NOISE_ROOM = 0.1  # of each measured entry's square, above the image's own
# The share of the power of low frequencies in which opposite ones differ: of the shipped photographs .044 at most, with
# noise up to .4; at least .19 where frequency zero is one pixel away.
ASYMMETRY = 0.1


@dataclasses.dataclass(frozen=True)
class PhaseSettings(Settings):
    """Phase retrieval."""

    oversampling: float = setting(
        2.0, "An eighth of this, times the side, is padded with zeros on either side.", low=0, high=8
    )
    phase_measures: str = setting(MAGNITUDE, "What a measured file holds.", choices=(MAGNITUDE, INTENSITY))


def padding(size: int, oversampling: float) -> int:
    """Zeros on either side of `size` pixels."""
    return int(oversampling / 8 * size)


def unpadded(size: int, oversampling: float) -> int:
    """The side of the image whose padded side is `size`."""
    return next((n for n in range(1, size + 1) if n + 2 * padding(n, oversampling) >= size), size)


def to_magnitudes(array: np.ndarray, settings: PhaseSettings) -> np.ndarray:
    """Magnitudes with the frequency zero in the middle, of a file of them or of their squares.

    By Parseval the squares of the magnitudes sum to those of the image, which are at most one a pixel.

    Raises:
      ValueError: if no image in [-1, 1] has such a measurement.
    """
    if np.iscomplexobj(array):
        raise ValueError("phase_retrieval measures real numbers, but the input has complex numbers")
    _check_sides(array.shape[:2], settings.oversampling)
    finite = np.nan_to_num(array.astype(np.float64), posinf=0.0, neginf=0.0)
    if settings.phase_measures == INTENSITY:
        finite, array = (np.sqrt(np.maximum(a, 0)) for a in (finite, array))
    pixels = np.prod([unpadded(n, settings.oversampling) for n in array.shape[:2]])
    energy, size = float((finite**2).sum((0, 1)).max()), array.shape[0] * array.shape[1]
    most = 1.2 * pixels + NOISE_ROOM * size
    if energy > most:
        found = (
            f"the squares of the magnitudes sum to {energy:.3g}, but those of an image in [-1, 1] to {pixels} at most"
        )
        if settings.phase_measures == MAGNITUDE and np.abs(finite).sum((0, 1)).max() <= most:
            raise ValueError(f"{found}: these are intensities, --phase_measures=intensity")
        for power, what in ((1, "the transform is not orthonormal, divide"), (2, "these are intensities, divide")):
            scaled = finite / np.sqrt(size) if power == 1 else np.abs(finite) / size
            if (scaled ** (2 / power)).sum((0, 1)).max() <= most:
                by = f"{np.sqrt(size) if power == 1 else size:g}"
                flag = "" if power == 1 else " and give --phase_measures=intensity"
                raise ValueError(f"{found}: {what} by {by}{flag}")
        raise ValueError(f"{found}: scale them")
    if not finite.sum() > 0:
        raise ValueError(f"these are no magnitudes: their mean is {finite.mean():.3g}")
    if begins_at_zero(finite**2):
        finite, array = (np.fft.fftshift(a, (0, 1)) for a in (finite, array))
    rows, columns = (slice(max(0, n // 2 - 2), n // 2 + 3) for n in array.shape[:2])
    low, turned = (np.asarray(a)[rows, columns] for a in (finite, opposite(jnp.asarray(finite))))
    if ((low - turned) ** 2).sum() > ASYMMETRY * (low**2).sum():
        raise ValueError(
            "magnitudes of opposite frequencies differ, but those of an image are alike: frequency zero is neither at "
            f"({array.shape[0] // 2}, {array.shape[1] // 2}) nor at (0, 0)"
        )
    return array


def _check_sides(shape: tuple[int, ...], oversampling: float) -> None:
    """Raises ValueError if no image, padded, has such sides."""
    for size in shape:
        side = unpadded(size, oversampling)
        if side + 2 * padding(side, oversampling) != size:
            near = [(n + 2 * padding(n, oversampling), n) for n in (side - 1, side) if n > 0]
            fits = " and ".join(f"{padded} (of an image's {n})" for padded, n in near)
            raise ValueError(f"no image has a padded side of {size} with --oversampling={oversampling:g}; {fits} fit")
