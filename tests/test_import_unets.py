"""ADM's, DDPM's and diffusers' networks give what the official code gives, and nothing else is taken for one of them.

`fixtures/unets.npz` has the outputs of guided-diffusion's UNetModel and of UNet2DModel of diffusers 0.42.1 in float64,
for the weights that `weight` makes of the names and shapes in `fixtures/unets.json`.
"""

import functools
import json
import math
import pathlib
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax.descriptions import spec_from_json, spec_to_json
from cvsa_jax.importers import adm, ddpm, diffusers, epsilon
from cvsa_jax.importers.arrays import shapes_of
from cvsa_jax.importers.source import Source
from cvsa_jax.models.epsilon_unet import EpsilonUNet
from cvsa_jax.networks import NetworkSpec, build_prior
from cvsa_jax.parameterizations.epsilon import kept_of
from cvsa_jax.priors import denoiser_of

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
TOLD = json.loads((FIXTURES / "unets.json").read_text())
OFFICIAL = np.load(FIXTURES / "unets.npz")
FORMATS = {"adm": adm, "ddpm": ddpm, "diffusers": diffusers}
SCHEDULER = {"_class_name": "DDPMScheduler", "beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
BLOCK = {"norm1": 0, "conv1": 3, "temb_proj": 2, "norm2": 0, "conv2": 3, "nin_shortcut": 1}
ADM_NAMES = ("in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3", "skip_connection")
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
CELEBA = {"channels": 128, "multiples": (1, 1, 2, 2, 4, 4), "blocks": 2, "attend": (4,)}
CIFAR = {"channels": 128, "multiples": (1, 2, 2, 2), "blocks": 2, "attend": (1,)}


def uniform(name, shape):
    """In [-1, 1), the same with every version of NumPy."""
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(math.prod(shape))
    return ((raw >> 11) * 2.0**-52 - 1).reshape(shape)


def weight(name, shape):
    u = uniform(name, shape)
    if len(shape) == 1:
        return (1 + u / 2 if name.endswith("weight") else 0.3 * u).astype(np.float32)
    return (u * (3 / math.prod(shape[1:])) ** 0.5).astype(np.float32)


X = np.moveaxis(2 * uniform("x", (2, 3, 8, 8)), 1, -1).astype(np.float32)
T, CLASSES = np.float32([37.25, 861]), np.int32([1, 3])


def source(case):
    told = TOLD[case]
    state = {name: weight(name, shape) for name, shape in told["shapes"].items()}
    config = {"config.json": told["config"], "scheduler_config.json": SCHEDULER} if "config" in told else {}
    return Source(pathlib.Path(case), state, config)


@functools.cache
def imported(case):
    told = TOLD[case]
    kind = FORMATS[told["format"]]
    return kind.convert(source(case), kind.Options(**told.get("options", {})))


@functools.cache
def program(network):
    return jax.jit(network.apply)


def run(found, x=X, t=T, classes=CLASSES):
    told = (classes,) if found.spec.classes else ()
    return program(EpsilonUNet(**found.spec.options))(found.params, x, t, *told)


def off(found, case):
    expected = np.moveaxis(OFFICIAL[case], 1, -1)
    return float(np.sqrt(np.mean((np.asarray(found, np.float64) - expected) ** 2)) / np.abs(expected).max())


@pytest.mark.parametrize("case", TOLD)
def test_outputs_are_the_official_ones(case):
    assert [kind for kind in FORMATS if FORMATS[kind].matches(source(case))] == [TOLD[case]["format"]]
    assert off(run(imported(case)), case) < 2e-6


def layers(kind, fan_in, out):
    """Shapes of a layer's weight and bias: a norm (0), a 1x1 (1) or 3x3 (3) convolution, or a linear layer (2)."""
    return {0: (fan_in,), 2: (out, fan_in), 1: (out, fan_in, 1, 1), 3: (out, fan_in, 3, 3)}[kind], (fan_in, out)[
        kind > 0
    ]


def block(prefix, fan_in, out, width, names=tuple(BLOCK), rows=1):
    sizes = (fan_in, 0), (fan_in, out), (width, rows * out), (out, 0), (out, out), (fan_in, out)
    found = zip(names, BLOCK.values(), sizes, strict=True)
    return {f"{prefix}.{n}": layers(k, *s) for n, k, s in found if n != names[-1] or fan_in != out}


def named(parts):
    """{name: shape} of {layer: (shape of its weight, length of its bias)}."""
    return {f"{n}.{leaf}": s for n, (w, b) in parts.items() for leaf, s in (("weight", w), ("bias", (b,)))}


def ddpm_shapes(channels, multiples, blocks, attend):
    """The state dictionary of DDRM's network, by its published configuration."""
    c, width, last = channels, 4 * channels, len(multiples) - 1
    parts = {"temb.dense.0": layers(2, c, width), "temb.dense.1": layers(2, width, width), "conv_in": layers(3, 3, c)}

    def attention(name, n):
        return {
            f"{name}.norm": layers(0, n, 0),
            **{f"{name}.{p}": layers(1, n, n) for p in ("q", "k", "v", "proj_out")},
        }

    h, skips = c, [c]
    for level, multiple in enumerate(multiples):
        for i in range(blocks):
            parts |= block(f"down.{level}.block.{i}", h, multiple * c, width)
            h = multiple * c
            parts |= attention(f"down.{level}.attn.{i}", h) if level in attend else {}
            skips.append(h)
        if level < last:
            parts[f"down.{level}.downsample.conv"] = layers(3, h, h)
            skips.append(h)
    parts |= block("mid.block_1", h, h, width) | attention("mid.attn_1", h) | block("mid.block_2", h, h, width)
    for level in reversed(range(last + 1)):
        for i in range(blocks + 1):
            parts |= block(f"up.{level}.block.{i}", h + skips.pop(), multiples[level] * c, width)
            h = multiples[level] * c
            parts |= attention(f"up.{level}.attn.{i}", h) if level in attend else {}
        if level:
            parts[f"up.{level}.upsample.conv"] = layers(3, h, h)
    return named({**parts, "norm_out": layers(0, h, 0), "conv_out": layers(3, h, 3)})


def adm_shapes(channels, multiples, blocks, attend, classes=0):
    """The state dictionary of guided-diffusion's network with learned variances, by its published configuration."""
    c, width, last = channels, 4 * channels, len(multiples) - 1
    widths = [int(m * c) for m in multiples]
    parts = {"time_embed.0": layers(2, c, width), "time_embed.2": layers(2, width, width)}
    parts["input_blocks.0.0"] = layers(3, 3, widths[0])
    residual = functools.partial(block, width=width, names=ADM_NAMES, rows=2)

    def attention(name, n):
        return {
            f"{name}.norm": layers(0, n, 0),
            f"{name}.qkv": ((3 * n, n, 1), 3 * n),
            f"{name}.proj_out": ((n, n, 1), n),
        }

    h, skips, k = widths[0], [widths[0]], 1
    for level, n in enumerate(widths):
        for i in range(blocks + (level < last)):
            parts |= residual(f"input_blocks.{k}.0", h, n)
            parts |= attention(f"input_blocks.{k}.1", n) if level in attend and i < blocks else {}
            h, k = n, k + 1
            skips.append(h)
    parts |= residual("middle_block.0", h, h) | attention("middle_block.1", h) | residual("middle_block.2", h, h)
    for k, (level, i) in enumerate((a, b) for a in reversed(range(last + 1)) for b in range(blocks + 1)):
        parts |= residual(f"output_blocks.{k}.0", h + skips.pop(), h := widths[level])
        parts |= attention(f"output_blocks.{k}.1", h) if level in attend else {}
        if level and i == blocks:
            parts |= residual(f"output_blocks.{k}.{2 if level in attend else 1}", h, h)
    shapes = named({**parts, "out.0": layers(0, h, 0), "out.2": layers(3, h, 6)})
    return shapes | ({"label_emb.weight": (classes, width)} if classes else {})


def diffusers_name(name, levels):
    """What diffusers calls an array of DDRM's network."""
    name = re.sub(r"^up\.(\d+)", lambda m: f"up_blocks.{levels - 1 - int(m[1])}", name)
    for pattern, other in (
        (r"^down\.", "down_blocks."), (r"\.block\.", ".resnets."), (r"^mid\.block_1", "mid_block.resnets.0"),
        (r"^mid\.block_2", "mid_block.resnets.1"), (r"^mid\.attn_1", "mid_block.attentions.0"),
        (r"\.attn\.", ".attentions."), (r"(attentions\.\d+)\.norm", r"\1.group_norm"), (r"\.q\.", ".to_q."),
        (r"\.k\.", ".to_k."), (r"\.v\.", ".to_v."), (r"\.proj_out\.", ".to_out.0."), ("temb_proj", "time_emb_proj"),
        ("nin_shortcut", "conv_shortcut"), (r"(down|up)sample\.", r"\1samplers.0."), ("^norm_out", "conv_norm_out"),
        (r"^temb\.dense\.0", "time_embedding.linear_1"), (r"^temb\.dense\.1", "time_embedding.linear_2"),
    ):  # fmt: skip
        name = re.sub(pattern, other, name)
    return name


def google(channels, multiples, blocks, attend):
    """The JSON files of google/ddpm-* with these."""
    kinds = ["Attn" * (level in attend) for level in range(len(multiples))]
    config = TOLD["diffusers_google"]["config"] | {
        "block_out_channels": [m * channels for m in multiples], "layers_per_block": blocks,
        "down_block_types": [f"{kind}DownBlock2D" for kind in kinds], "sample_size": 16 * 2 ** attend[0],
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
    }  # fmt: skip
    return {"config.json": config, "scheduler_config.json": SCHEDULER}


def squeezed(name, shape):
    """Attention's layers are linear ones in diffusers."""
    return shape[:2] if "attn" in name else shape


def google_shapes(channels, multiples, blocks, attend):
    found = ddpm_shapes(channels, multiples, blocks, attend)
    return {diffusers_name(name, len(multiples)): squeezed(name, shape) for name, shape in found.items()}


PUBLISHED = {
    "ffhq_10m": ("adm", adm_shapes(128, (1, 1, 2, 2, 4, 4), 1, (4,)), {}, 93_563_910, 256),
    "imagenet256": ("adm", adm_shapes(256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5)), {}, 552_814_086, 256),
    "celeba_hq": ("ddpm", ddpm_shapes(**CELEBA), {}, 113_673_219, 256),
    "google/ddpm-celebahq-256": ("diffusers", google_shapes(**CELEBA), google(**CELEBA), 113_673_219, 256),
    "google/ddpm-cifar10-32": ("diffusers", google_shapes(**CIFAR), google(**CIFAR), 35_746_307, 32),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_their_parameters(name, monkeypatch):
    """By a list of the official layers, and by ours, which has a place for each and no other."""
    kind, shapes, config, count, size = PUBLISHED[name]
    state = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
    assert sum(array.size for array in state.values()) == count

    def names_alone(state, entries, expected, ignored=()):
        assert {key for key, _, _ in entries} == state.keys()
        return jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), expected)

    monkeypatch.setattr(epsilon, "take", names_alone)
    found = FORMATS[kind].convert(Source(pathlib.Path(name), state, config), FORMATS[kind].Options())
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(found.params)) == count
    assert found.spec.image_size == size


