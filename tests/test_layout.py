"""The reading order is the data flow: a module imports only what comes before it."""

import ast

import pytest
from conftest import ROOT

ORDER = [
    "version", "types", "noise", "diffusion", "spectral", "priors", "closed_form", "models", "importers",
    "operators", "samplers", "guidance", "baselines",
    "restore", "blind", "networks", "sharding", "data", "frechet", "metrics", "evidence", "kernel_search", "batch",
    "plots", "training", "checkpoints",
]  # fmt: skip


def imports(path) -> set[str]:
    """Absolute names of the modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module == "cvsa_jax" else {node.module}
    return found


def part(module: str) -> str:
    return module.split(".")[1]


FILES = sorted((ROOT / "cvsa_jax").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_data_flow(path):
    inner = path.relative_to(ROOT / "cvsa_jax")
    own = inner.parts[0].removesuffix(".py")
    for module in imports(path):
        assert not module.startswith("experiments")
        if module.startswith("cvsa_jax.") and own != "__init__":
            assert ORDER.index(part(module)) <= ORDER.index(own), f"{inner} imports {module}"
        for library, owner in {"orbax": "checkpoints", "grain": "data", "absl": None}.items():
            if module.split(".")[0] == library:
                assert own == owner, f"{inner} imports {library}"


def test_every_module_is_placed():
    assert {p.relative_to(ROOT / "cvsa_jax").parts[0].removesuffix(".py") for p in FILES} == {*ORDER, "__init__"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_stay_readable(path):
    assert len(path.read_text().splitlines()) <= 250


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_names_are_documented(path):
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"
