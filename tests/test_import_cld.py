"""CLD-SGM's networks from their checkpoints: what the official code recorded, other options, and the diffusion."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published_networks import CldSgm, first, last, rms

from cvsa_jax import CLD, Gaussian, prior_from_denoiser
from cvsa_jax.importers import cld_sgm as importer
from cvsa_jax.importers.formats import find_format
from cvsa_jax.importers.source import Source
from cvsa_jax.models.song_unet import SongUNet
from cvsa_jax.networks import build_prior
from cvsa_jax.parameterizations import cld_sgm
from cvsa_jax.priors import coefficients
from cvsa_jax.samplers.base import to_device

RECORDED = pathlib.Path(__file__).parent / "fixtures" / "cld_sgm"
SIDE = 8
CIFAR = {"n_channels": 8, "ch_mult": [1, 2], "n_resblocks": 1, "attn_resolutions": [4], "use_fir": True,
         "embedding_type": "fourier", "progressive_input": "residual"}  # fmt: skip
# By name: the network's settings, and what the file does not tell of them.
VARIANTS = {
    "celeba": ({**CIFAR, "use_fir": False, "embedding_type": "positional", "progressive_input": "none",
                "n_resblocks": 2}, {}),
    "filtered": ({**CIFAR, "embedding_type": "positional", "progressive_input": "none", "ch_mult": [2, 1]},
                 {"use_fir": True}),
    "strided": ({**CIFAR, "use_fir": False, "skip_rescale": False, "attn_resolutions": [8]}, {"skip_rescale": False}),
    "both pyramids": ({**CIFAR, "progressive_input": "input_skip", "progressive": "output_skip"}, {}),
    "one level": ({**CIFAR, "ch_mult": [1], "attn_resolutions": [8]}, {}),
}  # fmt: skip


def checkpoint(averages, changed=0.5) -> Source:
    """A training state whose last weights are others than the averages."""
    shadow = [a for name, a in averages.items() if not name.endswith(".0.W")]
    model = {name: a if name.endswith(".0.W") else a + np.float32(changed) for name, a in averages.items()}
    ema = {"decay": 0.9999, "num_updates": 9, "shadow_params": shadow}
    return Source(pathlib.Path("checkpoint_9.pth"), {"optimizer": {}, "model": model, "ema": ema, "step": 9}, {})


def made(settings):
    """(source, reference network) of a variant."""
    network = CldSgm(**settings)
    network(np.zeros((6, SIDE, SIDE)), 0.5)
    return checkpoint(dict(network.weights.state)), network


def their_covariance(t, beta0, beta1, m_inv, gamma, epsilon):
    """(S^xx, S^xv, S^vv) of CLD-SGM, appendix B.1 of its paper."""
    b, g, v = beta0 * t + beta1 * t**2 / 2, m_inv**0.5 / 2, gamma / m_inv
    e, f = np.exp(4 * b * g), 1 / g
    xx = e - 1 - 4 * b * g - 8 * b**2 * g**2 + 16 * g**4 * b**2 * v
    xv = 4 * g**2 * b * v + 4 * g * b**2 - 8 * g**3 * b**2 * v
    vv = f**2 * (e - 1) / 4 + f * b - 4 * g * b * v + 4 * g**2 * b**2 * v + v - 2 * b**2
    return xx / e + epsilon, xv / e, vv / e + epsilon


def at(cld, t):
    return jax.tree.map(to_device, coefficients(cld, t))


@pytest.fixture(scope="module")
def recorded():
    with np.load(RECORDED / "ema.npz") as archive:
        source = checkpoint({name: archive[name] for name in archive.files})
    return importer.convert(source, importer.Options(image_size=16)), np.load(RECORDED / "io.npz")


def test_the_official_code_gives_the_same(recorded):
    """With the averages; the official float32 noise is 1e-5 of outputs of about 0.7."""
    (spec, params, notes, *_), io = recorded
    assert spec.cld == CLD() and spec.parameterization == "cld_sgm"
    assert notes == ["not in the file, taken as published of its kind: beta0=4,beta1=0,numerical_eps=1e-09 (--options)"]
    network = spec.network("float32")
    apply = jax.jit(network)
    u = last(io["u"])
    for i, t in enumerate(io["t"]):
        assert rms(first(apply(params, u, jnp.full(2, jnp.float32(t)))) - io["out_ema64"][i]) < 3e-5
    x, v = jnp.split(u, 2, -1)

    @jax.jit
    def scores(c):
        def each(mixed):
            constants = {**spec.constants, "mixed_score": mixed}
            return jax.vmap(lambda x, v: cld_sgm.velocity_score(constants, network, params, x, v, c))(x, v)

        return each(True), each(False)

    prior = build_prior(spec, params)
    for i, t in enumerate(io["t"]):
        c = at(spec.cld, t)
        score, alone = scores(c)
        assert rms(first(score) - io["score"][i]) < 3e-5 * rms(io["score"][i])
        assert rms(first(alone) - io["score_not_mixed"][i]) < 5e-5 * rms(io["score_not_mixed"][i])
        assert float(cld_sgm.noise_multiplier(c, 1e-9)) == pytest.approx(-io["noise_multiplier"][i], rel=1e-6)
        assert spec.cld.covariance(t)[1, 1] + 1e-9 == pytest.approx(io["var_vv_mixed"][i], rel=1e-7)
        # The prior keeps E[x_0 | u_t]; of a u that no image has, the terms of the score are then far larger than it.
        again = prior.velocity_score(x[0], v[0], float(t))
        assert rms(again - score[0]) < 2e-6 * (rms(score) + float(abs(c.precision_xv)) * rms(x))
        # The flow whose marginals are theirs, by our signs: half the score, reversed.
        b, m, g = spec.cld.beta, spec.cld.mass, spec.cld.damping
        drift = np.concatenate([-b / m * v, b * x + g * b / m * v + g * b * score], -1)
        assert rms(first(drift) - io["reverse_drift_at_1mt"][i]) < 3e-5 * rms(drift)


@pytest.mark.parametrize("name", VARIANTS)
def test_other_networks(name):
    settings, options = VARIANTS[name]
    source, network = made(settings)
    assert find_format(source) == "cld_sgm"
    spec, params, *_ = importer.convert(source, importer.Options(image_size=SIDE, **options))
    apply = jax.jit(spec.build("float32").apply)
    u = np.random.default_rng(1).normal(size=(6, SIDE, SIDE))
    for t in (1e-3, 0.6):
        out = first(apply(params, last(u)[None], jnp.full(1, jnp.float32(t))))[0]
        assert rms(out - network(u, t)) < 5e-6


@pytest.mark.parametrize(("beta0", "beta1", "m_inv", "gamma", "epsilon"), [
    (4.0, 0.0, 4.0, 0.04, 1e-9), (0.1, 6.9, 4.0, 0.04, 1e-6), (9.0, -8.0, 2.0, 0.3, 1e-4),
])  # fmt: skip
def test_their_diffusion_is_ours_at_another_time(beta0, beta1, m_inv, gamma, epsilon):
    cld = CLD(1 / m_inv, None, cld_sgm.mean_rate(beta0, beta1), gamma)
    for theirs in (2e-3, 0.05, 0.3, 1.0):
        ours = (beta0 * theirs + beta1 * theirs**2 / 2) / cld.beta
        assert float(cld_sgm.their_time(jnp.float32(ours), beta0, beta1)) == pytest.approx(theirs, rel=1e-5)
        xx, xv, vv = their_covariance(theirs, beta0, beta1, m_inv, gamma, epsilon)
        want = np.array([[xx - epsilon, xv], [xv, vv - epsilon]])
        np.testing.assert_allclose(cld.covariance(ours), want, atol=1e-12)
        multiplier = (xx / (xx * vv - xv**2)) ** 0.5
        assert float(cld_sgm.noise_multiplier(at(cld, ours), epsilon)) == pytest.approx(multiplier, rel=1e-5)


@pytest.mark.parametrize("mixed", [True, False])
def test_the_network_of_a_gaussian_is_its_posterior_mean(mixed):
    """alpha by its definition from the exact score, at their time, gives E[x_0 | u_t] of our own denoiser.

    At the end of the diffusion d_t is -0.005, and float32's last digit of the score 2e-5 of that mean.
    """
    constants = {"beta0": 0.5, "beta1": 6.0, "numerical_eps": 1e-7, "mixed_score": mixed}
    cld = CLD(0.25, None, cld_sgm.mean_rate(0.5, 6.0), 0.04)
    exact = prior_from_denoiser(Gaussian(jnp.float32(0.2), jnp.float32(0.09)), cld)
    x, v = 0.4 * jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    for theirs in (0.1, 0.4, 1.0):
        ours = (0.5 * theirs + 3.0 * theirs**2) / cld.beta
        xx, xv, vv = their_covariance(theirs, 0.5, 6.0, 4.0, 0.04, 1e-7)
        total = exact.velocity_score(x, v, ours) + (v / vv if mixed else 0.0)
        alpha = -total / (xx / (xx * vv - xv**2)) ** 0.5
        told = []

        def network(params, u, t, alpha=alpha, told=told):
            told.append(float(t[0]))
            return params * alpha[None]

        spec = type("Spec", (), {"constants": constants})()
        prior = cld_sgm.CLD_SGM.prior(spec, network, jnp.float32(1.0), cld)
        np.testing.assert_allclose(prior.posterior_mean(x, v, ours), exact.posterior_mean(x, v, ours), atol=1e-4)
        assert told == [pytest.approx(theirs, rel=1e-5)]


def test_such_a_prior_has_its_own_diffusion(recorded):
    (spec, params, *_), _ = recorded
    with pytest.raises(ValueError, match="was trained with"):
        build_prior(spec, params, CLD(beta=8.0))


def test_what_the_file_does_not_tell():
    """The published networks: by the embedding and the number of blocks; what is told goes before."""
    source, _ = made(VARIANTS["celeba"][0])
    plain = importer.convert(source, importer.Options())
    assert (plain.spec.constants["beta0"], plain.spec.constants["numerical_eps"]) == (4.0, 1e-6)
    assert plain.spec.options["taps"] == (1, 1)
    assert plain.spec.image_size == 32  # whose second level has a side of 16
    four, _ = made({**VARIANTS["celeba"][0], "n_resblocks": 4, "ch_mult": [1]})
    spec = importer.convert(four, importer.Options()).spec
    assert (spec.constants["beta0"], spec.constants["beta1"]) == (0.1, 6.9)
    assert spec.cld == CLD(beta=0.1 + 6.9 / 2)
    told = importer.convert(four, importer.Options(beta0=8.0, m_inv=2.0, gamma=0.1, numerical_eps=0.0)).spec
    assert told.cld == CLD(0.5, None, 8.0, 0.1)
    assert (told.constants["beta1"], told.constants["numerical_eps"]) == (0.0, 0.0)


def test_the_last_weights_are_others():
    source, network = made(CIFAR)
    averages, trained = (importer.convert(source, importer.Options(weights=w)).params for w in importer.WEIGHTS)
    assert not np.array_equal(averages["params"]["out0_conv"]["bias"], trained["params"]["out0_conv"]["bias"])
    frequency = network.weights.state["module.all_modules.0.W"]  # no average has it
    for params in (averages, trained):
        np.testing.assert_array_equal(params["params"]["embedding"]["frequency"], frequency)


def test_faults_in_a_file_are_named():
    source, _ = made(CIFAR)
    tree = source.tree

    def refused(message, options=None, **changes):
        with pytest.raises(ValueError, match=message):
            importer.convert(source._replace(tree={**tree, **changes}), options or importer.Options())

    shadow = tree["ema"]["shadow_params"]
    refused("no moving averages", ema={})
    refused(f"{len(shadow) - 1} moving averages of {len(shadow)}", ema={"shadow_params": shadow[:-1]})
    refused(r"the average of module\.all_modules\.1\.weight is", ema={"shadow_params": shadow[::-1]})
    model = importer.Options(weights="model")
    less = {k: a for k, a in tree["model"].items() if ".all_modules.9." not in k}
    refused(r"all_modules\.9\) is missing", model, model=less)
    refused("is no part of a layer", model, model={**tree["model"], "sigmas": np.zeros(3)})
    less = {k: a for k, a in tree["model"].items() if not k.endswith("all_modules.4.Dense_0.bias")}
    refused(r"missing: all_modules\.4\.Dense_0\.bias", model, model=less)
    refused(
        r"not known: all_modules\.4\.other", model, model={**tree["model"], "module.all_modules.4.other": np.zeros(2)}
    )
    grey = {**tree["model"], "module.all_modules.3.weight": np.zeros((8, 3, 3, 3), np.float32)}
    refused("takes 3 channels and gives 3: a velocity network takes twice", model, model=grey)
    swapped = {k.replace("modules.8.", "modules.T.").replace("modules.7.", "modules.8.").replace("T", "7"): a
               for k, a in tree["model"].items()}  # fmt: skip
    refused(r"all_modules\.7 is of the kind 'attention', where 'block' was expected", model, model=swapped)
    refused("use_fir is False, but the pyramid", importer.Options(use_fir=False))
    refused("must be positive between 0 and 1", importer.Options(beta0=1.0, beta1=-3.0))


@pytest.mark.parametrize(("module", "millions"), [
    (SongUNet(num_blocks=8, attention=(1,), channel_mult_noise=2, embedding="log_fourier", encoder="residual",
              taps=(1, 3, 3, 1)), 107.6),
    (SongUNet(channel_mult=(1, 1, 2, 2, 2, 2, 2), num_blocks=2, attention=(4,)), 65.5),
    (SongUNet(channel_mult=(1, 1, 2, 2, 2, 2, 2), num_blocks=4, attention=(4,)), 103.1),
])  # fmt: skip
def test_published_networks_have_their_number_of_parameters(module, millions):
    """CIFAR-10, and both for CelebA-HQ."""
    shapes = jax.ShapeDtypeStruct((1, 64, 64, 6), np.float32), jax.ShapeDtypeStruct((1,), np.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), *shapes)
    assert round(sum(a.size for a in jax.tree.leaves(params)) / 1e6, 1) == millions
