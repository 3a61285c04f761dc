"""EDM's networks from their own files: what the official code recorded, and what plain NumPy makes of other options."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_networks import Edm, first, last, rms
from scipy.signal import upfirdn

from cvsa_jax.importers import edm
from cvsa_jax.importers.formats import find_format
from cvsa_jax.importers.source import Source, read_source, state_of
from cvsa_jax.models.dhariwal_unet import DhariwalUNet
from cvsa_jax.models.fir import double, halve
from cvsa_jax.models.song_unet import SongUNet
from cvsa_jax.networks import build_prior
from cvsa_jax.parameterizations.edm import DEFAULTS, FORMS, limits

RECORDED = pathlib.Path(__file__).parent / "fixtures" / "edm_ve"
PICKLE = RECORDED / "baseline-cifar10-32x32-uncond-ve.pkl"
NCSNPP = {"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2,
          "resample_filter": [1, 3, 3, 1]}  # fmt: skip
SIDE, LEVELS = 8, 40
# By name: the preconditioner's class, the network's arguments, the noise levels to try.
VARIANTS = {
    "ddpmpp": ("VPPrecond", {"model_type": "SongUNet", "label_dim": 3, "augment_dim": 2, "attn_resolutions": [8, 4],
                             "beta_d": 15.0, "M": 500}, [0.02, 0.5, 30.0]),
    "ncsnpp": ("VEPrecond", {**NCSNPP, "num_blocks": 2, "attn_resolutions": [4]}, [0.03, 1.0, 90.0]),
    "both pyramids": ("EDMPrecond", {"model_type": "SongUNet", "encoder_type": "skip", "decoder_type": "skip",
                                     "img_channels": 1, "resample_filter": [1, 2, 5, 4, 2, 1], "attn_resolutions": [],
                                     "channel_mult": [2, 1]}, [0.003, 0.4, 70.0]),
    "two heads": ("iDDPMPrecond", {"model_channels": 32, "channel_mult": [1, 4], "attn_resolutions": [4],
                                   "label_dim": 2, "M": LEVELS}, [0.001, 0.5, 300.0]),
    "narrower than a head": ("EDMPrecond", {"channel_mult": [2, 1], "attn_resolutions": [8, 4], "augment_dim": 9,
                                            "sigma_data": 0.7, "channel_mult_emb": 2, "sigma_min": 0.01,
                                            "sigma_max": 50.0}, [0.02, 0.7, 40.0]),
}  # fmt: skip


denoise = jax.jit(lambda prior, x, sigma: prior.denoise(x, sigma))
denoise_each = jax.jit(lambda prior, x, sigma: jax.vmap(lambda x: prior.denoise(x, sigma))(x))


def table(count: int, small: float = 0.001, shift: float = 0.008) -> np.ndarray:
    """The noise levels of iDDPM's steps, the last of them zero, by EDM's recursion (table 1)."""
    kept = np.sin(np.pi / 2 * np.arange(count + 1) / count / (shift + 1)) ** 2
    u = np.zeros(count + 1)
    for j in range(count, 0, -1):
        u[j - 1] = np.sqrt((u[j] ** 2 + 1) / max(kept[j - 1] / kept[j], small) - 1)
    return u


def made(name):
    """(source, reference network) of a variant."""
    class_name, arguments, _ = VARIANTS[name]
    song = class_name in ("VPPrecond", "VEPrecond") or arguments.get("model_type") == "SongUNet"
    usual = {"img_resolution": SIDE, "img_channels": 3, "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1}
    arguments = usual | {"dropout": 0.1, "use_fp16": False} | arguments
    outputs = arguments["img_channels"] * (2 if class_name == "iDDPMPrecond" else 1)
    network = Edm(**{"model_type": "SongUNet" if song else "DhariwalUNet", **arguments}, out_channels=outputs)
    network(np.zeros((arguments["img_channels"], SIDE, SIDE)), 1.0)
    state = dict(network.weights.state)
    state |= {"u": table(LEVELS).astype(np.float32)} if class_name == "iDDPMPrecond" else {}
    record = {"class_name": f"training.networks.{class_name}", "init_kwargs": arguments, "init_args": []}
    return Source(pathlib.Path("state_dict.pt"), state, {edm.ARGUMENTS: record}), network


def reference(class_name, arguments, network, x, s, chosen):
    """D(x; s) by table 1 of EDM's paper; a network of discrete steps is asked for one of its own, not for u_M = 0."""
    d = arguments.get("sigma_data", 0.5)
    beta, least, steps = arguments.get("beta_d", 19.9), arguments.get("beta_min", 0.1), arguments.get("M", 1000)
    t = (np.sqrt(least**2 + 2 * beta * np.log(1 + s**2)) - least) / beta
    unit = 1 / np.sqrt(1 + s**2)
    skip, out, scale, label = {
        "EDMPrecond": (d**2 / (s**2 + d**2), s * d / np.sqrt(s**2 + d**2), 1 / np.sqrt(s**2 + d**2), np.log(s) / 4),
        "VPPrecond": (1, -s, unit, (steps - 1) * t),
        "VEPrecond": (1, s, 1, np.log(s / 2)),
        "iDDPMPrecond": (1, -s, unit, steps - 1 - np.argmin(np.abs(table(LEVELS)[:-1] - s))),
    }[class_name]
    return skip * x + out * network(scale * x, float(label), chosen)[: len(x)]


