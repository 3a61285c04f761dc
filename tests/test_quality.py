"""Fréchet distances with known answers; the networks of FID and LPIPS as in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from cvsa_jax import frechet
from cvsa_jax.evaluation.judge import Judge
from cvsa_jax.frechet import Moments, frechet_distance
from cvsa_jax.importers import arrays, quality
from cvsa_jax.models.inception import FEATURES, Inception
from cvsa_jax.models.perceptual import BACKBONES, SCALE, SHIFT, Perceptual


def count(shapes, leaf) -> int:
    return sum(int(np.prod(a.shape)) for name, a in flatten_dict(shapes).items() if name[-1] == leaf)


def random_params(shapes, seed=0):
    generator = np.random.default_rng(seed)

    def draw(path, shape):
        name = path[-1].key
        if name == "kernel":
            return generator.normal(size=shape.shape) * (2 / np.prod(shape.shape[:-1])) ** 0.5
        return generator.uniform(0.5, 1.5, shape.shape) if name != "bias" else generator.normal(size=shape.shape) / 5

    return jax.tree_util.tree_map_with_path(lambda p, s: draw(p, s).astype(np.float32), shapes)


def test_moments_of_pieces_are_those_of_the_whole():
    features = np.random.default_rng(0).normal(size=(50, 4)) + 3
    found = frechet.moments([features[:7], features[7:31], features[31:]])
    np.testing.assert_allclose(found.mean, features.mean(0))
    np.testing.assert_allclose(found.covariance, np.cov(features.T), rtol=1e-10)
    with pytest.raises(ValueError, match="at least two"):
        frechet.moments([features[:1]])


def test_a_single_patch_has_no_distance():
    """It is not a number, a dash in a table, and no error after all jobs have run."""
    one, two = np.zeros((8, 8, 3)), np.zeros((9, 8, 3))
    judge = Judge({})
    assert np.isnan(judge.distances([one], [one])["patch_distance"])
    assert judge.distances([two], [two])["patch_distance"] == 0
    assert judge.distances([one, one], [one, one])["patch_distance"] == 0


def test_distances_of_gaussians_are_known():
    """Diagonal ones by hand, scaled ones, rotated ones, and those of rank less than full."""
    m, s, t = np.array([1.0, -2.0, 0.5]), np.array([1.0, 2.0, 0.3]), np.array([0.5, 2.5, 0.0])
    expected = 4 * np.sum(m**2) + np.sum((s - t) ** 2)
    assert frechet_distance(Moments(m, np.diag(s**2)), Moments(-m, np.diag(t**2))) == pytest.approx(expected)
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turned = [Moments(rotation @ a, rotation @ np.diag(b**2) @ rotation.T) for a, b in ((m, s), (-m, t))]
    assert frechet_distance(*turned) == pytest.approx(expected)
    c = np.cov(np.random.default_rng(2).normal(size=(5, 40)))
    assert frechet_distance(Moments(np.zeros(5), c), Moments(np.zeros(5), 4 * c)) == pytest.approx(np.trace(c))
    assert frechet_distance(Moments(m, np.diag(s)), Moments(m, np.diag(s))) == pytest.approx(0, abs=1e-12)
    # Two that do not commute: tr (A B)^1/2 is the sum of the square roots of A B's eigenvalues.
    a, b = (np.cov(np.random.default_rng(i).normal(size=(4, 30))) for i in (3, 4))
    cross = np.sum(np.sqrt(np.linalg.eigvals(a @ b).real))
    zero = np.zeros(4)
    assert frechet_distance(Moments(zero, a), Moments(zero, b)) == pytest.approx(np.trace(a + b) - 2 * cross)


def test_patch_distance_sees_blur_and_noise(photos):
    def of(images):
        return frechet.moments(map(frechet.patches, images))

    blurred = (photos + np.roll(photos, 1, 1) + np.roll(photos, 1, 2)) / 3
    noisy = photos + 0.2 * np.random.default_rng(0).normal(size=photos.shape)
    assert frechet.patches(photos[0]).shape == (25 * 25, 192)
    itself, soft, grainy = (frechet_distance(of(photos), of(a)) for a in (photos, blurred, noisy))
    assert itself < 1e-6 < soft
    # White noise of variance s^2 adds about s^2 to weak components, 192 of them.
    assert soft < grainy < 192 * 0.2**2


def test_networks_have_the_published_sizes():
    """Convolution weights as counted elsewhere: Keras' InceptionV3 and VGG16 without top, torchvision's AlexNet."""
    inception = quality.inception_shapes()
    assert count(inception, "kernel") == 21_751_136
    assert count(inception, "mean") == 17_216
    for backbone, size in (("vgg", 14_714_688), ("alex", 2_469_696)):
        shapes = quality.perceptual_shapes(backbone)
        assert count(shapes, "kernel") + count(shapes, "bias") == size
        assert sum(name.startswith("lin") for name in shapes) == 5


@pytest.mark.parametrize("backbone", BACKBONES)
def test_perceptual_distance_is_one(backbone):
    """Zero for equal images, symmetric, each pair for itself; linear in its weights."""
    network = Perceptual(backbone)
    params = random_params(quality.perceptual_shapes(backbone))
    a, b = jax.random.uniform(jax.random.key(0), (2, 2, 64, 64, 3), minval=-1)
    distance = jax.jit(lambda p, a, b: network.apply({"params": p}, a, b))
    d = distance(params, a, b)
    assert d.shape == (2,)
    assert float(d.min()) > 0
    np.testing.assert_allclose(distance(params, b, a), d, rtol=1e-4)
    np.testing.assert_allclose(distance(params, a[1:], b[1:]), d[1:], rtol=1e-4)
    assert float(jnp.abs(distance(params, a, a)).max()) < 1e-9
    doubled = {k: 2 * v if k.startswith("lin") else v for k, v in params.items()}
    np.testing.assert_allclose(distance(doubled, a, b), 2 * d, rtol=1e-4)


def torch_inception(torch):
    """The network of the published scores, its parts named as in the file."""
    nn, F = torch.nn, torch.nn.functional  # noqa: N806

    class Conv(nn.Module):
        def __init__(self, i, o, k=1, s=1, p=0):
            super().__init__()
            self.conv = nn.Conv2d(i, o, k, s, p, bias=False)
            self.bn = nn.BatchNorm2d(o, eps=0.001)

        def forward(self, x):
            return F.relu(self.bn(self.conv(x)))

    def average(x):
        return F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)

    class Part(nn.Module):
        def chain(self, x, *names):
            for name in names:
                x = getattr(self, name)(x)
            return x

    class A(Part):
        def __init__(self, i, pooled):
            super().__init__()
            self.branch1x1 = Conv(i, 64)
            self.branch5x5_1, self.branch5x5_2 = Conv(i, 48), Conv(48, 64, 5, p=2)
            self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(i, 64), Conv(64, 96, 3, p=1)
            self.branch3x3dbl_3, self.branch_pool = Conv(96, 96, 3, p=1), Conv(i, pooled)

        def forward(self, x):
            five = self.chain(x, "branch5x5_1", "branch5x5_2")
            three = self.chain(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
            return torch.cat([self.branch1x1(x), five, three, self.branch_pool(average(x))], 1)

    class B(Part):
        def __init__(self, i):
            super().__init__()
            self.branch3x3, self.branch3x3dbl_1 = Conv(i, 384, 3, 2), Conv(i, 64)
            self.branch3x3dbl_2, self.branch3x3dbl_3 = Conv(64, 96, 3, p=1), Conv(96, 96, 3, 2)

        def forward(self, x):
            three = self.chain(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
            return torch.cat([self.branch3x3(x), three, F.max_pool2d(x, 3, 2)], 1)

    class C(Part):
        def __init__(self, i, n):
            super().__init__()
            wide, tall = {"k": (1, 7), "p": (0, 3)}, {"k": (7, 1), "p": (3, 0)}
            self.branch1x1, self.branch_pool = Conv(i, 192), Conv(i, 192)
            self.branch7x7_1, self.branch7x7_2, self.branch7x7_3 = Conv(i, n), Conv(n, n, **wide), Conv(n, 192, **tall)
            self.branch7x7dbl_1, self.branch7x7dbl_2 = Conv(i, n), Conv(n, n, **tall)
            self.branch7x7dbl_3, self.branch7x7dbl_4 = Conv(n, n, **wide), Conv(n, n, **tall)
            self.branch7x7dbl_5 = Conv(n, 192, **wide)

        def forward(self, x):
            seven = self.chain(x, "branch7x7_1", "branch7x7_2", "branch7x7_3")
            double = self.chain(x, *(f"branch7x7dbl_{i}" for i in range(1, 6)))
            return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(average(x))], 1)

    class D(Part):
        def __init__(self, i):
            super().__init__()
            self.branch3x3_1, self.branch3x3_2 = Conv(i, 192), Conv(192, 320, 3, 2)
            self.branch7x7x3_1, self.branch7x7x3_2 = Conv(i, 192), Conv(192, 192, (1, 7), p=(0, 3))
            self.branch7x7x3_3, self.branch7x7x3_4 = Conv(192, 192, (7, 1), p=(3, 0)), Conv(192, 192, 3, 2)

        def forward(self, x):
            three = self.chain(x, "branch3x3_1", "branch3x3_2")
            seven = self.chain(x, *(f"branch7x7x3_{i}" for i in range(1, 5)))
            return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)

    class E(Part):
        def __init__(self, i, pool):
            super().__init__()
            wide, tall = {"k": (1, 3), "p": (0, 1)}, {"k": (3, 1), "p": (1, 0)}
            self.pool, self.branch1x1, self.branch_pool = pool, Conv(i, 320), Conv(i, 192)
            self.branch3x3_1, self.branch3x3_2a, self.branch3x3_2b = (
                Conv(i, 384),
                Conv(384, 384, **wide),
                Conv(384, 384, **tall),
            )
            self.branch3x3dbl_1, self.branch3x3dbl_2 = Conv(i, 448), Conv(448, 384, 3, p=1)
            self.branch3x3dbl_3a, self.branch3x3dbl_3b = Conv(384, 384, **wide), Conv(384, 384, **tall)

        def forward(self, x):
            three, double = self.branch3x3_1(x), self.chain(x, "branch3x3dbl_1", "branch3x3dbl_2")
            parts = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
            parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(self.pool(x))]
            return torch.cat(parts, 1)

    class Copy(nn.Module):
        def __init__(self):
            super().__init__()
            self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = Conv(3, 32, 3, 2), Conv(32, 32, 3)
            self.Conv2d_2b_3x3, self.Conv2d_3b_1x1 = Conv(32, 64, 3, p=1), Conv(64, 80)
            self.Conv2d_4a_3x3 = Conv(80, 192, 3)
            self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a = A(192, 32), A(256, 64), A(288, 64), B(288)
            self.Mixed_6b, self.Mixed_6c, self.Mixed_6d = C(768, 128), C(768, 160), C(768, 160)
            self.Mixed_6e, self.Mixed_7a, self.Mixed_7b = C(768, 192), D(768), E(1280, average)
            self.Mixed_7c = E(2048, lambda x: F.max_pool2d(x, 3, 1, 1))

        def forward(self, x):
            x = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
            x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
            x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2))), 3, 2)
            for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
                x = getattr(self, f"Mixed_{name}")(x)
            return x.mean((2, 3))

    return Copy().eval()


def shaken_state(torch, module):
    """The module's state dictionary with every array drawn anew, so that nothing is at its default."""
    generator, state = torch.Generator().manual_seed(0), {}
    for name, array in module.state_dict().items():
        if array.dtype.is_floating_point:
            fresh = torch.rand(array.shape, generator=generator)
            fans = array[0].numel() if array.ndim == 4 else 1
            state[name] = (fresh - 0.5) * (24 / fans) ** 0.5 if array.ndim == 4 else 0.5 + fresh
    module.load_state_dict(state, strict=False)
    return {name: array.numpy() for name, array in state.items()}