def test_published_adm_files_are_recognised():
    """By their structure; of one that is not known, heads must be told."""
    for key, known in adm.KNOWN.items():
        _, multiples, blocks, attend = key
        network, _ = adm._structure({n: np.broadcast_to(0, s) for n, s in adm_shapes(*key).items()})
        assert adm._known(network) == known
        heads = adm._heads(adm.Options(), known, network)
        assert heads["head_features"] == known.num_head_channels
        asked = adm.Options(num_heads=2, num_heads_upsample=1)
        assert adm._heads(asked, known, network) == {"head_features": None, "heads": 2, "heads_up": 1}
        other, _ = adm._structure({n: np.broadcast_to(0, s) for n, s in adm_shapes(32, *key[1:]).items()})
        assert other["attend_down"] == other["attend_up"] == attend
        assert (other["blocks"], other["widths"]) == (blocks, tuple(int(m * 32) for m in multiples))
        assert adm._known(other) is None
        with pytest.raises(ValueError, match="give --options=num_head_channels"):
            adm._heads(adm.Options(), None, other)


def test_ddpm_is_diffusers_by_other_names():
    """The same weights by both names, with old names of attention too, and as a training state; the averages count."""
    shapes = ddpm_shapes(32, (1, 2), 1, (1,))
    state = {n: weight(diffusers_name(n, 2), squeezed(n, s)).reshape(s) for n, s in shapes.items()}
    assert {diffusers_name(n, 2) for n in shapes} == source("diffusers_google").tree.keys()
    other = {f"module.{n}": a + 1 for n, a in state.items()}
    options = ddpm.Options(image_size=8)
    for tree, note in (
        (state, "does not tell its noise"), ({**state, "logvar": np.zeros(1000)}, "logvar"),
        ([other, {}, 3, 1000, state], "moving averages of the weights are taken"),
        ([{f"module.{n}": a for n, a in state.items()}, {}, 3, 1000], "no moving averages"),
    ):  # fmt: skip
        found = ddpm.convert(Source(pathlib.Path("x"), tree, {}), options)
        assert any(note in line for line in found.notes)
        assert off(run(found), "diffusers_google") < 2e-6
    old = source("diffusers_google")
    renamed = {
        re.sub(r"\.(to_q|to_k|to_v|to_out\.0)\.", lambda m: f".{OLD_NAMES[m[1]]}.", n): a for n, a in old.tree.items()
    }
    assert renamed.keys() != old.tree.keys()
    found = diffusers.convert(old._replace(tree=renamed), diffusers.Options())
    jax.tree.map(np.testing.assert_array_equal, found.params, imported("diffusers_google").params)
    pooled = {n: a for n, a in state.items() if "sample." not in n}
    found = ddpm.convert(Source(pathlib.Path("x"), pooled, {}), options)
    assert (found.spec.options["down"], found.spec.options["up"]) == (("pool",), ("nearest",))


