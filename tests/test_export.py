"""What is exported comes back, whole or as far as the format can hold it; what it cannot hold is refused by name."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest
from conftest import ROOT
from flax.traverse_util import flatten_dict
from safetensors import safe_open
from safetensors.numpy import save_file

from cvsa_jax import CLD, checkpoints, descriptions, load_prior
from cvsa_jax.commands import main
from cvsa_jax.exporters import FORMATS
from cvsa_jax.importers import diffusers
from cvsa_jax.importers.source import read_source
from cvsa_jax.networks import NetworkSpec
from cvsa_jax.parameterizations.epsilon import SMALLEST_KEPT, kept_of
from cvsa_jax.priors import Calibration

CASES = json.loads((ROOT / "tests" / "fixtures" / "unets.json").read_text())
CONFIGS = {name: case["config"] for name, case in CASES.items() if "config" in case}
CURVE = Calibration(np.float32([0.1, 1, 10]), np.float32([0.004, 0.2, 0.9]))
# One that UNet2DModel has, each option other than its default in one of them.
SMALL = {"features": 8, "widths": (8, 16), "blocks": 1, "attend_down": (), "attend_up": (), "groups": 4,
         "middle_groups": 4, "down": ("conv",), "up": ("conv",), "out_channels": 3}  # fmt: skip
EXPRESSIBLE = {
    "ddpm": {"cosine_first": False, "shift": 1.0, "stem": 8, "embedding": 32, "attend_down": (1,), "attend_up": (0, 1),
             "epsilon": 1e-6, "down": ("conv_after",), "activation": "gelu"},
    "adm": {"scale_shift": True, "down": ("block",), "up": ("block",), "attend_down": (1,), "attend_up": (1,),
            "head_features": 4, "out_channels": 6, "classes": 5},
    "heads": {"heads": 2, "heads_up": 2, "attend_down": (1,), "attend_up": (1,), "shift": 0.5, "embedding": 24},
    "attended": {"down": ("block",), "attend_down": (0,), "attend_up": (0, 1), "head_features": 8, "center": True,
                 "scale_shift": True, "middle_groups": 2, "middle_scale": 2**0.5, "activation": "mish", "blocks": 2},
    "three": {"widths": (8, 16, 8), "down": ("block", "conv_after"), "up": ("conv", "block"), "attend_down": (2,),
              "classes": 5, "class_embedding": "sinusoids", "scale_shift": True, "middle_groups": 0},
    "none": {"middle": False, "activation": "relu"}, "without": {"middle_attention": False, "middle_groups": 32},
}  # fmt: skip
LINEAR = {"schedule": "linear", "num_steps": 1000, "first": 1e-4, "last": 0.02, "predicts": "epsilon"}
SCHEDULES = {
    "linear": LINEAR,
    "scaled": {"schedule": "scaled_linear", "num_steps": 500, "first": 0.00085, "last": 0.012, "predicts": "v"},
    "cosine": {"schedule": "cosine", "num_steps": 4000, "predicts": "x0"},
    "betas": {"betas": [0.1, 1 / 3, 0.7], "predicts": "epsilon"},
}


def noise_predictor(options, constants=LINEAR, **fields):
    classes = options.get("classes", 0)
    kept = kept_of(constants)
    kept = kept[kept > SMALLEST_KEPT][-1]
    fields = {"image_size": 8, "classes": classes, "needs_class": classes > 0,
              "highest_noise": float(((1 - kept) / kept) ** 0.5)} | fields  # fmt: skip
    return NetworkSpec("epsilon", model="epsilon_unet", options=options, constants=constants, **fields)


def drawn(spec):
    """Parameters of no special value, among them a zero with a sign."""
    generator = np.random.default_rng(0)
    shapes = jax.eval_shape(spec.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), shapes)
    jax.tree.leaves(params)[0].flat[0] = -0.0
    return params


def same(ours, theirs):
    ours, theirs = (flatten_dict(tree) for tree in (ours, theirs))
    assert ours.keys() == theirs.keys()
    for path, array in ours.items():
        a, b = np.asarray(array), np.asarray(theirs[path])
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), path


def save(folder, spec, curve=None, spectrum=None):
    params = drawn(spec)
    checkpoints.save_prior(folder, spec, params, curve, {"format": "test"}, spectrum)
    return params


def written(stored, kind, path) -> list[str]:
    export = FORMATS[kind].prepare(stored)
    export.write(path)
    return export.notes


def stored_prior(spec, params):
    record = {"network": descriptions.spec_to_json(spec), "calibration": None, "spectrum": None, "training": {}}
    return descriptions.StoredPrior(record, descriptions.description_from_json(record), params)


def there_and_back(spec, folder):
    """What `cvsa import` makes of the folder that `cvsa export` makes of a noise predictor, and its parameters."""
    params = drawn(spec)
    assert written(stored_prior(spec, params), "diffusers", folder) == []
    source = read_source(folder)
    assert diffusers.matches(source)
    found = diffusers.convert(source, diffusers.Options())
    same(params, found.params)
    return found.spec


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_spec):
    """The folder of a denoiser of our own."""
    folder = tmp_path_factory.mktemp("trained")
    save(folder, tiny_spec, CURVE)
    return folder


def error(run_verb, *arguments) -> str:
    done = run_verb("export", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


# One safetensors file.


@pytest.mark.parametrize("name", ["kernels16", "trained", "velocity", "imported"])
def test_a_file_holds_all_of_a_prior(name, tmp_path, tiny_spec, capsys):
    """The same record and the same arrays, whatever the network, with statistics and without."""
    folder = tmp_path / "prior"
    if name == "trained":
        save(folder, tiny_spec, CURVE, tiny_spec.spectrum)
    elif name == "velocity":
        spec = NetworkSpec("velocity", image_size=16, options=dict(tiny_spec.options), cld=CLD(mass=0.5))
        save(folder, spec)
    elif name == "imported":
        save(folder, noise_predictor(SMALL | EXPRESSIBLE["adm"], SCHEDULES["betas"]), CURVE)
        checkpoints.save_statistics(folder, CURVE, tiny_spec.spectrum, {"images": 3})
    else:
        folder = checkpoints.find_prior(name)
    file, again = tmp_path / "a" / "X.safetensors", tmp_path / "again"
    main("export", [f"--checkpoint={folder}", f"--output={file}"])
    assert [path.name for path in file.parent.iterdir()] == ["X.safetensors"]
    before = checkpoints.read_prior(folder)
    with safe_open(file, framework="np") as opened:
        assert json.loads(opened.metadata()["cvsa_jax"]) == before.record
        assert set(opened.keys()) == flatten_dict(before.params, sep="/").keys()
    main("import", [f"--source={file}", f"--output={again}"])
    after = checkpoints.read_prior(again)
    # A prior of an earlier version says less.
    spec = json.loads(json.dumps(descriptions.spec_to_json(before.description.spec)))
    assert after.record == {"spectrum": None, **before.record, "network": spec}
    same(before.params, after.params)
    label = {"class_label": 0} if before.description.spec.needs_class else {}
    one, other = load_prior(folder, **label), load_prior(again, **label)
    assert (one.spec, one.training, one.calibrated) == (other.spec, other.training, other.calibrated)
    assert one.prior.spectrum == other.prior.spectrum
    for which in ("noise", "error"):
        np.testing.assert_array_equal(getattr(one.prior.calibration, which), getattr(other.prior.calibration, which))
    assert ("cvsa calibrate" in capsys.readouterr().out) == (not one.calibrated)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state, said: said.update(cvsa_jax="{"), "cannot read .*X.safetensors: Expecting property name"),
        (lambda state, said: said.update(cvsa_jax="[]"), "cannot read .*X.safetensors: it is broken"),
        (lambda state, said: said.update(cvsa_jax='{"calibration": null}'), "it is broken .*network"),
        (lambda state, said: said.update(cvsa_jax=said["cvsa_jax"].replace("unet", "yunet")), "model must be one of"),
        (lambda state, said: said.pop("cvsa_jax"), "in none of the known formats"),
        (lambda state, said: state.popitem(), "do not fit the network; missing: params/"),
        (lambda state, said: state.update(more=np.zeros(1, np.float32)), "not known: more"),
        (lambda state, said: state.update({next(iter(state)): np.zeros(1, np.float32)}), "of another shape"),
    ],
)
def test_a_damaged_file_is_refused(change, told, trained, tmp_path, run_verb):
    file = tmp_path / "X.safetensors"
    written(checkpoints.read_prior(trained), "safetensors", file)
    with safe_open(file, framework="np") as opened:
        state, said = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()  # noqa: SIM118
    change(state, said)
    save_file(state, file, said)
    done = run_verb("import", f"--source={file}", f"--output={tmp_path / 'again'}")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert re.search(told, done.stderr), done.stderr


# A folder of the diffusers library.


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_of_the_library_comes_back(name, tmp_path):
    config = {"config.json": CONFIGS[name], "scheduler_config.json": {"beta_schedule": "sigmoid"}}
    told = diffusers.told_by(config, CONFIGS[name].get("out_channels", 3),
                             diffusers.Options())  # fmt: skip
    spec = noise_predictor(told.network, told.constants, image_size=told.image_size)
    assert there_and_back(spec, tmp_path / "folder") == spec
    config = json.loads((tmp_path / "folder" / "config.json").read_text())
    for key, value in CONFIGS[name].items():
        if key in config and key not in ("down_block_types", "mid_block_scale_factor"):
            assert config[key] == value or (key, value) == ("attn_norm_num_groups", None)
    assert (tmp_path / "folder" / "model_index.json").exists() == (not spec.classes)


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_every_option_that_the_library_has(name, tmp_path):
    spec = noise_predictor(SMALL | EXPRESSIBLE[name])
    back = there_and_back(spec, tmp_path / "folder")
    ours, theirs = (
        {key: value for key, value in vars(s.build("float32")).items() if not key.startswith("_")} for s in (spec, back)
    )
    # Said otherwise, but the same.
    ours["embedding"], ours["stem"] = ours["embedding"] or 32, None
    theirs["embedding"] = theirs["embedding"] or 32
    if name == "heads":
        assert (theirs.pop("head_features"), ours.pop("head_features")) == (8, None)
        ours["heads"] = ours["heads_up"] = 1
    if name in ("none", "without"):
        ours["middle_groups"] = theirs["middle_groups"]
    assert {k: v for k, v in ours.items() if k != "parent"} == {k: v for k, v in theirs.items() if k != "parent"}
    assert (back.constants, back.classes, back.image_size) == (spec.constants, spec.classes, 8)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule(name, tmp_path):
    channels = 1 if name == "cosine" else 3
    spec = noise_predictor(SMALL | {"out_channels": channels}, SCHEDULES[name], image_channels=channels, image_size=16)
    back = there_and_back(spec, tmp_path / "folder")
    assert (back.constants, back.image_channels, back.image_size) == (SCHEDULES[name], channels, 16)


def test_what_is_not_said_is_the_usual(tmp_path):
    assert there_and_back(noise_predictor(SMALL, {"schedule": "linear"}), tmp_path / "folder").constants == LINEAR


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"time_scale": 2.0}, "time_scale is 2.0, there 1.0"),
        ({"features": 16}, "features is 16, there 8"),
        ({"stem": 4}, "stem is 4, there 8"),
        ({"down": ("pool",)}, r"down is \('pool',\), there \('conv',\)"),
        ({"down": ("pool",), "attend_down": (0,)}, "down is"),
        ({"up": ("nearest",)}, r"up is \('nearest',\), there \('conv',\)"),
        ({"middle_groups": 0}, "middle_groups is 0, there 4"),
        ({"heads": 2, "attend_down": (1,), "attend_up": (1,)}, "features of each head is .*'up1': 16.*'up1': 16"),
        ({"widths": (8, 8, 8), "down": ("conv", "conv_after"), "up": ("conv",) * 2}, "down is"),
        ({"widths": (8, 8, 8), "down": ("conv", "block"), "up": ("conv",) * 2, "attend_down": (0, 1)}, "down is"),
    ],
)
def test_a_network_that_the_library_does_not_have(change, told):
    spec = noise_predictor(SMALL | change)
    with pytest.raises(ValueError, match=f"the library's UNet2DModel cannot be this network: .*{told}"):
        FORMATS["diffusers"].prepare(stored_prior(spec, {}))


def test_what_the_folder_has_no_place_for_is_said(tmp_path):
    spec = noise_predictor(SMALL, cld=CLD(mass=0.5), highest_noise=80.0)
    save(tmp_path / "prior", spec, CURVE)
    (note,) = written(checkpoints.read_prior(tmp_path / "prior"), "diffusers", tmp_path / "folder")
    assert "the largest noise of the training, the diffusion, its measured errors: not written" in note


# The verb.


def test_the_verb_writes_a_folder(tmp_path, run_verb):
    spec = noise_predictor(SMALL)
    params = save(tmp_path / "prior", spec)
    done = run_verb("export", f"--checkpoint={tmp_path / 'prior'}", "--format=diffusers", f"--output={tmp_path / 'b'}")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "config.json", "diffusion_pytorch_model.safetensors", "model_index.json", "scheduler_config.json"]  # fmt: skip
    with safe_open(tmp_path / "b" / "diffusion_pytorch_model.safetensors", framework="np") as opened:
        assert opened.metadata() == {"format": "pt"}
    assert run_verb("import", f"--source={tmp_path / 'b'}", f"--output={tmp_path / 'c'}").returncode == 0
    same(params, checkpoints.read_prior(tmp_path / "c").params)


def test_what_cannot_be_exported_is_one_line(tmp_path, trained, run_verb):
    prior, output = f"--checkpoint={trained}", tmp_path / "X.safetensors"
    assert "--output" in error(run_verb, prior)
    assert "--output must end in .safetensors" in error(run_verb, prior, f"--output={tmp_path / 'X'}")
    assert "no prior in" in error(run_verb, f"--checkpoint={tmp_path / 'nothing'}", f"--output={output}")
    assert "format must be one of" in error(run_verb, prior, f"--output={output}", "--format=onnx")
    told = error(run_verb, prior, f"--output={tmp_path / 'X'}", "--format=diffusers")
    assert "this prior is denoiser, unet: --format=safetensors takes it" in told
    assert list(tmp_path.iterdir()) == []
    output.write_text("mine")
    assert "exists" in error(run_verb, prior, f"--output={output}")
    assert output.read_text() == "mine"


def test_nothing_is_there_until_all_is(tmp_path, trained, monkeypatch):
    output = tmp_path / "X.safetensors"

    def fail(*arguments):
        pathlib.Path(arguments[1]).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cvsa_jax.exporters.own.save_safetensors", lambda path, *rest: fail(None, path))
        with pytest.raises(SystemExit):
            main("export", [f"--checkpoint={trained}", f"--output={output}"])
    assert not output.exists()
    main("export", [f"--checkpoint={trained}", f"--output={output}"])
    assert [path.name for path in tmp_path.iterdir()] == ["X.safetensors"]
