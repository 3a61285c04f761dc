"""The documents say what is: links lead somewhere, flags and names exist, examples and commands are right."""

import contextlib
import importlib.util
import re

import jax
import jax.numpy as jnp
import pytest
from conftest import ROOT, SAMPLES

from cvsa_jax import GUIDANCES, SAMPLERS, TASKS, Operator
from cvsa_jax.baselines import BASELINES, baseline_loop
from cvsa_jax.commands import VERBS, flags
from cvsa_jax.diffusion import TIME_GRIDS
from cvsa_jax.evaluation.comparison import ROWS
from cvsa_jax.importers.formats import FORMATS
from cvsa_jax.importers.known import KNOWN
from cvsa_jax.jobs.methods import METHODS
from cvsa_jax.jobs.settings import known
from cvsa_jax.noise import NOISES
from cvsa_jax.samplers import run_steps
from cvsa_jax.version import __version__

_SPEC = importlib.util.spec_from_file_location("documents_run", ROOT / "docs" / "run.py")
runner = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(runner)

README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").glob("*.md"))
SAMPLE_PAGE = ROOT / "experiments" / "samples" / "README.md"
DOCUMENTS = [README, *PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", SAMPLE_PAGE]
DOCUMENTS += sorted((ROOT / "checkpoints").glob("*/MODEL_CARD.md"))
OTHERS = tuple(f"experiments.{n}" for n in ("large", "noise_estimates", "posterior_benchmark", "wrong_measurements"))
EXAMPLE_LINES, README_LINES, README_WIDTH = 20, 200, 132


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda p: str(p.relative_to(ROOT)))


def prose(path) -> str:
    """A document without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)


def anchors(path) -> set[str]:
    """Of the headings of a document, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(path), re.M)
    kept = (re.sub(r"[^\w\- ]", "", re.sub(r"`", "", title)) for title in titles)
    return {title.strip().lower().replace(" ", "-") for title in kept}


def groups_of(program: str):
    """The flags of a verb, or of one of the programs that are no verbs."""
    if program in VERBS:
        return importlib.import_module(f"cvsa_jax.commands.{VERBS[program][0]}").groups()
    assert program in OTHERS
    return importlib.import_module(program).groups()


def code(path) -> list:
    """The blocks of Python of a document."""
    return [block for block in runner.blocks(path) if block.language == "python"]


def test_the_readme_stays_short():
    lines = README.read_text().splitlines()
    assert len(lines) <= README_LINES
    assert max(map(len, lines)) <= README_WIDTH


def test_the_version_is_the_same_everywhere():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


@each(DOCUMENTS)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{path.name} links to {target}, which is not there"
        assert not anchor or anchor in anchors(file), f"{path.name} links to {target}, which is no heading"


@pytest.fixture(scope="module")
def every_flag() -> set[str]:
    groups = [groups_of(program) for program in (*VERBS, *OTHERS)]
    names = {f.name for group in groups for _, some in group.values() for f in some if f.setting.flag}
    return names | {"help", "version"}


@each(DOCUMENTS)
def test_flags_that_are_named_exist(path, every_flag):
    text = path.read_text()
    named = set(re.findall(r"(?<![\w-])--([a-zA-Z]\w*)", text))
    assert named <= every_flag | set(re.findall(r"(\w+): \w+ = setting\(", text))


@each(DOCUMENTS)
def test_commands_can_be_read(path):
    """Every verb is one, and has the flags with values of their kind; `make docs` runs them."""
    for command in (c for one in runner.collect(path) for c in runner.expand(one)):
        words = list(command.words)
        if words[0] not in ("cvsa", "python") or "--help" in words:
            continue
        head = [word for word in words if not word.startswith("--")]
        given = flags.parse([word for word in words if word.startswith("--")], groups_of(head[-1])) if (
            head[1] != "mine.py"
        ) else {}  # fmt: skip
        task = given.get("task")
        if isinstance(task, str) and task != "TASK":
            assert set(task.split("+")) <= TASKS.keys(), f"{path.name}:{command.line}"


def test_commands_are_found():
    """Joined lines, blocks within lists, and commands within the text."""
    found = [c for path in (README, *PAGES, *(ROOT / "checkpoints").glob("*/*.md")) for c in runner.collect(path)]
    texts = [c.text for c in found]
    assert any(text.startswith("cvsa train --data=kernels") and "--output=runs/kernels16" in text for text in texts)
    assert any("euler_maruyama" in text and text.startswith("cvsa restore --task=denoise") for text in texts)
    assert all(not text.endswith("\\") for text in texts)
    assert {"make restore", "make test"} <= set(texts)


