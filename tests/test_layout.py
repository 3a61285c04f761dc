"""The reading order is the data flow: a module imports only what comes before it."""

import ast
import configparser
import graphlib

import pytest
from conftest import ROOT

from cvsa_jax.commands import VERBS

PACKAGE = ROOT / "cvsa_jax"
ALGORITHMS = [
    "version", "types", "npy", "seeds", "writing", "remote", "settings", "numerics", "transforms", "diffusion", "noise",
    "spectral", "calibration", "coefficients", "pyramid", "priors", "experts", "tiles", "closed_form", "adapters",
    "pictures", "images", "folders", "models", "parameterizations", "networks", "descriptions", "importers",
    "exporters", "operators", "door", "samplers", "denoising", "guesses", "guidance", "sampler_settings", "plans",
    "presets", "baselines", "restoration", "posterior", "blind", "processes", "sharding", "placement", "data",
    "growing", "frechet", "metrics", "measures", "evidence", "noise_estimation", "kernel_search", "loops", "batch",
    "plots", "training", "photographs", "checkpoints",
]  # fmt: skip
PROGRAMS = ["jobs", "evaluation", "commands", "__main__"]
ORDER = ALGORITHMS + PROGRAMS
# Libraries that one part alone imports.
OWNERS = {"orbax": "checkpoints", "grain": "data", "absl": "commands", "safetensors": "importers", "fsspec": "remote"}
FILES = sorted(PACKAGE.rglob("*.py"))


def each(paths):
    return pytest.mark.parametrize("path", paths, ids=lambda p: str(p.relative_to(ROOT)))


def parse(path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path) -> set[str]:
    """Absolute names of the modules that a file imports, and of what it imports from packages of this one."""
    found = set()
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if (ROOT / str(node.module).replace(".", "/")).is_dir() else {str(node.module)}
    return found


def own_part(path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@each(FILES)
def test_imports_follow_the_data_flow(path):
    own = own_part(path)
    for module in imports(path):
        assert module.split(".")[0] != "experiments"
        library = module.split(".")[0]
        assert library not in OWNERS or own == OWNERS[library], f"{path} imports {library}"
        if library != "cvsa_jax":
            continue
        part = module.split(".")[1]
        if own == "__init__":  # the package shows what algorithms have, without the programs
            assert part in ALGORITHMS
        else:
            assert ORDER.index(part) <= ORDER.index(own), f"{path} imports {module}"


def test_every_module_is_placed():
    assert {own_part(p) for p in FILES} == {*ORDER, "__init__"}
    assert len(set(ORDER)) == len(ORDER)


def test_no_two_modules_need_each_other():
    """Within a part too, where a package may import its modules but they not the package."""
    graph = {}
    for path in FILES:
        names = path.relative_to(ROOT).with_suffix("").parts
        graph[".".join(names)] = needed = set()
        for module in imports(path):
            parts = module.split(".")
            found = [ROOT.joinpath(*parts).with_suffix(".py"), ROOT.joinpath(*parts[:-1], "__init__.py")]
            found = [f for f in found if f in FILES][:1]
            if found and found[0] != path:
                needed.add(".".join(found[0].relative_to(ROOT).with_suffix("").parts))
    list(graphlib.TopologicalSorter(graph).static_order())


@each(FILES)
def test_the_command_line_is_read_in_one_place(path):
    """sys.argv by `cvsa_jax.commands.main` alone, and no flag is known to the whole process."""
    for node in ast.walk(parse(path)):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        assert name != "FLAGS"
        assert name != "argv" or path == PACKAGE / "commands" / "__init__.py"


@each(FILES)
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 250


@each(FILES)
def test_public_names_are_documented(path):
    for node in parse(path).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"


@pytest.mark.parametrize("verb", VERBS)
def test_programs_by_their_old_names_only_call_the_command(verb):
    path = ROOT / "experiments" / f"{VERBS[verb][0]}.py"
    assert len([line for line in path.read_text().splitlines() if line.strip()]) <= 3
    calls = [n for n in ast.walk(parse(path)) if isinstance(n, ast.Call)]
    assert [[a.value for a in c.args] for c in calls] == [[verb]]
    assert imports(path) == {"cvsa_jax.commands.main"}


def test_an_installed_package_has_all_of_it():
    """Every package, what is no Python in one, and the command."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = {".".join(p.parent.relative_to(ROOT).parts) for p in PACKAGE.rglob("__init__.py")}
    assert set(config["options"]["packages"].split()) == packages | {"cvsa_jax.shipped"}
    assert config["options.entry_points"]["console_scripts"].split() == ["cvsa", "=", "cvsa_jax.commands:main"]
    stated = {ROOT.joinpath(*p.split("."), f) for p, fs in config["options.package_data"].items() for f in fs.split()}
    other = {p for p in PACKAGE.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert other == {p for p in stated if "shipped" not in p.parts}
