"""Restoration jobs as objects: what was given and the presets make one, and it says how to be made again."""

import collections
import inspect
import json
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import SAMPLES
from PIL import Image

from cvsa_jax import CLD, SamplerSettings, load_prior, operators, restore
from cvsa_jax.baselines import constants
from cvsa_jax.checkpoints import KERNELS
from cvsa_jax.commands import flags
from cvsa_jax.descriptions import spec_to_json, statistics_to_json
from cvsa_jax.evaluation import comparison
from cvsa_jax.evaluation.judge import Judge
from cvsa_jax.jobs import command, prepare, records, resolve
from cvsa_jax.jobs import settings as job_settings
from cvsa_jax.jobs.inputs import Reader
from cvsa_jax.jobs.methods import METHODS
from cvsa_jax.jobs.settings import JobSettings, known
from cvsa_jax.networks import NetworkSpec
from cvsa_jax.noise import NOISES
from cvsa_jax.operators import TASKS, find_task
from cvsa_jax.operators.task import BlindSettings
from cvsa_jax.presets import preset_of
from cvsa_jax.settings import fields
from cvsa_jax.types import UnsuitableError

COMPOSED = (
    "motion_deblur+sr4", "sr2+jpeg", "gaussian_deblur+random_inpaint", "hdr+jpeg", "denoise+mask_inpaint",
    "box_inpaint+phase_retrieval", "checkout+sr2", "sr2+motion_deblur+jpeg",
)  # fmt: skip
PLACES = {"input": "images", "output": "results"}
FEW = {"num_steps": 4, "num_samples": 1, "image_size": 16}


def some_value(field, method: str, generator) -> object:
    """A value that a setting takes."""
    rule = field.setting
    if field.name == "method_settings":
        names = [n for n in constants(method) if generator.random() < 0.5]
        return tuple(f"{n}={generator.integers(1, 9)}" for n in names) or None
    if rule.choices is not None:
        return str(generator.choice(list(rule.choices)))
    if field.kind is bool:
        return bool(generator.random() < 0.5)
    if field.kind is str:
        return f"some_{field.name}.npz"
    low = rule.low if rule.low is not None else rule.above if rule.above is not None else 0
    high = rule.high if rule.high is not None else rule.below if rule.below is not None else low + 300
    if field.kind is int:
        number = int(generator.integers(low, high, endpoint=True, dtype=np.uint64 if high >= 2**63 else np.int64))
        return number | 1 if rule.odd else number
    return float(low + (high - low) * generator.uniform(0.01, 0.99) ** generator.integers(1, 6))


def some_job(generator):
    """A job of any task, method and noise; each further setting is kept if it goes with those before it."""
    task = str(generator.choice([*TASKS, *COMPOSED]))
    given = {"task": task, **PLACES}
    given |= {name: f"{name}.npy" for name in find_task(task).requires}
    if not given.keys() - PLACES.keys() - {"task"} and generator.random() < 0.2:
        given["operator"] = "operator.npz"
    able = [name for name, method in METHODS.items() if method.blind in (None, find_task(task).blind)]
    given["method"] = str(generator.choice(able)) if generator.random() < 0.6 else "cvsa"
    given["noise"] = str(generator.choice(list(NOISES)))
    job = resolve(given)
    names = [f for group in job.groups for f in fields(type(group)) if f.setting.flag and f.name not in given]
    for index in generator.permutation(len(names)):
        if generator.random() < 0.4:
            value = some_value(names[index], given["method"], generator)
            try:
                job = resolve({**given, names[index].name: value})
            except ValueError:
                continue
            given[names[index].name] = value
    return job


@pytest.mark.parametrize("seed", range(6))
def test_a_jobs_command_makes_the_same_job(seed):
    """Of any settings; and the command of what it makes is the same command."""
    generator, seen = np.random.default_rng(seed), collections.Counter()
    for _ in range(40):
        job = some_job(generator)
        text = command(job)
        again = resolve(flags.parse(text, known()))
        assert again == job
        assert again.record() == job.record()
        assert command(again) == text
        seen[job.job.method] += 1
        seen[str(job.job.task)] += 1
    assert len(seen) > 15