def test_inception_is_the_one_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch (pip install cvsa_jax[torch])")
    copy = torch_inception(torch)
    state = shaken_state(torch, copy)
    torch.save(copy.state_dict(), tmp_path / "inception.pth")
    image = np.random.default_rng(0).uniform(-1, 1, (2, 64, 48, 3)).astype(np.float32)
    with torch.no_grad():
        expected = copy(torch.tensor(image.transpose(0, 3, 1, 2))).numpy()
    params = quality.load_inception(tmp_path / "inception.pth")
    found = np.asarray(Inception().apply({"params": params}, image))
    assert found.shape == (2, FEATURES)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3 * np.abs(expected).max())
    del state["Mixed_6c.branch7x7_2.bn.running_var"]
    with pytest.raises(ValueError, match=r"Mixed_6c.branch7x7_2.bn.running_var is missing"):
        quality.convert_inception(state)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_perceptual_distance_is_the_one_of_pytorch(backbone, tmp_path):
    torch = pytest.importorskip("torch", reason="needs PyTorch (pip install cvsa_jax[torch])")
    nn = torch.nn
    if backbone == "alex":
        layers = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(),
                  nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(), nn.Conv2d(384, 256, 3, 1, 1),
                  nn.ReLU(), nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2)]  # fmt: skip
        taps = (1, 4, 7, 9, 11)
    else:
        layers, i = [], 3
        for o in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
            layers += [nn.Conv2d(i, o, 3, 1, 1), nn.ReLU()] if o else [nn.MaxPool2d(2, 2)]
            i = o or i
        taps = (3, 8, 15, 22, 29)
    classifier = nn.Module()
    classifier.features = nn.Sequential(*layers)
    shaken_state(torch, classifier)
    a, b = (np.random.default_rng(i).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32) for i in range(2))
    widths, expected, linear = [64, 192, 384, 256, 256] if backbone == "alex" else [64, 128, 256, 512, 512], 0.0, {}
    with torch.no_grad():
        x, y = (torch.tensor(((i - np.array(SHIFT)) / np.array(SCALE)).transpose(0, 3, 1, 2)).float() for i in (a, b))
        for number, layer in enumerate(classifier.features):
            x, y = layer(x), layer(y)
            if number in taps:
                level = taps.index(number)
                weight = torch.rand(1, widths[level], 1, 1)
                linear[f"lin{level}.model.1.weight"] = weight
                p, q = (i / (i.norm(dim=1, keepdim=True) + 1e-10) for i in (x, y))
                expected = expected + nn.functional.conv2d((p - q) ** 2, weight).mean((1, 2, 3))
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    torch.save(linear, tmp_path / "linear.pth")
    name, params = quality.load_perceptual(f"{tmp_path / 'classifier.pth'},{tmp_path / 'linear.pth'}")
    assert name == backbone
    found = Perceptual(backbone).apply({"params": params}, a, b)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3)
    arrays.save_tree(tmp_path / "all.npz", params)
    assert quality.load_perceptual(str(tmp_path / "all.npz"))[0] == backbone


def test_files_of_other_networks_are_refused(tmp_path):
    arrays.save_tree(tmp_path / "a.npz", {"lin0": np.ones(3)})
    with pytest.raises(ValueError, match=r"not the weights of LPIPS \(vgg\)"):
        quality.load_perceptual(str(tmp_path / "a.npz"))
    with pytest.raises(ValueError, match="not the weights of Inception"):
        quality.load_inception(tmp_path / "a.npz")
    with pytest.raises(ValueError, match="cannot read"):
        quality.load_inception(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="two PyTorch files"):
        quality.load_perceptual("a.pth")
    with pytest.raises(ValueError, match=r"features.0.bias is missing"):
        quality.convert_perceptual({}, {}, "alex")
