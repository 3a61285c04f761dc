"""The command `cvsa`: verbs, flags and their help, what each verb hands on, and a task of one's own."""

import csv
import dataclasses
import importlib
import json
import pathlib
import runpy
import sys

import flax.struct
import jax
import pytest
from conftest import SAMPLES
from PIL import Image

from cvsa_jax import CLD, TASKS, Operator, SamplerSettings, __version__, commands, register_task
from cvsa_jax.checkpoints import DEFAULT, KERNELS, find_prior
from cvsa_jax.commands import VERBS, ablate, evaluate, flags
from cvsa_jax.evaluation import ablation, comparison
from cvsa_jax.jobs import resolve
from cvsa_jax.jobs.settings import JobSettings, known
from cvsa_jax.noise import NOISES
from cvsa_jax.operators import find_task
from cvsa_jax.operators.registry import _composed
from cvsa_jax.operators.task import Task
from cvsa_jax.settings import Settings, build, fields, setting, text_of
from cvsa_jax.types import InputError

IMAGE = SAMPLES / "clothing_001.png"


def module(verb: str):
    return importlib.import_module(f"cvsa_jax.commands.{VERBS[verb][0]}")


def names(groups) -> list[str]:
    return [f.name for _, some in groups.values() for f in some if f.setting.flag]


def error(done) -> str:
    """The one line of a command that refused."""
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def sections(page: str) -> dict[str, str]:
    """The text of each heading of a help page, each flag on one line."""
    found, heading = {}, ""
    for line in page.splitlines():
        if line and not line.startswith(" "):
            heading = line.split(".")[0]
        else:
            found[heading] = found.get(heading, "") + ("\n" if line.startswith("  --") else " ") + line.strip()
    return found


# The command itself.


def test_alone_it_says_what_there_is(run_verb):
    alone = run_verb(None)
    assert alone.returncode == 1
    for verb, (_, summary) in VERBS.items():
        assert any(line.split() == [verb, *summary.split()] for line in alone.stdout.splitlines())
    for word in ("--help", "-h", "help"):
        asked = run_verb(None, word)
        assert (asked.returncode, asked.stdout) == (0, alone.stdout)


def test_its_version_is_the_packages(run_verb):
    done = run_verb(None, "--version")
    assert (done.returncode, done.stdout) == (0, f"cvsa_jax {__version__}\n")


@pytest.mark.parametrize(("word", "meant"), [("restor", "restore"), ("tables", None), ("--task=sr4", None)])
def test_an_unknown_verb_is_refused(run_verb, word, meant):
    text = error(run_verb(None, word))
    assert f"there is no verb {word!r}" in text
    assert text.endswith(f"the verbs are {', '.join(VERBS)}\n")
    assert (f"did you mean {meant}?" in text) == (meant is not None)


def test_a_verb_takes_the_rest_of_the_line(run_verb):
    assert run_verb(None, "restore", "--list_tasks").stdout == run_verb("restore", "--list_tasks").stdout


@pytest.mark.parametrize("verb", VERBS)
def test_a_program_by_its_old_name_is_the_verb(verb, monkeypatch, capsys):
    name = f"experiments.{VERBS[verb][0]}"
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    runpy.run_module(name, run_name="__main__")
    old = capsys.readouterr().out
    commands.main(verb, ["--help"])
    assert old == capsys.readouterr().out != ""


@pytest.mark.parametrize(
    ("problem", "line"), [(InputError("it\n is bad"), "error: it is bad\n"), (KeyboardInterrupt(), "\nstopped")]
)
def test_what_stops_a_run_is_one_line(run_verb, monkeypatch, problem, line):
    def work():
        raise problem

    monkeypatch.setattr("cvsa_jax.commands.benchmark.check", lambda given: work)
    done = run_verb("benchmark")
    assert done.returncode == (1 if isinstance(problem, InputError) else 130)
    assert done.stderr.startswith(line)


def test_a_fault_of_ours_keeps_its_trace(run_verb, monkeypatch):
    """An error that is not the user's, once the work has begun."""

    def work():
        raise ValueError("a bug")

    monkeypatch.setattr("cvsa_jax.commands.benchmark.check", lambda given: work)
    with pytest.raises(ValueError, match="a bug"):
        run_verb("benchmark")