TINY = {"features": 8, "widths": (8,), "groups": 4, "attend_down": (), "attend_up": (0,), "heads": 2, "down": (),
        "up": (), "middle": False, "out_channels": 6}  # fmt: skip


def filled(shapes):
    """Parameters of these shapes."""
    return {name: weight(name, leaf.shape) if hasattr(leaf, "shape") else filled(leaf) for name, leaf in shapes.items()}


def test_the_network_is_sound():
    """A batch is its images one by one; the gradient is finite; remat changes neither values nor names."""
    network, kept = (EpsilonUNet(**TINY, remat=remat) for remat in (False, True))
    shapes = [jax.eval_shape(net.init, jax.random.key(0), X, T) for net in (network, kept)]
    assert jax.tree.map(lambda a: a.shape, shapes[0]) == jax.tree.map(lambda a: a.shape, shapes[1])
    params = {"params": filled(shapes[0]["params"])}

    @functools.partial(jax.jit, static_argnums=0)
    def outputs(network, x, t):
        return jax.value_and_grad(lambda x: jnp.sum(network.apply(params, x, t) ** 2))(x)

    (value, slope), (again, other) = outputs(network, X, T), outputs(kept, X, T)
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(value, again, rtol=1e-5)
    np.testing.assert_allclose(slope, other, atol=1e-5 * float(jnp.abs(slope).max()))
    out = program(network)(params, X, T)
    one = jax.jit(jax.vmap(lambda x, t: network.apply(params, x[None], t[None])[0]))(X, T)
    np.testing.assert_allclose(one, out, atol=1e-5)


