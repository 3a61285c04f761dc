"""Fixtures: photographs, tiny networks. Compiled programs are kept between runs of the suite."""

import contextlib
import io
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time is compilation, and tiny networks gain nothing from its last passes.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import jax
import numpy as np
import pytest

from cvsa_jax import checkpoints, data, networks, spectral, training
from experiments import common, job_flags, restore

ROOT = pathlib.Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "experiments" / "samples"
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture
def float64():
    """Arrays are float64 inside the test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def photos() -> np.ndarray:
    """The shipped photographs, (16, 32, 32, 3) in [-1, 1]."""
    return data.load_squares(data.list_images(SAMPLES), 32, 3)


@pytest.fixture(scope="session")
def tiny_spec(photos) -> networks.NetworkSpec:
    """A U-Net of two levels, preconditioned by the photographs' spectrum."""
    options = {"channels": (8, 8), "encoder_blocks": (1, 1), "decoder_blocks": (1, 1), "patch": 2}
    return networks.NetworkSpec(image_size=32, options=options, spectrum=spectral.estimate_spectrum(photos))


@pytest.fixture(scope="session")
def tiny_params(tiny_spec):
    """Its parameters, shaken so that no layer is zero."""
    leaves, tree = jax.tree.flatten(jax.jit(tiny_spec.init)(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(
        tree, [a + 0.05 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    )


@pytest.fixture(scope="session")
def tiny_prior(tiny_spec, tiny_params, photos):
    """A prior with measured calibration."""
    prior = networks.build_prior(tiny_spec, tiny_params)
    return prior.replace(calibration=training.denoising_error(prior, photos, jax.random.key(2)))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, tiny_spec, tiny_params, tiny_prior) -> pathlib.Path:
    """That prior, saved."""
    folder = tmp_path_factory.mktemp("prior")
    checkpoints.save_prior(folder, tiny_spec, tiny_params, tiny_prior.calibration, {})
    return folder


@pytest.fixture(scope="session")
def run_program():
    """Run `python -m experiments.NAME FLAGS...` as a user does; returns the finished process."""

    def run(name: str, *arguments, timeout: float = 300, **environment):
        command = [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)]
        if "XLA_FLAGS" in environment:
            environment["XLA_FLAGS"] += f" {os.environ['XLA_FLAGS']}"
        variables = os.environ | {"JAX_PLATFORMS": "cpu"} | environment
        return subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


@pytest.fixture(scope="session")
def run_restore():
    """What `experiments.restore` does with these flags, in this process: as `run_program`, without its start."""

    def run(*arguments) -> subprocess.CompletedProcess:
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                with common.user_errors():
                    values = job_flags.parse([str(a) for a in arguments])
                restore.main(values)
            except SystemExit as stop:
                code = stop.code or 0
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    return run