# Flags and their help.


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_every_flag_under_its_heading(verb, run_verb):
    """With its sentence, its range and its default; each once."""
    own = module(verb)
    done = run_verb(verb, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(own.__doc__.strip())
    assert run_verb(verb, "--task=sr4", "-h").stdout == done.stdout
    page, shown = sections(done.stdout[len(own.__doc__.strip()) :]), set()
    for heading, (_, some) in own.groups().items():
        lines = page[heading].splitlines()
        for field in some:
            if not field.setting.flag or field.name in shown:
                continue
            shown.add(field.name)
            (line,) = [text for text in lines if text.startswith(f"--{field.name}: ")]
            assert field.setting.help in line
            assert field.setting.describe() in line
            if field.setting.otherwise:
                assert f"by default {field.setting.otherwise}" in line
            elif field.default not in (None, (), False):
                assert f"by default {text_of(field.default)}" in line
    assert sum(text.count("\n--") for text in page.values()) == len(shown) == len(set(names(own.groups())))


def test_the_defaults_of_the_library_are_those_of_restore(run_verb):
    """Every setting of the package is a flag with the default of its class; a preset's are said to be its own."""
    page = sections(run_verb("restore", "--help").stdout)
    owners = {"Job": [JobSettings], "Degradation": [t.settings for t in TASKS.values()], "Noise": NOISES.values(),
              "Restoration": [SamplerSettings], "Diffusion": [CLD]}  # fmt: skip
    assert "By default that of the task's preset" in "".join(run_verb("restore", "--help").stdout)
    for heading, classes in owners.items():
        for owner in classes:
            for field in fields(owner):
                if not field.setting.flag:
                    continue
                (line,) = [text for text in page[heading].splitlines() if text.startswith(f"--{field.name}: ")]
                if heading == "Restoration":
                    assert "by default" not in line
                elif field.default not in (None, False):
                    assert f"by default {text_of(field.default)}" in line


def test_help_says_what_a_flag_belongs_to(run_verb):
    for verb in ("restore", "evaluate"):
        page = sections(run_verb(verb, "--help").stdout)
        for field in known()["Degradation"][1]:
            (line,) = [text for text in page["Degradation"].splitlines() if text.startswith(f"--{field.name}: ")]
            tasks = [name for name, task in TASKS.items() if field.name in [f.name for f in fields(task.settings)]]
            assert line.strip().endswith(f"[--task={', '.join(tasks)}]")
        assert "[--noise=poisson, poisson_gaussian]" in page["Noise"].replace("\n", " ")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("argument", "message"),
    [("--outputt=a", "Unknown command line flag 'outputt'"), ("stray", "unexpected argument 'stray'; flags start wi")],
)
def test_what_is_no_flag_is_refused(verb, argument, message, run_verb):
    assert message in error(run_verb(verb, argument))


def test_an_unknown_flag_has_a_suggestion(run_verb):
    assert "num_steps" in error(run_verb("restore", "--num_step=5"))


@pytest.mark.parametrize("argument", ["--num_steps=many", "--mass=heavy", "--num_steps=2.5", "--num_steps"])
def test_what_cannot_be_read_is_refused(argument, run_verb):
    assert argument.split("=")[0].lstrip("-") in error(run_verb("restore", argument))


def test_only_what_is_given_is_given():
    """So that a default is never mistaken for a wish."""
    assert flags.parse([], known()) == {}
    given = flags.parse(["--task=sr4", "--nomeasured", "--num_steps=3", "--method_settings=a=1,b=2"], known())
    assert given == {"task": "sr4", "measured": False, "num_steps": 3, "method_settings": ("a=1", "b=2")}
    sweeps = flags.parse(["--sweep=mass=.1,1", "--sweep=beta=2"], ablate.groups())
    assert sweeps == {"sweep": ("mass=.1,1", "beta=2")}