def test_a_short_job_has_a_short_command():
    """Only what differs from the defaults and the preset."""
    for task in ("sr4", "phase_retrieval", "blind_motion_deblur", "hdr"):
        places = ["--input=images", "--output=results"]
        assert command(resolve({"task": task, **PLACES})) == [f"--task={task}", *places]
        assert command(resolve({"task": task, **PLACES, "num_steps": 77, "seed": 3})) == [
            f"--task={task}", *places, "--seed=3", "--num_steps=77",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        # What is missing, and what there is not.
        ({"task": None}, "--task is required"),
        ({"input": None}, "--input is required"),
        ({"output": None}, "--output is required"),
        ({"nois_std": 0.1}, "there is no setting nois_std; did you mean noise_std?"),
        ({"task": "motion_debler"}, "task must be one of .*, got 'motion_debler'; did you mean motion_deblur?"),
        ({"task": "sr2+"}, "task must be one of .*, got ''"),
        ({"task": "blind_motion_deblur+sr2"}, "blind_motion_deblur cannot be combined with other degradations"),
        ({"task": "phase_retrieval+sr2"}, "nothing can follow phase_retrieval, whose measurement is no picture"),
        ({"task": "mask_inpaint"}, "mask_inpaint needs --mask=FILE"),
        ({"task": "bkse_deblur"}, "bkse_deblur needs --bkse_weights=FILE"),
        ({"task": "mask_inpaint+bkse_deblur", "mask": "a.png"}, "mask_inpaint.bkse_deblur needs --bkse_weights=FILE"),
        # What belongs to another task, noise or method.
        (
            {"kernel": "a.npy"},
            "--kernel belongs to --task=gaussian_deblur, motion_deblur, blind_gaussian_deblur, blind_motion_deblur, "
            "checkout, not to --task=sr4",
        ),
        ({"kernel_checkpoint": KERNELS}, "--kernel_checkpoint belongs to --task=blind_gaussian_deblur, blind_motion_"),
        ({"missing": 0.5, "task": "box_inpaint"}, "--missing belongs to --task=random_inpaint, not to --task=box_inp"),
        ({"jpeg_quality": 5, "task": "hdr+sr2"}, r"--jpeg_quality belongs to --task=jpeg, not to --task=hdr\+sr2"),
        ({"photons": 5.0}, "--photons belongs to --noise=poisson, poisson_gaussian, not to --noise=gaussian"),
        ({"noise": "poisson", "noise_std": 0.1}, "--noise_std belongs to --noise=gaussian, pois.*, not to --noise=p"),
        ({"method_settings": ("eta=1",)}, "--method_settings belongs to --method=dps, .*, not to --method=cvsa"),
        ({"method": "ddrm", "guidance": "plug_in"}, "--guidance belongs to --method=cvsa, not to --method=ddrm"),
        ({"method": "classical", "num_steps": 5}, "--num_steps belongs to --method=cvsa, .*, not to --method=classic"),
        # What another setting makes idle.
        (
            {"task": "motion_deblur", "kernel": "a.npy", "kernel_size": 5},
            "--kernel_size has no effect beside --kernel",
        ),
        (
            {"task": "gaussian_deblur", "kernel": "a.npy", "kernel_std": 2.0},
            "--kernel_std has no effect beside --kernel",
        ),
        ({"task": "checkout", "kernel": "a.npy", "motion_intensity": 0.1}, "--motion_intensity has no effect"),
        (
            {"task": "motion_deblur", "operator": "a.npz", "kernel": "a.npy"},
            "--kernel has no effect beside --operator, which holds it",
        ),
        ({"task": "jpeg", "operator": "a.npz", "jpeg_quality": 5}, "--jpeg_quality has no effect beside --operator"),
        (
            {"task": "blind_motion_deblur", "operator": "a.npz", "motion_intensity": 0.1},
            "--motion_intensity has no effect beside --operator",
        ),
        (
            {"task": "blind_motion_deblur", "start": "noise", "search_guesses": 2},
            "--search_guesses has no effect without --start=guess",
        ),
        (
            {"task": "blind_motion_deblur", "method": "blind_dps", "search_guesses": 2},
            "--search_guesses has no effect without --start=guess",
        ),
        # What is out of range.
        ({"num_steps": 1}, "num_steps must be at least 2, got 1"),
        ({"num_steps": 2.5}, "num_steps must be a whole number, got 2.5"),
        ({"num_steps": "many"}, "num_steps must be a number, got 'many'"),
        ({"noise_std": 0.0}, "noise_std must be positive or auto for images in .*, got 0.0"),
        ({"mass": float("nan")}, "mass must be positive, got nan"),
        ({"task": "random_inpaint", "missing": 1.0}, "missing must be at least 0 and below 1, got 1.0"),
        ({"task": "jpeg", "jpeg_quality": 101}, "jpeg_quality must be at least 1 and at most 100, got 101"),
        ({"task": "motion_deblur", "kernel_size": 6}, "kernel_size must be odd and at least 3 pixels, got 6"),
        ({"sampler": "ancestal"}, "sampler must be one of .*, got 'ancestal'; did you mean ancestral?"),
        ({"method": "ddmr"}, "method must be one of .*, got 'ddmr'; did you mean ddrm?"),
        ({"noise": "poison"}, "noise must be one of gaussian, poisson, .*, got 'poison'; did you mean poisson?"),
        ({"aim": "speed"}, "aim must be one of accuracy, posterior, got 'speed'"),
        ({"t_start": 0.2, "t_end": 0.3}, "t_end must be below t_start, got 0.3 and 0.2"),
        ({"method": "dps", "method_settings": ("eta=1",)}, "--method_settings=eta=1: DPS has these constants: step_s"),
        ({"method": "dps", "method_settings": ("step_size=a",)}, "--method_settings=step_size=a: 'a' is no float"),
    ],
)  # fmt: skip
def test_what_has_no_effect_or_no_meaning_is_refused_by_name(given, message):
    given = {"task": "sr4", **PLACES, **given}
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        resolve(given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "blind_motion_deblur", "method": "dps"}, "it must be given the kernel"),
        ({"task": "blind_gaussian_deblur", "method": "classical"}, "it must be given the kernel"),
        ({"method": "blind_dps"}, "it is for blind tasks alone"),
        ({"task": "phase_retrieval", "aim": "posterior"}, "the task has no posterior samples"),
    ],
)
def test_what_a_method_cannot_do_is_another_error(given, message):
    """Which comparisons note and go on from."""
    with pytest.raises(UnsuitableError, match=message):
        resolve({"task": "sr4", **PLACES, **given})