@pytest.fixture(scope="module")
def recorded():
    return edm.convert(read_source(PICKLE), edm.Options()), np.load(RECORDED / "io.npz")


def test_the_official_code_gives_the_same(recorded):
    """Of NCSN++ with a Fourier embedding, whose own float32 noise is 5e-6 of about 0.5."""
    (spec, params, notes, *_), io = recorded
    assert (spec.parameterization, spec.highest_noise, notes) == ("edm_ve", 100.0, [])
    apply = jax.jit(spec.build("float32").apply)
    out = [apply(params, last(io["x"]), jnp.full(2, label)) for label in io["noise_labels"]]
    assert rms(first(out) - io["out64"]) < 1e-5
    prior = build_prior(spec, params)
    for y, sigma, want in zip(io["y"], io["sigma"], io["D"], strict=True):
        assert rms(first(denoise_each(prior, last(y), sigma)) - want) < 2e-6 * max(1, sigma)


def test_a_state_dictionary_beside_its_arguments_is_the_pickle(recorded, tmp_path):
    network = read_source(PICKLE).tree["ema"]
    source = Source(tmp_path / "state_dict.pt", state_of(read_source(PICKLE)), {})
    assert find_format(source) == find_format(read_source(PICKLE)) == "edm"
    with pytest.raises(ValueError, match=r"init_kwargs\.json must lie beside it"):
        edm.convert(source, edm.Options())
    record = {"class_name": network.class_name, "init_kwargs": network.init_kwargs}
    (tmp_path / edm.ARGUMENTS).write_text(json.dumps(record))
    again = edm.convert(source, edm.Options())
    assert again.spec == recorded[0].spec
    assert jax.tree.all(jax.tree.map(np.array_equal, again.params, recorded[0].params))


@pytest.mark.parametrize("name", VARIANTS)
def test_other_networks_and_preconditioners(name):
    class_name, arguments, sigmas = VARIANTS[name]
    source, network = made(name)
    spec, params, notes, *_ = edm.convert(source, edm.Options())
    assert any("map_augment" in note for note in notes) == ("augment_dim" in arguments)
    chosen = 1 if spec.classes else None
    prior = build_prior(spec, params, class_label=chosen)
    rng = np.random.default_rng(1)
    for sigma in sigmas:
        x = 0.5 * rng.normal(size=(spec.image_channels, SIDE, SIDE))
        x = x + sigma * rng.normal(size=x.shape)
        want = reference(class_name, arguments, network, x, sigma, chosen)
        assert rms(first(denoise(prior, last(x), sigma)) - want) < 8e-6 * max(1, sigma), sigma  # of a label of hundreds
    if name == "ddpmpp":  # no class is no row of the layer, not the first one
        x = rng.normal(size=(3, SIDE, SIDE))
        out = jax.jit(spec.build("float32").apply)(params, last(x)[None], jnp.ones(1))
        assert rms(first(out)[0] - network(x, 1.0)) < 3e-6
        assert rms(network(x, 1.0, 0) - network(x, 1.0)) > 1e-2