@pytest.mark.parametrize(
    "names", [TASKS, SAMPLERS, GUIDANCES, METHODS, ROWS, TIME_GRIDS, NOISES, VERBS], ids=lambda names: next(iter(names))
)
def test_names_are_documented(names):
    text = "".join(page.read_text() for page in PAGES)
    missing = [name for name in names if not re.search(rf"[`=, ]{name}[`, \n.+]", text)]
    assert not missing


def test_flags_of_a_job_are_documented():
    text = (ROOT / "docs" / "tasks.md").read_text()
    names = {f.name for _, some in known().values() for f in some if f.setting.flag}
    assert [name for name in sorted(names) if f"--{name}" not in text] == []


def test_what_may_differ_between_two_runs_of_a_job_is_documented():
    (told,) = re.findall(r"give `--overwrite`\. (`--[^.]*) may differ\.", (ROOT / "docs" / "tasks.md").read_text())
    free = {f.name for _, some in known().values() for f in some if f.setting.free} - {"output", "overwrite"}
    assert set(re.findall(r"--(\w+)", told)) == free


def test_public_models_and_formats_are_documented():
    """Each model with its format, its file and its number of parameters."""
    text = (ROOT / "docs" / "models.md").read_text()
    for name, model in KNOWN.items():
        count = f"{model.parameters:,}" if model.parameters else "-"
        assert f"| `{name}` | `{model.format}` | {model.file} | {model.size} | {count} | {model.home} |" in text
    assert [name for name in FORMATS if f"`{name}`" not in text] == []


@pytest.fixture
def registries(monkeypatch):
    """What an example registers is forgotten again."""
    tables: tuple[dict, ...] = (TASKS, SAMPLERS, GUIDANCES, BASELINES, METHODS, Operator.CLASSES)
    before = [dict(table) for table in tables]
    yield
    for table, old in zip(tables, before, strict=True):
        table.clear()
        table.update(old)


@pytest.fixture
def run_code(monkeypatch, tiny_checkpoint, registries):
    """Runs the Python of a document, block after block, at a tiny size; returns what it leaves."""
    monkeypatch.chdir(ROOT)

    def run(path) -> dict:
        names: dict = {"__name__": "example"}
        for block in code(path):
            text = runner.tiny_code(block.text, str(tiny_checkpoint), str(SAMPLES))
            program = compile("\n" * (block.line - 1) + text, str(path), "exec")
            with contextlib.redirect_stdout(None):
                exec(program, names)
        return names

    return run


def test_examples_of_the_readme_run(run_code, tmp_path):
    assert all(len(block.text.splitlines()) <= EXAMPLE_LINES for block in code(README))
    names = run_code(README)
    side = runner.SIDE
    assert names["result"].image.shape == (side, side, 3)
    assert bool(jnp.isfinite(names["result"].image).all())
    assert "faded" in TASKS
    assert "pnp" in METHODS
    loop = baseline_loop("pnp", names["ys"][0], names["blur"], names["prior"], (side, side, 3), 5, 0.05)
    state, trace = run_steps(loop, loop.init(jax.random.key(0), (side, side, 3)), 0, 5)
    assert bool(jnp.isfinite(state.x).all())
    assert trace.residual.shape == (5,)
    # The new names are known to the command line too, with their settings.
    text = flags.help_text("", groups_of("restore"))
    assert "--colour" in text
    assert all(name in text for name in ("calm", "gradient", "pnp"))


@each([page for page in PAGES if code(page)])
def test_python_of_the_pages_runs(path, run_code):
    run_code(path)


def test_the_runner_makes_commands_tiny():
    """What it replaces, and that it says which command of which line failed."""
    bench = runner.Workshop()
    words = ("cvsa", "restore", "--task=sr4", "--input=FOLDER", "--image_size=64", "--num_steps=1000", "--output=a/b")
    head, found, output = bench.shrink(runner.Command("README.md", 1, words))
    assert (head, output) == (["cvsa", "restore"], "a/b")
    assert found.get("input") == "photographs"
    assert int(found.get("image_size")) == runner.SIDE
    assert int(found.get("num_steps")) < 10
    broken = runner.Command("README.md", 1, ("cvsa", "restore", "--task=sr4", "--output=out", "--input=nowhere"))
    with pytest.raises(RuntimeError, match="nowhere"):
        bench.run(broken)
