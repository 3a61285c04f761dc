"""The paper's application: goods held in a hand before a shaken camera."""

from cvsa_jax.operators.base import Operator
from cvsa_jax.operators.chain import Chain
from cvsa_jax.operators.kernel_blur import Convolution, MotionBlurSettings, motion_blur
from cvsa_jax.operators.masks import Mask, MaskSettings, given_mask, hand_mask
from cvsa_jax.operators.task import Task
from cvsa_jax.settings import join

CheckoutSettings = join("CheckoutSettings", (MotionBlurSettings, MaskSettings))


def _checkout(generator, height, width, settings) -> Operator:
    """Motion blur, then the mask that is given or a hand that is drawn."""
    blur, hand = motion_blur(generator, height, width, settings), hand_mask(generator, height, width)
    return Chain(blur, hand if settings.mask is None else given_mask(settings.mask, height, width))


TASKS = (
    Task(
        "checkout", "shaken camera, goods held in a hand or behind --mask", _checkout, (Convolution, Mask),
        CheckoutSettings, drawn_by=("kernel", "mask"),
    ),
)  # fmt: skip
