"""Settings of the tasks' operators."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class OperatorOptions:
    """Settings of the tasks. None scales with the image's shorter side S, as the paper's at 256.

    Args:
      kernel_size: side of a motion kernel, odd; None is 61/256 S.
      kernel_std: standard deviation of the Gaussian blur in pixels; None is 3/256 S.
      motion_intensity: 0 straight to 1 shaky.
      kernel: a kernel to use in place of a drawn one, (h, w).
      boundary: of blurs by a kernel, 'reflect' or 'circular'.
      box_size: side of the hole; None is S/2. box_margin: None is S/16.
      missing: share of the pixels that random inpainting loses.
      seen: (H, W) mask of `mask_inpaint` and `checkout`, one where the pixel is known.
      oversampling: of phase retrieval; the image's side times oversampling / 8 is padded on either side.
      exposure: of the nonlinear blur; above 1 bright areas saturate.
      hdr_gain: by which the range of the image exceeds the sensor's.
      jpeg_quality: 1 to 100.
      encoder: parameters of the blur encoder, for `bkse_deblur`. encoder_source: the file that they are from.
    """

    kernel_size: int | None = None
    kernel_std: float | None = None
    motion_intensity: float = 0.5
    kernel: np.ndarray | None = None
    boundary: str = "reflect"
    box_size: int | None = None
    box_margin: int | None = None
    missing: float = 0.92
    seen: np.ndarray | None = None
    oversampling: float = 2.0
    exposure: float = 1.2
    hdr_gain: float = 2.0
    jpeg_quality: int = 10
    encoder: dict | None = None
    encoder_source: str = ""

    def padding(self, size: int) -> int:
        """Zeros that phase retrieval adds on either side of `size` pixels."""
        return int(self.oversampling / 8 * size)

    def unpadded(self, size: int) -> int:
        """The side of the image whose padded side is `size`."""
        return next((n for n in range(1, size + 1) if n + 2 * self.padding(n) >= size), size)


def default_kernel_size(side: int) -> int:
    """61 of 256 pixels, as an odd number of at least 3."""
    return max(3, 2 * int(side * 61 / 256 / 2) + 1)