def test_shared_flags_mean_the_same_everywhere():
    """Of every verb: one help, one default, but where the verb says that its own differs."""
    own = {f.name: f for _, some in known().values() for f in some}
    shared = ("checkpoint", "noise", "seed", *(f.name for f in fields(CLD)))
    found = 0
    for verb in VERBS:
        for _, some in module(verb).groups().values():
            for field in some:
                if field.name in shared and verb != "train":
                    assert field == own[field.name]
                    found += 1
    assert found > 20
    for verb in ("evaluate", "ablate"):
        for heading in ("Degradation", "Noise", "Diffusion"):
            assert module(verb).groups()[heading][1] == known()[heading][1]


# What evaluate and ablate hand on.


def plan_of(tmp_path, *arguments):
    given = flags.parse([f"--data={SAMPLES}", f"--output={tmp_path / 'out'}", *arguments], evaluate.groups())
    own = build(evaluate.EvaluateSettings, given)
    return evaluate.make_plan(own, given)[0]


def test_evaluate_hands_a_setting_to_the_tasks_that_have_it(tmp_path):
    """To each of their rows; noise and diffusion to all."""
    plan = plan_of(
        tmp_path, "--tasks=sr4,motion_deblur,checkout,jpeg", "--motion_intensity=.25", "--jpeg_quality=30",
        "--methods=cvsa,dps,classical", "--noise=poisson", "--photons=50", "--mass=.5", "--seed=3",
    )  # fmt: skip
    for task in plan.tasks:
        for row in ("cvsa", "dps"):
            values = comparison.job_of(plan, task, row).values()
            assert values.get("motion_intensity") == (0.25 if task in ("motion_deblur", "checkout") else None)
            assert values.get("jpeg_quality") == (30 if task == "jpeg" else None)
            assert (values["noise"], values["photons"], values["seed"]) == ("poisson", 50, 3)
            assert values.get("mass") == (0.5 if row == "cvsa" else None)  # DPS has no such diffusion
    assert not (tmp_path / "out").exists()


def test_evaluate_takes_every_operator_and_noise_flag(tmp_path):
    """Each alone, with a task that has it."""
    for field in known()["Degradation"][1]:
        task = next(t for t in TASKS.values() if field.name in [f.name for f in fields(t.settings)])
        value = {int: 5, float: 0.5 + (field.setting.low or 0) / 2, str: "file.npy"}[field.kind]
        if field.setting.choices is not None:
            value = list(field.setting.choices)[-1]
        given = [f"--{name}=file.npy" for name in task.requires if name != field.name]
        plan = plan_of(tmp_path, f"--tasks={task.name}", f"--{field.name}={value}", *given)
        assert comparison.job_of(plan, task.name, "cvsa").values()[field.name] == value
        assert len(plan.rows) > 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks=sr4", "--jpeg_quality=5"], "--jpeg_quality belongs to --tasks=jpeg, not to sr4"),
        (["--preset=table1", "--exposure=2"], "--exposure belongs to --tasks=nonlinear_deblur, not to sr4, box_inp"),
        (["--tasks=jpeg", "--jpeg_quality=0"], "jpeg_quality must be at least 1"),
        (["--tasks=sr4", "--photons=5"], "--photons belongs to --noise=poisson"),
        (["--tasks=motion_deblur", "--kernel=a.npy", "--kernel_size=5"], "--kernel_size has no effect beside --kernel"),
        (["--tasks=sr4", "--preset=table1"], "give --preset or --tasks"),
        ([], "give --preset or --tasks"),
        (["--tasks=sr4", "--num_steps=5"], "Unknown command line flag 'num_steps'"),
        (["--tasks=mask_inpaint"], "mask_inpaint needs --mask=FILE"),
        (["--preset=table9"], "preset must be one of table1, table2, table3, got 'table9'"),
    ],
)
def test_evaluate_refuses_what_no_job_takes(run_verb, arguments, message, tmp_path):
    done = run_verb("evaluate", f"--data={SAMPLES}", f"--output={tmp_path / 'out'}", *arguments)
    assert message in error(done)
    assert not (tmp_path / "out").exists()


def test_evaluate_judges_samples_alone(run_verb, tmp_path):
    done = run_verb("evaluate", f"--results={tmp_path}", "--tasks=sr4")
    assert "--tasks has no effect beside --results" in error(done)


