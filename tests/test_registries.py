"""A part that is written but not registered fails here by its name."""

import ast
import configparser
import pathlib

import pytest
from conftest import ROOT

from cvsa_jax import baselines, guidance, measures, operators, samplers
from cvsa_jax.operators import registry


def modules(package) -> list[pathlib.Path]:
    """The files of a package."""
    return sorted(p for p in pathlib.Path(package.__file__).parent.glob("*.py") if p.stem != "__init__")


def functions(path: pathlib.Path) -> dict[str, list[str]]:
    """The arguments of a file's public functions, by name."""
    found = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.FunctionDef)]
    return {n.name: [a.arg for a in n.args.args] for n in found if not n.name.startswith("_")}


@pytest.mark.parametrize("path", modules(operators), ids=lambda p: p.stem)
def test_a_module_with_tasks_is_in_the_registry(path):
    """And each of its operators is made by one of the tasks, so that --operator takes it."""
    assigned = {t.id for n in ast.parse(path.read_text()).body if isinstance(n, ast.Assign)
                for t in n.targets if isinstance(t, ast.Name)}  # fmt: skip
    if path.stem not in ("registry",) and "TASKS" in assigned:
        assert path.stem in registry.MODULES, f"add {path.stem!r} to operators/registry.py, MODULES"
    made = {c.__name__ for task in operators.TASKS.values() for c in task.makes}
    helpers = {"Operator", "Function", "View", "LinearLight", "Chain", "Stacked", "Matrix"}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and "Operator" in [getattr(b, "id", "") for b in node.bases]:
            assert node.name in made | helpers, f"no task's `makes` names {node.name}"


@pytest.mark.parametrize("path", modules(samplers), ids=lambda p: p.stem)
def test_a_sampler_is_registered(path):
    """A public function (cld, times, ...) that returns a Sampler is in SAMPLERS."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = [a.arg for a in node.args.args]
            if arguments[:2] == ["cld", "times"] and ast.unparse(node.returns or ast.Constant(None)) == "Sampler":
                assert node.name in samplers.SAMPLERS, f"add {node.name!r} to samplers/__init__.py, SAMPLERS"


@pytest.mark.parametrize("path", modules(guidance), ids=lambda p: p.stem)
def test_a_form_of_guidance_is_registered(path):
    """A public function of a Problem is in GUIDANCES."""
    for name, arguments in functions(path).items():
        if arguments == ["problem"]:
            assert name in guidance.GUIDANCES, f"add {name!r} to guidance/__init__.py, GUIDANCES"


@pytest.mark.parametrize("path", modules(baselines), ids=lambda p: p.stem)
def test_a_baseline_is_registered(path):
    """A public function whose first argument is a denoiser and that has num_steps is in one of the registries."""
    for name, arguments in functions(path).items():
        if arguments[:1] == ["denoise"] and "num_steps" in arguments:
            assert name in baselines.BASELINES | baselines.BLIND_BASELINES, f"add {name!r} to baselines/__init__.py"


def test_a_measure_says_where_it_comes_from():
    """One of an image computes itself; the others are those that the judge of sets computes."""
    for name, measure in measures.MEASURES.items():
        assert measure.compute is not None or name in ("lpips", "fid", "patch_distance"), f"{name} is computed nowhere"
        assert measure.heading, f"{name} has no heading"


def test_every_package_is_in_the_wheel():
    """setup.cfg lists the packages by hand, as the shipped priors are one that lies elsewhere."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "cvsa_jax").rglob("__init__.py")}
    assert listed == found | {"cvsa_jax.shipped"}