def test_a_description_can_be_stored():
    for case in TOLD:
        spec = imported(case).spec
        assert spec_from_json(json.loads(json.dumps(spec_to_json(spec)))) == spec
    with pytest.raises(ValueError, match=r"down must be 1 of conv, conv_after, pool, block, got \('strided',\)"):
        EpsilonUNet(widths=(8, 8), down=("strided",), up=("conv",))


def test_a_prior_knows_the_image():
    """Through `build_prior`: x - sigma times the first three of six outputs at the step of sigma."""
    constants, _ = epsilon.usual_schedule(epsilon.ScheduleOptions())
    spec = NetworkSpec(
        parameterization="epsilon", model="epsilon_unet", image_size=8, options=TINY, constants=constants
    )
    params = {"params": filled(shapes_of(spec.build(), X.shape, T.shape))}
    kept = kept_of(constants)[400]
    sigma = np.float32(((1 - kept) / kept) ** 0.5)
    out = program(EpsilonUNet(**TINY))(params, X * np.float32(kept**0.5), np.float32([400, 400]))
    denoise = denoiser_of(build_prior(spec, params))
    np.testing.assert_allclose(jax.jit(denoise)(X[0], sigma), X[0] - sigma * out[0, ..., :3], atol=1e-4)


def test_classes():
    """A network of classes needs one, others refuse it, and the prior's description says so."""
    found = imported("adm_new")
    assert (found.spec.classes, found.spec.needs_class) == (5, True)
    with pytest.raises(ValueError, match="needs the class"):
        EpsilonUNet(**found.spec.options).apply(found.params, X, T)
    other = imported("adm_legacy")
    assert (other.spec.classes, other.spec.needs_class) == (0, False)
    with pytest.raises(ValueError, match="knows no classes"):
        EpsilonUNet(**other.spec.options).apply(other.params, X, T, CLASSES)
    assert float(jnp.abs(run(found) - run(found, classes=CLASSES[::-1])).max()) > 0.01