def test_the_papers_blur_takes_the_place_of_the_cameras_if_its_weights_are_given(tmp_path):
    assert plan_of(tmp_path, "--preset=table2").tasks == ["phase_retrieval", "nonlinear_deblur"]
    assert plan_of(tmp_path, "--preset=table2", "--bkse_weights=a.npz").tasks == ["phase_retrieval", "bkse_deblur"]


def test_help_tells_the_default_and_the_places_that_a_verb_has():
    """A number is the default where there is one, not another verb's words; a bucket where a bucket is taken."""
    buckets = set()
    for verb in VERBS:
        for _, some in module(verb).groups().values():
            for field in some:
                if field.default not in (None, (), ""):
                    assert not field.setting.otherwise, (verb, field.name)
                if "bucket, as" in flags.describe(field):
                    buckets.add((verb, field.name))
    assert buckets == {("restore", "input"), ("restore", "output")}


def test_ablate_takes_every_flag_of_restore():
    """But those that it decides itself; nothing of it is on a bucket."""
    assert {*names(ablate.groups())} == {*names(known()), "sweep"} - {*ablation.ALWAYS}
    assert not [f.name for _, some in ablate.groups().values() for f in some if f.setting.remote]


@pytest.mark.parametrize("verb", ["restore", "ablate", "evaluate"])
def test_every_verb_with_jobs_ends_alike_if_images_fail(run_verb, tmp_path, verb):
    """With 1 and one line, when all is written; then with 0, when nothing fails any more."""
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    Image.open(SAMPLES / "clothing_001.png").save(folder / "good.png")
    (folder / "bad.png").write_text("no picture")
    given = [f"--output={output}", "--image_size=16", "--noise_std=.05"]
    given += {
        "restore": [f"--input={folder}", "--task=denoise", "--method=classical", "--report"],
        "ablate": [f"--input={folder}", "--task=denoise", "--method=classical", "--sweep=seed=1,2"],
        "evaluate": [f"--data={folder}", "--tasks=denoise", "--methods=classical"],
    }[verb]
    for code in (1, 0):
        done = run_verb(verb, *given)
        assert done.returncode == code, done.stderr
        assert (output / "report.html").exists() and done.stdout
        count = {"ablate": 2}.get(verb, 1)
        line = f"error: {count} of the images failed, see {output}"
        assert [text.startswith(line) for text in done.stderr.splitlines() if "error" in text] == [True] * code
        if code:
            (output / "report.html").unlink()
            Image.open(SAMPLES / "clothing_003.png").save(folder / "bad.png")