@pytest.mark.parametrize("first", ["colour", "grey"])
def test_an_image_that_is_not_for_the_method_fails_alone(first, run_restore, tiny_checkpoint, tmp_path):
    """Whichever comes first, and also where the others are done; a job of none but such is refused as a whole."""
    grey, colour = ("b", "a") if first == "colour" else ("a", "b")
    image = Image.open(SAMPLES / "clothing_001.png").resize((8, 8))
    (tmp_path / "in").mkdir()
    image.save(tmp_path / "in" / f"{colour}.png")
    image.convert("L").save(tmp_path / "in" / f"{grey}.png")
    given = [f"--checkpoint={tiny_checkpoint}", "--task=denoise", "--method=ddrm", "--num_steps=2", "--batch_size=1"]
    for _ in range(2):
        done = run_restore(*given, f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}")
        assert done.returncode == 1 and "1 of the images failed" in done.stderr, done.stderr
        found = records.read_json(tmp_path / "out" / "summary.json")
        assert (found["images"], [*found["failures"]]) == (1, [grey])
        assert "DDRM cannot do it: a grey measurement" in found["failures"][grey]
    alone = run_restore(*given, f"--input={tmp_path / 'in' / f'{grey}.png'}", f"--output={tmp_path / 'alone'}")
    assert alone.returncode == 1 and "DDRM cannot do denoise: a grey measurement" in alone.stderr
    assert not (tmp_path / "alone").exists()