PLACES = {
    "adm_legacy": ("time_embed.0.weight", "output_blocks.1.1.qkv.weight"),
    "diffusers_google": ("mid_block.attentions.0.to_k.bias", "up_blocks.0.upsamplers.0.conv.weight"),
}


@pytest.mark.parametrize("case", PLACES)
def test_every_weight_has_its_place(case):
    """One missing, one more, one misshapen: each is named, in one line."""
    kind, found = FORMATS[TOLD[case]["format"]], source(case)
    options = kind.Options(**TOLD[case].get("options", {}))
    for name in PLACES[case]:
        for tree in (
            {n: a for n, a in found.tree.items() if n != name},
            {**found.tree, f"{name}.extra": found.tree[name]},
            {**found.tree, name: found.tree[name][..., :-1]},
            {**found.tree, name: np.array(1, np.float32)},
        ):
            with pytest.raises(ValueError, match=re.escape(name)) as error:
                kind.convert(found._replace(tree=tree), options)
            assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_heads": 3}, "num_heads is 3, which does not divide the 64 channels"),
        ({"num_head_channels": 48}, "num_head_channels is 48"),
        ({"num_heads": 2, "num_heads_upsample": 0}, "num_heads_upsample is 0"),
        ({}, "give --options=num_head_channels"),
        ({"num_heads": -1, "num_head_channels": -1}, "give --options=num_head_channels"),
        ({"num_heads": 2, "image_size": 31}, "image_size must be a multiple of 2"),
        ({"num_heads": 2, "schedule": "cosine", "beta_end": 0.1}, "of no use beside the schedule cosine"),
    ],
)
def test_options_of_adm_that_do_not_fit(options, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        adm.convert(source("adm_legacy"), adm.Options(**options))


def test_options_of_adm():
    """Fewer steps have larger rates, and are told as those of a thousand if so asked; -1 is none given."""
    asked = adm.Options(num_heads=4, num_head_channels=-1, diffusion_steps=250, rescale_timesteps=True, predicts="x0")
    spec = adm.convert(source("adm_legacy"), asked).spec
    assert spec.constants == {"schedule": "linear", "num_steps": 250, "first": 4e-4, "last": 0.08, "predicts": "x0"}
    assert (spec.options["time_scale"], spec.options["heads"], spec.options["heads_up"]) == (4, 4, 4)
    assert spec.image_size == 256
    assert imported("adm_legacy").spec.highest_noise == pytest.approx(157.4073)
    short = adm.convert(source("adm_legacy"), adm.Options(num_heads=2, schedule="scaled_linear", beta_end=0.012)).spec
    assert short.highest_noise < 50  # where an image still shows
    six = {**source("adm_legacy").tree, "input_blocks.0.0.weight": np.zeros((32, 6, 3, 3), np.float32)}
    with pytest.raises(ValueError, match="takes 6 channels"):
        adm.convert(Source(pathlib.Path("x"), six, {}), asked)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "down_block_types is 'SkipDownBlock2D'"),
        ({"up_block_types": ["UpBlock2D"]}, "up_block_types has 1 entries, but block_out_channels 2"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type is 'fourier'"),
        ({"class_embed_type": "identity"}, "class_embed_type is 'identity'"),
        ({"class_embed_type": "timestep"}, "give --options=num_classes"),
        ({"mid_block_type": "UNetMidBlock2DCrossAttn"}, "mid_block_type is"),
        ({"downsample_padding": 2}, "downsample_padding is 2"),
        ({"downsample_type": "fir"}, "downsample_type is 'fir'"),
        ({"resnet_time_scale_shift": "ada_group"}, "resnet_time_scale_shift is 'ada_group'"),
        ({"act_fn": "tanh"}, "act_fn is 'tanh'"),
        ({"attention_head_dim": 128}, "attention_head_dim is 128, but attention has 64 channels"),
        ({"attention_head_dim": [8, 8]}, "attention_head_dim is [8, 8]"),
        ({"norm_num_groups": None}, "norm_num_groups is None"),
        ({"cross_attention_dim": 768}, "cross_attention_dim is 768"),
        ({"_class_name": "UNet2DConditionModel"}, "_class_name is 'UNet2DConditionModel'"),
        ({"add_attention": False}, "mid_block.attentions.0"),
        ({"block_out_channels": [64, 64]}, "of another shape"),
    ],
)
def test_configurations_of_other_networks_are_refused(change, told):
    found = source("diffusers_google")
    config = found.config | {"config.json": {**found.config["config.json"], **change}}
    with pytest.raises(ValueError, match=re.escape(told)) as error:
        diffusers.convert(found._replace(config=config), diffusers.Options())
    assert len(str(error.value).splitlines()) == 1