def test_ablate_sweeps_a_setting_of_the_operator(run_verb, tmp_path, tiny_checkpoint):
    output = tmp_path / "out"
    done = run_verb(
        "ablate", "--task=random_inpaint", "--method=classical", f"--input={SAMPLES}", "--limit=1", "--image_size=16",
        f"--checkpoint={tiny_checkpoint}", "--sweep=missing=.2,.7", "--sweep=noise_std=.02,.3", f"--output={output}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with (output / "ablation.csv").open() as file:
        psnr = {(r["sweep"], r["value"]): float(r["figure"]) for r in csv.DictReader(file) if r["metric"] == "psnr"}
    assert psnr["missing", ".2"] > psnr["missing", ".7"]
    assert psnr["noise_std", ".02"] > psnr["noise_std", ".3"]
    for value in (".2", ".7"):
        record = json.loads((output / f"missing={value}" / "summary.json").read_text())
        assert record["settings"]["missing"] == float(value)
        assert resolve(flags.parse(record["command"], known())).operator.missing == float(value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweep=jpeg_quality=5,10"], "--jpeg_quality belongs to --task=jpeg, not to --task=sr4"),
        (["--sweep=mass=1,-1"], "mass must be positive, got -1"),
        (["--sweep=mass=1,1"], "give different values"),
        (["--sweep=mass"], "give different values"),
        (["--sweep=mass=1,2", "--sweep=mass=3"], "a setting may be swept once"),
        (["--sweep=output=a,b"], "output is the same for all jobs"),
        (["--sweep=mass=1,2", "--report"], "Unknown command line flag 'report'"),
        (["--sweep=range=0,255"], "--sweep=range=0,255: range is a list, which has commas of its own, and cannot be"),
        (["--sweep=method_settings=eta=1"], "method_settings is a list"),
        (["--sweep=mass=1,2", "--input=gs://b/f"], "only --input and --output of cvsa restore take a bucket"),
        ([], "--sweep and --output are required"),
    ],
)
def test_ablate_refuses_what_no_job_takes(run_verb, arguments, message, tmp_path):
    done = run_verb("ablate", "--task=sr4", f"--input={IMAGE}", f"--output={tmp_path / 'out'}", *arguments)
    assert message in error(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kind=tasks", "--task=sr4"], "--task belongs to --kind=path, not to --kind=tasks"),
        (["--kind=path", "--limit=2"], "--limit belongs to --kind=checkout, not to --kind=path"),
        (["--kind=path", "--task=mask_inpaint"], "mask_inpaint needs a file, --mask"),
        (["--kind=sheet"], "kind must be one of tasks, path, checkout, got 'sheet'"),
        ([], "--kind is required"),
    ],
)
def test_figures_refuses_what_no_figure_takes(run_verb, arguments, message, tmp_path):
    done = run_verb("figures", f"--input={IMAGE}", f"--output={tmp_path / 'out'}", *arguments)
    assert message in error(done)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights=a.pth", "--output=OUT.npz"], "--network is required"),
        (["--network=vgg", "--weights=a.pth", "--output=OUT.npz"], "network must be one of bkse, inception, lpips"),
        (["--network=bkse", "--weights=a.pth", "--output=OUT"], "--output must end in .npz"),
        (["--network=bkse", "--weights=none.pth", "--output=OUT.npz"], "none.pth"),
        (["--network=bkse", "--weights=none.pth", f"--output={__file__}"], "--output must end in .npz"),
    ],
)
def test_import_refuses_what_it_cannot_read(run_verb, arguments, message, tmp_path):
    done = run_verb("import", *[a.replace("OUT", str(tmp_path / "out")) for a in arguments])
    assert message in error(done)
    assert not list(tmp_path.iterdir())


def test_import_writes_what_restore_reads(run_verb, small_encoder, tmp_path):
    """And never over a file."""
    flags_of = ("--network=bkse", f"--weights={small_encoder.source}", f"--output={tmp_path / 'deep' / 'out.npz'}")
    done = run_verb("import", *flags_of)
    assert done.returncode == 0, done.stderr
    assert find_task("bkse_deblur").settings(bkse_weights=str(tmp_path / "deep" / "out.npz")).bkse_weights
    assert "exists" in error(run_verb("import", *flags_of))


@pytest.mark.parametrize(
    ("argument", "message"),
    [("--task=bkse_deblur", "task must be one of"), ("--image_size=18", "a multiple of 4"), ("--repeats=0", "repeats")],
)
def test_benchmark_refuses_what_it_cannot_time(run_verb, argument, message, tiny_checkpoint):
    assert message in error(run_verb("benchmark", f"--checkpoint={tiny_checkpoint}", argument))


# Where it is run.


def test_compiled_programs_are_kept_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pathlib.Path, "home", lambda: tmp_path)
    for platform, place in (
        ("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local"),
    ):  # fmt: skip
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.delenv("LOCALAPPDATA", raising=False)
        assert commands.cache_folder() == tmp_path / place / "cvsa_jax"
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert commands.cache_folder() == tmp_path / "xdg" / "cvsa_jax"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    assert commands.cache_folder() == tmp_path / "own"


def test_shipped_priors_are_found_by_name_from_anywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in (DEFAULT, KERNELS):
        assert (find_prior(name) / "prior.json").is_file()
    (tmp_path / DEFAULT).mkdir()  # a folder of that name is meant as it stands
    assert find_prior(DEFAULT) == tmp_path / DEFAULT


