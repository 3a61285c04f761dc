"""Diffusion posterior sampling of image and kernel side by side (BlindDPS)."""

import jax
import jax.numpy as jnp

from cvsa_jax.baselines.base import ddpm, denoised, residual, schedule
from cvsa_jax.numerics import norm
from cvsa_jax.operators.kernels import weights_to_image
from cvsa_jax.samplers.base import Loop
from cvsa_jax.types import Denoiser, State


def blind_dps(
    denoise: Denoiser, denoise_kernel: Denoiser, measurement: jax.Array, operator, image_shape, kernel_side: int,
    num_steps: int, step_size: float = 1.0,
) -> Loop:  # fmt: skip
    """Two chains under one loss, L = |y - H(x_0hat, w)|, w = c / sum c, c = (clip(k_0hat, -1, 1) + 1)/2.

        x_s = DDPM(x_t, x_0hat) - step_size sqrt(kept_t) grad_x L
        k_s = DDPM(k_t, k_0hat) - step_size sqrt(kept_t) grad_k L

    k is the kernel's image; the last one is c as `image_to_kernel` reads it. The factor sqrt(kept_t) is that of
    the published code.

    Deviation: the paper adds the sum |w|_1 to L. The published code scales w to sum 1 first, so that it is constant.

    Args:
      denoise, denoise_kernel: Gaussian denoisers of image and kernel. measurement: y.
      operator: (x, k) -> H(x, k), such as `BlindConvolution`, which reads k by `image_to_kernel`.
      image_shape: (H, W, C). kernel_side: k is (kernel_side, kernel_side, 1). num_steps: in [2, 1000].
      step_size: > 0.

    References: Chung et al. (2022), arXiv:2211.10656, algorithm 1.
    """
    table = schedule(num_steps)

    def init(key, image_shape):
        x_key, k_key, chain_key = jax.random.split(key, 3)
        k = jax.random.normal(k_key, (kernel_side, kernel_side, 1))
        return State(jax.random.normal(x_key, image_shape), None, chain_key, k)

    def step(state: State, index):
        now = table.at(index)
        assert state.k is not None

        def loss(x, k):
            estimates = denoised(denoise, x, now), denoised(denoise_kernel, k, now)
            r = measurement - operator(estimates[0], whole_kernel(estimates[1]))
            return norm(r), (estimates, r)

        gradients, (estimates, r) = jax.grad(loss, (0, 1), has_aux=True)(state.x, state.k)
        key, x_key, k_key = jax.random.split(state.key, 3)
        draws = [jax.random.normal(k, a.shape, a.dtype) for k, a in zip((x_key, k_key), estimates, strict=True)]
        scale = step_size * jnp.sqrt(now.kept)
        x, k = (
            ddpm(a, estimate, z, now) - scale * gradient
            for a, estimate, z, gradient in zip((state.x, state.k), estimates, draws, gradients, strict=True)
        )
        k = jnp.where(index == num_steps - 1, weights_to_image(weights(k)), k)
        return state._replace(x=x, k=k, key=key), residual(operator, r, 0.0)

    return Loop(init, step)


def weights(k: jax.Array) -> jax.Array:
    """c = (clip(k, -1, 1) + 1)/2, (side, side): all of it counts, however little."""
    return (jnp.clip(k[..., 0], -1, 1) + 1) / 2


def whole_kernel(k: jax.Array) -> jax.Array:
    """The image of the kernel c / sum c. An even side gets a border of zeros, so that no weight is cut off."""
    border = (k.shape[0] + 1) % 2
    return weights_to_image(jnp.pad(weights(k), ((border, 0), (border, 0))))