def test_what_a_folder_tells_cannot_be_changed():
    found = source("diffusers_google")
    for options, told in (
        ({"image_size": 16}, "image_size 16 contradicts config.json, which says 8"),
        ({"schedule": "cosine"}, "schedule cosine contradicts scheduler_config.json, which says linear"),
        ({"beta_end": 0.01}, "beta_end 0.01 contradicts"), ({"diffusion_steps": 9}, "diffusion_steps 9 contradicts"),
        ({"predicts": "v"}, "predicts v contradicts"), ({"num_classes": 3}, "the network knows no classes"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=re.escape(told)):
            diffusers.convert(found, diffusers.Options(**options))
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        diffusers.convert(found._replace(config={}), diffusers.Options())
    alone = diffusers.convert(found._replace(config={"config.json": found.config["config.json"]}), diffusers.Options())
    assert any("does not tell its noise" in line for line in alone.notes)


# alpha bar after the first, the 301st and the last but one of 1,000 steps, as DDPMScheduler of diffusers 0.42.1 has it.
SCHEDULES = {
    "linear": ({}, (0.99989998, 0.39401102, 4.1181942e-05)),
    "scaled": (
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        (0.99914998, 0.59050077, 0.0047166958),
    ),
    "cosine": ({"beta_schedule": "squaredcos_cap_v2"}, (0.99995869, 0.78563243, 2.4287663e-06)),
    "sigmoid": ({"beta_schedule": "sigmoid"}, (0.99985081, 0.84257823, 4.0489624e-05)),
    "zero": ({"rescale_betas_zero_snr": True}, (0.99989998, 0.39102867, 4.2132733e-09)),
    "trained": ({"trained_betas": [0.1] * 1000}, (0.9, 0.9**301, 0.9**999)),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_those_of_diffusers(name):
    change, expected = SCHEDULES[name]
    for asked, predicts in (("epsilon", "epsilon"), ("v_prediction", "v"), ("sample", "x0")):
        constants = diffusers._schedule({**SCHEDULER, **change, "prediction_type": asked}, diffusers.Options())
        assert json.loads(json.dumps(constants)) == constants
        assert constants["predicts"] == predicts
    kept = kept_of(constants)
    np.testing.assert_allclose(kept[[0, 300, -2]], expected, rtol=5e-6)
    assert kept.shape == (1000,)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"_class_name": "ScoreSdeVeScheduler"}, "the noise of a ScoreSdeVeScheduler has no beta_schedule"),
        ({"beta_schedule": "laplace"}, "scheduler_config.json: beta_schedule is 'laplace'"),
        ({"prediction_type": "flow_prediction"}, "prediction_type is 'flow_prediction'"),
    ],
)
def test_other_noise_is_refused(said, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        diffusers._schedule(said, diffusers.Options())
    found = source("diffusers_google")
    config = found.config | {"scheduler_config.json": {"trained_betas": [0.1, 0.0, 0.1]}}
    with pytest.raises(ValueError, match="each different from the one before"):
        diffusers.convert(found._replace(config=config), diffusers.Options())
    assert diffusers._schedule({}, diffusers.Options()) == epsilon.usual_schedule(epsilon.ScheduleOptions())[0]


def test_missing_and_null_heads_differ():
    """Without the key a head has 8 channels, with null all of them."""
    said = TOLD["diffusers_google"]["config"]
    assert diffusers._structure(diffusers._read(said))[0]["head_features"] is None
    without = {key: value for key, value in said.items() if key != "attention_head_dim"}
    assert diffusers._structure(diffusers._read(without))[0]["head_features"] == 8