def test_a_stored_operator_must_be_of_the_tasks_kind(tmp_path, tiny_checkpoint):
    """Whatever the flags say, it would be the one that measures."""
    generator = np.random.default_rng(0)
    paths = {}
    for task in ("sr4", "motion_deblur", "motion_deblur+sr2", "gaussian_deblur", "checkout", "box_inpaint"):
        paths[task] = tmp_path / f"{task}.npz"
        operators.save_operator(paths[task], operators.make_operator(task, generator, 16, 16))
    source = {"input": str(SAMPLES), "limit": 1, "checkpoint": str(tiny_checkpoint), **FEW}
    for number, (task, other, right) in enumerate(
        [
            ("sr4", "motion_deblur", "is a Convolution, but --task=sr4 takes Separable"),
            ("jpeg", "sr4", "is a Separable, but --task=jpeg takes Quantised"),
            (
                "motion_deblur",
                "motion_deblur+sr2",
                "is a Convolution and Separable, but --task=motion_deblur",
            ),
            ("box_inpaint", "checkout", "is a Convolution and Mask, but --task=box_inpaint takes Mask"),
            ("gaussian_deblur", "motion_deblur", None),
            ("mask_inpaint", "box_inpaint", None),
        ]
    ):
        output = tmp_path / f"out{number}"
        job = resolve({"task": task, **source, "operator": str(paths[other]), "output": str(output)})
        if right is None:
            assert prepare(job).entries
        else:
            with pytest.raises(ValueError, match=right):
                prepare(job)
        assert output.exists() == (right is None)


@pytest.fixture
def measured(monkeypatch):
    """How often each image is measured."""
    found, measure = collections.Counter(), Reader.measure

    def counted(self, entry):
        found[entry.name] += 1
        return measure(self, entry)

    monkeypatch.setattr(Reader, "measure", counted)
    return found


def test_an_image_is_measured_once_whatever_its_samples(measured, tiny_checkpoint, tmp_path):
    """Of three, which lie in two batches, one of them with another image's."""
    given = {"task": "motion_deblur", "input": str(SAMPLES), "limit": 3, "output": str(tmp_path / "out"), **FEW}
    given |= {"checkpoint": str(tiny_checkpoint), "num_samples": 3, "batch_size": 2}
    prepared = prepare(resolve(given))
    measured.clear()  # of the first image, which was tried
    prepared.run()
    assert set(measured.values()) == {1}
    assert len(measured) == 3
    assert len(prepared.results.rows) == 3


def test_an_image_whose_loop_diverges_is_noted_in_the_table(tiny_checkpoint, tmp_path):
    """The others have their figures; a set that lacks one is not compared in silence."""
    shared = {"input": str(SAMPLES), "limit": 2, "image_size": 16, "checkpoint": str(tiny_checkpoint)}
    shared |= {"noise": "gaussian"}
    plan = comparison.Plan(["denoise"], ["paper", "classical"], shared, 3, tmp_path)
    done, refused = comparison.run(plan)
    assert not refused
    long, (grid,) = comparison.collect(plan, done, refused, Judge({}))
    assert grid.notes() == ["CVSA as in the paper: 2 of 2 images failed: the loop diverged"]
    assert "| CVSA as in the paper | - |" in grid.markdown()
    assert {row["method"] for row in long} == {"classical"}
    # One that does not stand beside one that does.
    job = done["denoise", "classical"]
    name = job.names[0]
    job.record["failures"] = {name: "the loop diverged; take more steps"}
    job.rows.pop(0)
    _, (grid,) = comparison.collect(plan, done, refused, Judge({}))
    assert "classical: 1 of 2 images failed: the loop diverged" in grid.notes()
    assert np.isfinite(grid.cells["classical", "psnr"].value)