def test_it_runs_from_any_folder(run_program, tiny_checkpoint, tmp_path):
    """Paths are relative to it; what was compiled is in the user's cache, and nothing is left elsewhere."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "image.png").write_bytes(IMAGE.read_bytes())
    done = run_program(
        "restore", "--task=denoise", "--input=image.png", "--output=out", "--image_size=16", "--num_steps=2",
        "--num_samples=1", f"--checkpoint={tiny_checkpoint}",
        cwd=tmp_path / "here", XDG_CACHE_HOME=str(tmp_path / "cache"), JAX_COMPILATION_CACHE_DIR=None,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here" / "out" / "restored" / "image.png").exists()
    assert {p.name for p in (tmp_path / "here").iterdir()} == {"image.png", "out"}
    assert {p.name for p in (tmp_path / "cache").iterdir()} == {"cvsa_jax"}
    assert list((tmp_path / "cache" / "cvsa_jax").iterdir())


# A task of one's own.


@flax.struct.dataclass
class Dimmed(Operator):
    """H(x) = level (x + 1) - 1."""

    level: float = flax.struct.field(pytree_node=False, default=1.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.level * (x + 1) - 1


@dataclasses.dataclass(frozen=True)
class DimSettings(Settings):
    """Of the toy."""

    dim_level: float = setting(0.5, "What is left of the light.", above=0, high=1)


@pytest.fixture
def dim():
    """A task with a setting of its own, known for one test."""
    register_task(
        Task("dim", "little light", lambda generator, h, w, own: Dimmed(own.dim_level), (Dimmed,), DimSettings)
    )
    yield
    del TASKS["dim"]
    _composed.cache_clear()


def test_a_task_of_ones_own_is_a_task(dim, run_verb, tiny_checkpoint, tmp_path):
    """Its setting is a flag, helped, checked, recorded, and refused of other tasks; its operator is stored."""
    shared = [f"--input={IMAGE}", "--image_size=16", f"--checkpoint={tiny_checkpoint}", "--num_steps=3"]
    few = [*shared, "--num_samples=1"]
    done = run_verb("restore", "--task=dim", "--dim_level=.25", *few, f"--output={tmp_path / 'a'}")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "a" / "summary.json").read_text())
    assert record["settings"]["dim_level"] == 0.25
    assert "--dim_level=0.25" in record["command"]
    page = sections(run_verb("restore", "--help").stdout)["Degradation"]
    assert "--dim_level: What is left of the light. (positive and at most 1; by default 0.5) [--task=dim]" in page
    assert "\ndim: " in run_verb("restore", "--list_tasks").stdout
    stored = f"--operator={tmp_path / 'a' / 'operator' / 'clothing_001.npz'}"
    again = run_verb(
        "restore", "--task=dim", "--measured", stored, f"--input={tmp_path / 'a' / 'measurement'}",
        f"--checkpoint={tiny_checkpoint}", "--num_steps=3", "--num_samples=1", f"--output={tmp_path / 'b'}",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    chained = run_verb("restore", "--task=dim+sr2", "--dim_level=.75", *few, f"--output={tmp_path / 'c'}")
    assert chained.returncode == 0, chained.stderr
    for arguments, message in (
        (["--task=sr4", "--dim_level=.25"], "--dim_level belongs to --task=dim, not to --task=sr4"),
        (["--task=dim", "--dim_level=2"], "dim_level must be positive and at most 1, got 2"),
        (["--task=dim", "--kernel_size=5"], "--kernel_size belongs to --task="),
        (["--task=sr4", stored], "is a Dimmed, but --task=sr4 takes Separable"),
    ):
        assert message in error(run_verb("restore", *arguments, *few, f"--output={tmp_path / 'd'}"))
    assert not (tmp_path / "d").exists()
    plan = plan_of(tmp_path, "--tasks=dim,sr4", "--dim_level=.3", "--methods=cvsa")
    assert comparison.job_of(plan, "dim", "cvsa").values()["dim_level"] == 0.3


def test_a_name_or_a_setting_cannot_mean_two_things(dim):
    @dataclasses.dataclass(frozen=True)
    class Other(Settings):
        missing: int = setting(3, "Something else.")

    with pytest.raises(ValueError, match="two different settings are called missing"):
        register_task(Task("other", "", lambda *_: Dimmed(), (Dimmed,), Other))
    with pytest.raises(ValueError, match="there is a task dim already"):
        register_task(Task("dim", "", lambda *_: Dimmed(), (Dimmed,)))
    with pytest.raises(ValueError, match=r"cannot have a \+"):
        register_task(Task("a+b", "", lambda *_: Dimmed(), (Dimmed,)))
    assert "other" not in TASKS
