"""Measurement operators and the registry of tasks that use them.

An operator is a pytree, so that `vmap` over masks and kernels works; any JAX function of one image
serves too. `make_operator` draws one for a task.
"""

from cvsa_jax.operators.algebra import adjoint
from cvsa_jax.operators.base import Function, Operator, as_operator, simulate
from cvsa_jax.operators.camera import CameraShake, camera_shake
from cvsa_jax.operators.chain import Chain
from cvsa_jax.operators.checking import check_operator
from cvsa_jax.operators.dense import Matrix
from cvsa_jax.operators.encoder import EncodedBlur, EncoderWeights, encoded_blur
from cvsa_jax.operators.fourier import SubsampledFourier, cartesian_mask, centred_transform
from cvsa_jax.operators.identity import Identity
from cvsa_jax.operators.kernel_blur import BOUNDARIES, Convolution, convolution
from cvsa_jax.operators.kernels import (
    default_kernel_size,
    gaussian_kernel,
    image_to_kernel,
    kernel_to_image,
    motion_kernel,
)
from cvsa_jax.operators.light import LinearLight, in_linear_light
from cvsa_jax.operators.masks import Mask, box_mask, hand_mask, random_mask
from cvsa_jax.operators.phase import FourierMagnitude, aligned, shifted, trivial_ambiguities
from cvsa_jax.operators.reductions import REDUCTIONS, reduction
from cvsa_jax.operators.registry import TASKS, find_task, make_operator, register_task
from cvsa_jax.operators.separable import Separable, bicubic_downsample, gaussian_blur
from cvsa_jax.operators.singular import SpectralForm, singular_form
from cvsa_jax.operators.storage import load_operator, save_operator
from cvsa_jax.operators.task import Task
from cvsa_jax.operators.tomography import Radon, radon
from cvsa_jax.operators.tones import Clip, Quantised, quantised
from cvsa_jax.operators.view import View

__all__ = [
    "BOUNDARIES",
    "REDUCTIONS",
    "TASKS",
    "CameraShake",
    "Chain",
    "Clip",
    "Convolution",
    "EncodedBlur",
    "EncoderWeights",
    "FourierMagnitude",
    "Function",
    "Identity",
    "LinearLight",
    "Mask",
    "Matrix",
    "Operator",
    "Quantised",
    "Radon",
    "Separable",
    "SpectralForm",
    "SubsampledFourier",
    "Task",
    "View",
    "adjoint",
    "aligned",
    "as_operator",
    "bicubic_downsample",
    "box_mask",
    "camera_shake",
    "cartesian_mask",
    "centred_transform",
    "check_operator",
    "convolution",
    "default_kernel_size",
    "encoded_blur",
    "find_task",
    "gaussian_blur",
    "gaussian_kernel",
    "hand_mask",
    "image_to_kernel",
    "in_linear_light",
    "kernel_to_image",
    "load_operator",
    "make_operator",
    "motion_kernel",
    "quantised",
    "radon",
    "random_mask",
    "reduction",
    "register_task",
    "save_operator",
    "shifted",
    "simulate",
    "singular_form",
    "trivial_ambiguities",
]