@pytest.mark.parametrize("name", ["edm", "edm_vp", "edm_ve"])
def test_beyond_its_range_a_network_is_told_the_end_and_the_formula_keeps_sigma(name):
    low, high = limits(name, {})
    form = jax.jit(lambda s: FORMS[name](DEFAULTS[name], s, None))
    below, least, most, above = (form(jnp.float32(s)) for s in (low / 9, low, high, 1e12))
    np.testing.assert_allclose([below.label, above.label], [least.label, most.label], rtol=1e-6)
    assert np.isfinite([*below, *above]).all()
    assert abs(above.out) == pytest.approx(0.5 if name == "edm" else 1e12, rel=1e-6)


def test_the_label_of_a_variance_preserving_network_is_its_time():
    """Through the whole range, at low noise too, where log(1 + s^2) of float32 has no digits."""
    sigma = np.geomspace(0.0011, 150, 50)
    label = jax.vmap(lambda s: FORMS["edm_vp"](DEFAULTS["edm_vp"], s, None).label)(jnp.float32(sigma))
    t = np.asarray(label, np.float64) / 999
    np.testing.assert_allclose(np.sqrt(np.expm1(19.9 * t**2 / 2 + 0.1 * t)), sigma, rtol=2e-5)


def test_a_network_of_discrete_steps_is_told_one_of_its_own():
    """0, ..., M - 1 at every noise, each at its own level: below the least u_{M-1} that one, and not u_M = 0."""
    levels = jnp.array([80.0, 9.0, 1.0, 0.1, 0.006, 0.0])
    form = jax.jit(lambda s: FORMS["edm_iddpm"]({}, s, {"params": {"levels_of_noise": levels}}))
    assert [float(form(s).label) for s in levels[:-1]] == [4, 3, 2, 1, 0]
    assert {float(form(jnp.float32(s)).label) for s in (0.0, 1e-5, 6e-4, 2.9e-3)} == {0}
    assert float(form(jnp.float32(1e12)).label) == 4


def test_faults_in_a_file_are_named():
    source, _ = made("ddpmpp")
    record = source.config[edm.ARGUMENTS]

    def refused(message, state=None, options=None, **changes):
        config = {edm.ARGUMENTS: {**record, **changes}}
        with pytest.raises(ValueError, match=message):
            edm.convert(Source(source.path, state or source.tree, config), options or edm.Options())

    arguments = record["init_kwargs"]
    refused("must be one of EDMPrecond.*did you mean VPPrecond", class_name="training.networks.VPPrecon")
    refused("no argument 'num_block'; did you mean num_blocks", init_kwargs={**arguments, "num_block": 2})
    refused("model_type must be one of", init_kwargs={**arguments, "model_type": "VGG"})
    refused("encoder must be one of", init_kwargs={**arguments, "encoder_type": "other"})
    refused("img_resolution must be a whole number", init_kwargs={**arguments, "img_resolution": "8"})
    refused("model_channels must be a whole number from 1 to", init_kwargs={**arguments, "model_channels": 10**9})
    refused("more blocks than the", init_kwargs={**arguments, "num_blocks": 4000})
    refused("there is no song_unet with", init_kwargs={**arguments, "model_channels": 3})
    refused("class and its arguments by name", init_args=[8])
    refused("sigma_max of this network follows from its own", options=edm.Options(sigma_max=9.0))
    rest = dict(source.tree)
    del rest["model.enc.4x4_down.conv0.weight"]
    refused(r"missing: model\.enc\.4x4_down\.conv0\.weight", state=rest)
    refused(r"not known: model\.other", state={**source.tree, "model.other": np.zeros(2)})
    wrong = {**source.tree, "model.map_layer0.weight": np.zeros((3, 3), np.float32)}
    refused(r"of another shape: model\.map_layer0\.weight", state=wrong)


def test_a_range_of_noise_can_be_told():
    source, _ = made("narrower than a head")
    assert edm.convert(source, edm.Options()).spec.highest_noise == 50.0
    told = edm.convert(source, edm.Options(sigma_min=0.1, sigma_max=20.0)).spec
    assert (told.constants["sigma_min"], told.highest_noise) == (0.1, 20.0)
    with pytest.raises(ValueError, match="must be below the largest"):
        edm.convert(source, edm.Options(sigma_min=60.0))
    source.config[edm.ARGUMENTS]["init_kwargs"].update(sigma_min=0.0, sigma_max=float("inf"))
    assert edm.convert(source, edm.Options()).spec.highest_noise == 80.0  # of EDM's own sampler


