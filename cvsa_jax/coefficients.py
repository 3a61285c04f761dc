"""What a prior needs at one time: how u_t tells of x_0."""

from typing import Any, NamedTuple

import numpy as np

from cvsa_jax.diffusion import CLD

MOST_NOISE = 1e12


class Coefficients(NamedTuple):
    """Everything a prior needs at one time (or, with a leading axis, at many).

    m_t = mean_x x + mean_v v = x_0 + noise e summarises u_t; the velocity score is
    data x_0hat - precision_xv x - precision_vv v.
    """

    time: Any
    mean_x: Any
    mean_v: Any
    noise: Any
    data: Any
    precision_xv: Any
    precision_vv: Any
    variance_v: Any
    std_v: Any


def coefficients(cld: CLD, t) -> Coefficients:
    """The float64 table for times t > 0.

    m_t = a' S^-1 u / (a' S^-1 a); std_v is L^vv of S = L L'; variance_v is S^vv. Where u_t tells nothing of x_0,
    beyond the noise MOST_NOISE, a is replaced by a multiple of it that tells as little: float32 holds its squares.
    """
    t = np.asarray(t, np.float64)
    covariance, precision = cld.covariance(t), cld.precision(t)
    effective = cld.effective_noise(t)
    noise = np.minimum(effective, MOST_NOISE)
    longer = effective / noise
    weights = np.einsum("...i,...ij->...j", cld.data_direction(t), precision) * (noise * effective)[..., None]
    return Coefficients(
        time=t,
        mean_x=weights[..., 0],
        mean_v=weights[..., 1],
        noise=noise,
        data=cld.data_coefficient(t) * longer,
        precision_xv=precision[..., 1, 0],
        precision_vv=precision[..., 1, 1],
        variance_v=covariance[..., 1, 1],
        std_v=precision[..., 1, 1] ** -0.5,
    )
