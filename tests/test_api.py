"""What the packages export, what samplers say of themselves, and the presets."""

import importlib
import pkgutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cvsa_jax
from cvsa_jax import CLD, SamplerSettings, preset_of, time_grid
from cvsa_jax.guidance import GUIDANCES
from cvsa_jax.operators import TASKS
from cvsa_jax.plans import make_plan
from cvsa_jax.presets import AIMS, COMBINATIONS
from cvsa_jax.samplers import SAMPLERS, with_corrections
from cvsa_jax.types import Estimate, Info, UnsuitableError

PARTS = ("operators", "samplers", "guidance", "baselines", "models", "importers")
PACKAGES = ["cvsa_jax", *(f"cvsa_jax.{name}" for name in PARTS)]


@pytest.mark.parametrize("name", PACKAGES)
def test_no_export_hides_a_module(name):
    """`cvsa_jax.guidance.x` is the module x and no function of its name, whatever has been imported before."""
    package = importlib.import_module(name)
    modules = [info.name for info in pkgutil.iter_modules(package.__path__)]
    assert modules
    for module in modules:
        found = getattr(package, module, None)
        assert found is None or isinstance(found, types.ModuleType), f"{name} exports {module}, which hides its module"
        assert module not in getattr(package, "__all__", ())


@pytest.mark.parametrize("name", PACKAGES)
def test_exports_exist_once(name):
    package = importlib.import_module(name)
    exported = getattr(package, "__all__", [])
    assert len(set(exported)) == len(exported)
    for entry in exported:
        assert not isinstance(getattr(package, entry), types.ModuleType), f"{name} exports the module {entry}"


SHAPE = (2, 1, 1)


def evaluations(sampler, times) -> int:
    """How often a step asks for E[x_0 | u_t, y]."""
    asked = []

    def mean(x, v, index, dual=None):
        asked.append(1)
        return Estimate(jnp.zeros(SHAPE), Info(jnp.zeros(())), jnp.zeros(SHAPE), jnp.zeros(()), dual)

    with jax.disable_jit():
        sampler.step(sampler.init(jax.random.key(0), SHAPE), len(times) - 3, mean)
    return len(asked)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samplers_say_what_they_are(name):
    """Their evaluations, counted; whether they sample the posterior; whether they are of many particles."""
    cld = CLD()
    times = time_grid("logarithmic", 6, cld)
    particles = 2 if name == "particles" else None
    sampler = make_plan(SamplerSettings(name, num_steps=6, num_particles=particles), cld).sampler
    assert sampler.evaluations == evaluations(sampler, times) == 1
    assert sampler.posterior == (name != "decoupled")
    assert sampler.population == (name == "particles")
    assert sampler.model_times.shape == (6,)
    assert sampler.init(jax.random.key(0), SHAPE).x.shape == (SHAPE if particles is None else (2, *SHAPE))
    if np.array_equal(sampler.model_times, times[:-1]) and not sampler.population:
        corrected = with_corrections(sampler, cld, times, count=3)
        assert corrected.evaluations == evaluations(corrected, times) == 4
        assert corrected._replace(step=None, evaluations=1) == sampler._replace(step=None)


@pytest.mark.parametrize("aim", AIMS)
@pytest.mark.parametrize("task", [*TASKS, "motion_deblur+sr4", "hdr+jpeg"])
def test_presets_can_be_run(task, aim):
    """Samplers and guidances that there are, steps that go together, a number of chains and how they are joined."""
    try:
        preset = preset_of(task, aim)
    except UnsuitableError:
        assert aim == "posterior"
        assert TASKS[task].posterior is None
        return
    assert preset.sampler.sampler in SAMPLERS
    assert preset.sampler.guidance in GUIDANCES
    assert preset.num_samples >= 1
    assert preset.combine in COMBINATIONS
    plan = make_plan(preset.sampler, CLD())
    assert plan.times.shape == (preset.sampler.num_steps + 1,)
    assert plan.sampler.posterior or aim == "accuracy"
    changes = {"num_samples": 3, "num_steps": 7}
    assert preset.but(changes).values() == preset.values() | changes


def test_unknown_presets_are_refused():
    with pytest.raises(ValueError, match="task must be one of"):
        preset_of("unblur")
    with pytest.raises(ValueError, match="sampler must be one of"):
        preset_of("denoise").but({"sampler": "euler"})


def test_everything_is_in_the_namespace():
    """The names of the README's examples."""
    assert set(cvsa_jax.__all__) <= set(dir(cvsa_jax))
    assert callable(cvsa_jax.restore)
    assert isinstance(cvsa_jax.restoration, types.ModuleType)