@pytest.mark.parametrize(("module", "channels", "millions"), [
    (SongUNet(), 3, 61.8),  # ffhq and afhqv2, vp
    (SongUNet(channel_mult_noise=2, embedding="fourier", encoder="residual", taps=(1, 3, 3, 1)), 3, 62.8),
    (SongUNet(channel_mult=(2, 2, 2), attention=(1,)), 3, 55.7),  # cifar10
    (SongUNet(channel_mult=(2, 2, 2), attention=(1,), channel_mult_noise=2, embedding="fourier", encoder="residual"),
     3, 56.4),
    (DhariwalUNet(classes=1000), 3, 295.9),  # imagenet
])  # fmt: skip
def test_published_networks_have_their_number_of_parameters(module, channels, millions):
    image = jax.ShapeDtypeStruct((1, 64, 64, channels), np.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), image, jax.ShapeDtypeStruct((1,), np.float32))
    assert round(sum(a.size for a in jax.tree.leaves(params)) / 1e6, 1) == millions


@pytest.mark.parametrize("taps", [(1, 1), (1, 3, 3, 1), (1, 2, 5, 4, 2, 1)])
def test_resampling(taps):
    """Down is SciPy's filter at every second pixel; up is its transpose; a constant stays one."""
    rng, count, p = np.random.default_rng(0), len(taps), (len(taps) - 1) // 2
    x, y = (rng.normal(size=(2, *sides, 3)).astype(np.float32) for sides in ((8, 6), (4, 3)))
    want, gain = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0))), np.array(taps[::-1]) / sum(taps)
    for axis in (1, 2):
        every_second = np.arange(count - 1, want.shape[axis], 2)
        want = np.take(upfirdn(gain, want, axis=axis), every_second, axis)
    down, up = jax.jit(lambda x, y: (halve(x, taps), double(y, taps)))(x, y)
    np.testing.assert_allclose(down, want, atol=1e-6)
    assert np.vdot(up, x) == pytest.approx(4 * np.vdot(y, down), rel=1e-4)
    flat = halve(jnp.ones((1, 12, 12, 1)), taps)[0, 1:-1, 1:-1]
    np.testing.assert_allclose(flat, 1, atol=1e-6)
    with pytest.raises(ValueError, match="an even number of taps"):
        halve(jnp.asarray(x), (1, 2, 1))


def test_the_shortest_filter_is_the_mean_and_the_nearest_pixel():
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 2)).astype(np.float32)
    np.testing.assert_allclose(halve(jnp.asarray(x)), x.reshape(1, 2, 2, 3, 2, 2).mean((2, 4)), atol=1e-6)
    np.testing.assert_array_equal(double(jnp.asarray(x)), x.repeat(2, 1).repeat(2, 2))


def test_blocks_may_be_computed_twice():
    """The same parameters by name, the same value, the same finite slopes."""
    for module in (DhariwalUNet(32, (1, 4), 1, (1,), classes=2), SongUNet(8, (1, 2), encoder="residual")):
        shapes = [jax.eval_shape(m.init, jax.random.key(0), jnp.ones((1, SIDE, SIDE, 3)), jnp.ones(1))
                  for m in (module, module.clone(remat=True))]  # fmt: skip
        assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])
    module = SongUNet(8, (2,), 0, embedding="fourier", classes=2)
    x, label = jax.random.normal(jax.random.key(0), (2, SIDE, SIDE, 3)), jnp.array([-0.3, 0.4])
    rng, shapes = np.random.default_rng(1), jax.eval_shape(module.init, jax.random.key(1), x, label)
    params = jax.tree.map(lambda a: 0.3 * rng.normal(size=a.shape).astype(np.float32), shapes)

    def slope(network):
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(jnp.sin(network.apply(params, x, label)))))(x)

    (value, gradient), (same, gradient_again) = slope(module), slope(module.clone(remat=True))
    assert float(value) == pytest.approx(float(same), rel=1e-5)
    assert bool(jnp.isfinite(gradient).all())
    np.testing.assert_allclose(gradient, gradient_again, atol=1e-5 * float(jnp.abs(gradient).max()))


def test_another_pyramid_is_refused():
    with pytest.raises(ValueError, match="encoder must be one of standard, residual"):
        SongUNet(encoder="other")
