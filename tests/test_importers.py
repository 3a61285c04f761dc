"""The published blur encoder: the same function here as in PyTorch, and no other file taken for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SMALL_ENCODER as SMALL
from conftest import published_like

from cvsa_jax.importers import bkse
from cvsa_jax.models.blur_encoder import CODE_FEATURES, pixel_shuffle
from cvsa_jax.operators import EncodedBlur, load_operator, save_operator


def torch_copy(torch, model):
    """The same structure in PyTorch, its parts named as in the published file."""
    nn = torch.nn

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = (nn.Conv2d(model.features, model.features, 3, 1, 1) for _ in range(2))

        def forward(self, x):
            return x + self.conv2(torch.relu(self.conv1(x)))

    class Level(nn.Module):
        def __init__(self, outer, inner, below, outermost):
            super().__init__()
            self.down, self.below, self.outermost = nn.Conv2d(outer, inner, 4, 2, 1), below, outermost
            wide = inner + (CODE_FEATURES if below is None else inner)
            self.up = nn.ConvTranspose2d(wide, outer, 4, 2, 1)

        def forward(self, x, code):
            h = self.down(x if self.outermost else nn.functional.leaky_relu(x, 0.2))
            h = torch.cat([h, code], 1) if self.below is None else torch.cat([h, self.below(h, code)], 1)
            h = self.up(torch.relu(h))
            return torch.tanh(h) if self.outermost else h

    class Copy(nn.Module):
        def __init__(self):
            super().__init__()
            f, relu = model.features, nn.LeakyReLU(0.1)
            front = [nn.Conv2d(3, f, 3, 1, 1), relu, nn.Conv2d(f, f, 3, 2, 1), relu, nn.Conv2d(f, f, 3, 2, 1), relu]
            self.feature_extractor = nn.Sequential(*front, *(Residual() for _ in range(model.front_blocks)))
            outer, level = (f, *model.widths[:-1]), None
            for i in reversed(range(len(model.widths))):
                level = Level(outer[i], model.widths[i], level, i == 0)
            self.adapter = level
            self.recon_trunk = nn.Sequential(*(Residual() for _ in range(model.back_blocks)))
            self.upconv1, self.upconv2 = (nn.Conv2d(f, 4 * f, 3, 1, 1) for _ in range(2))
            self.HRconv, self.conv_last = nn.Conv2d(f, f, 3, 1, 1), nn.Conv2d(f, 3, 3, 1, 1)

        def forward(self, x, code):
            leaky, shuffle = nn.LeakyReLU(0.1), nn.PixelShuffle(2)
            h = self.recon_trunk(self.adapter(self.feature_extractor(x), code))
            h = leaky(shuffle(self.upconv2(leaky(shuffle(self.upconv1(h))))))
            return x + self.conv_last(leaky(self.HRconv(h)))

    return Copy()


def test_network_is_the_one_of_pytorch():
    """The same random weights give the same image."""
    torch = pytest.importorskip("torch", reason="needs PyTorch (pip install cvsa_jax[torch])")
    torch.manual_seed(0)
    copy = torch_copy(torch, SMALL)
    params = bkse.convert({name: t.detach().numpy() for name, t in copy.state_dict().items()}, SMALL)
    generator = np.random.default_rng(0)
    image = generator.uniform(size=(2, 64, 32, 3)).astype(np.float32)
    code = generator.normal(size=(2, 2, 1, CODE_FEATURES)).astype(np.float32)
    with torch.no_grad():
        expected = copy(*(torch.tensor(a.transpose(0, 3, 1, 2)) for a in (image, code))).numpy()
    found = SMALL.apply({"params": params}, image, code)
    np.testing.assert_allclose(found, expected.transpose(0, 2, 3, 1), atol=1e-5)


def test_other_files_are_refused():
    state = published_like(SMALL)
    assert set(bkse.convert(state, SMALL)) == set(bkse.expected_shapes(SMALL))
    with pytest.raises(ValueError, match="HRconv: 0 arrays"):
        bkse.convert({k: v for k, v in state.items() if "HRconv" not in k}, SMALL)
    with pytest.raises(ValueError, match="conv_last: last is"):
        bkse.convert(state | {"conv_last.0.weight": np.zeros((4, 8, 3, 3), np.float32)}, SMALL)


def test_pixels_are_shuffled_as_in_pytorch():
    """Channel c 4 + 2 i + j goes to the pixel (2 h + i, 2 w + j) of channel c."""
    x = np.arange(2 * 3 * 8).reshape(1, 2, 3, 8)
    found = pixel_shuffle(jnp.asarray(x))
    for h, w, c, i, j in np.ndindex(2, 3, 2, 2, 2):
        assert found[0, 2 * h + i, 2 * w + j, c] == x[0, h, w, 4 * c + 2 * i + j]


def test_encoded_blur_is_stored_by_its_code(tmp_path, small_encoder):
    """The archive has the code; the network stays in its own file. The measurement is the same, bit for bit."""
    code = jax.random.normal(jax.random.key(0), (1, 2, CODE_FEATURES))
    operator = EncodedBlur(jax.tree.map(jnp.asarray, small_encoder.params), code, small_encoder.source)
    save_operator(tmp_path / "a.npz", operator)
    again = load_operator(tmp_path / "a.npz")
    for channels in (3, 1):
        x = jax.random.uniform(jax.random.key(1), (20, 40, channels), minval=-1.0)
        y = operator(x)
        assert y.shape == x.shape
        np.testing.assert_array_equal(again(x), y)
    assert (tmp_path / "a.npz").stat().st_size < (tmp_path / "weights.npz").stat().st_size
    (tmp_path / "weights.npz").unlink()
    with pytest.raises(ValueError, match=r"cannot read .*weights.npz"):
        load_operator(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="parameters are from no file"):
        save_operator(tmp_path / "b.npz", EncodedBlur(operator.params, code))


def test_gradient_of_the_encoded_blur(float64):
    """Central differences in float64 along a direction, away from the clip."""
    params = bkse.convert(published_like(SMALL), SMALL)
    generator = np.random.default_rng(1)
    code = jnp.asarray(generator.normal(size=(1, 1, 1, CODE_FEATURES)))
    image, direction = (jnp.asarray(generator.uniform(size=(1, 32, 32, 3))) for _ in range(2))
    params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), params)
    blur = jax.jit(lambda x: SMALL.apply({"params": params}, x, code))
    h = 1e-6
    difference = (blur(image + h * direction) - blur(image - h * direction)) / (2 * h)
    derivative = jax.jvp(blur, (image,), (direction,))[1]
    assert float(jnp.linalg.norm(derivative - difference)) < 1e-5 * float(jnp.linalg.norm(difference))