def test_a_failed_image_is_in_the_summary(tiny_checkpoint, tmp_path):
    given = {"task": "denoise", "input": str(SAMPLES), "limit": 1, "output": str(tmp_path / "out"), **FEW}
    given |= {"checkpoint": str(tiny_checkpoint), "sampler": "euler_maruyama", "time_grid": "uniform", "num_steps": 3}
    prepare(resolve(given)).run()
    failures = json.loads((tmp_path / "out" / "summary.json").read_text())["failures"]
    (failure,) = failures.values()
    assert failure.startswith("the loop diverged; its measurement is -")
    assert failure.endswith("; take more steps, or sampler ancestral with covariance")


def of(*owners) -> dict:
    """The flags of some settings classes with their defaults."""
    return {f.name: f.default for owner in owners for f in fields(owner) if f.setting.flag}


@pytest.mark.parametrize(
    ("task", "method"),
    [
        (name, method)
        for name, task in TASKS.items()
        for method, kind in METHODS.items()
        if not task.requires and kind.blind in (None, task.blind)
    ],
)
def test_a_job_records_every_setting_that_it_uses(task, method):
    """The defaults of the classes and nothing else, but for what the preset or the method says."""
    found, kind = find_task(task), METHODS[method]
    job = resolve({"task": task, "method": method, **PLACES})
    diffusion = [CLD] if method == "cvsa" else []
    shared = of(JobSettings, found.settings, NOISES["gaussian"], *diffusion)
    shared |= {"task": task, "method": method, **PLACES}
    own = of(kind.settings)
    assert job.values().keys() == shared.keys() | own.keys()
    assert {name: job.values()[name] for name in shared} == shared
    if method == "cvsa":
        preset = preset_of(task).values()
        assert {name: job.values()[name] for name in own} == own | preset
    free = {f.name for f in fields(JobSettings) if f.setting.free}
    places = {"input", "list", "output", "profile"}
    means = {"batch_size", "remat", "split_rows", "shard_params"}
    assert free == places | means | {"limit", "shard", "overwrite", "report"}
    assert records.plain(job.record()).keys() == job.values().keys() - free


def test_defaults_exist_once():
    """The library's own arguments have those of the programs; blind tasks share theirs."""
    assert inspect.signature(load_prior).parameters["folder"].default == JobSettings.checkpoint
    assert {f.name: f.default for f in fields(BlindSettings)} == {"kernel_checkpoint": KERNELS, "search_guesses": 8}
    for task in TASKS.values():
        for field in fields(task.settings):
            assert field == next(f for f in known()["Degradation"][1] if f.name == field.name)
    named = of(SamplerSettings)
    for name, parameter in inspect.signature(restore).parameters.items():
        if name in named and parameter.default is not inspect.Parameter.empty:
            assert parameter.default == named[name]


@pytest.mark.parametrize(
    ("classes", "label", "told"),
    [
        ((5, 5), 3, [3, 3]),
        ((5, 0), 3, [3, None]),
        ((0, 5), 3, [None, 3]),
        ((0, 0), 3, [3, None]),  # which the first refuses
        ((5, 5), None, [None, None]),
        ((5,), 3, [3]),
        ((0,), 3, [3]),
    ],
)
def test_of_two_priors_each_that_knows_classes_is_told_the_class(monkeypatch, tmp_path, classes, label, told):
    folders, loaded = [str(tmp_path / str(i)) for i in range(len(classes))], []
    for folder, number in zip(folders, classes, strict=True):
        record = {"network": spec_to_json(NetworkSpec(classes=number)), **statistics_to_json(None, None, ())}
        records.write_json(tmp_path / folder / "prior.json", record | {"training": {}})

    def load(checkpoint, cld, dtype, remat, class_label, pyramid):
        loaded.append((checkpoint, class_label))
        return SimpleNamespace(prior=SimpleNamespace(highest_noise=None))

    monkeypatch.setattr(job_settings, "load_prior", load)
    monkeypatch.setattr(job_settings, "experts", lambda *two: two)
    given = dict(zip(("checkpoint", "high_noise_checkpoint"), folders, strict=False)) | {"class_label": label}
    resolve({"task": "sr2", **PLACES, **given}).prior()
    assert loaded == list(zip(folders, told, strict=True))
