"""Fixtures: photographs, tiny networks. Compiled programs are kept between runs of the suite."""

import contextlib
import functools
import gc
import io
import os
import pathlib
import socket
import subprocess
import sys

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time is compilation, and tiny networks gain nothing from its last passes.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

import jax
import numpy as np
import pytest

from cvsa_jax import checkpoints, commands, data, folders, networks, spectral
from cvsa_jax.denoising import denoising_error
from cvsa_jax.importers import arrays, bkse
from cvsa_jax.models.blur_encoder import BlurEncoder
from cvsa_jax.operators import EncoderWeights

ROOT = pathlib.Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "experiments" / "samples"
# The published blur encoder with fewer blocks and narrower, fewer levels.
SMALL_ENCODER = BlurEncoder(features=8, front_blocks=1, back_blocks=2, widths=(8, 12, 16))
# Where the programs keep theirs too.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
# The many short compilations of tests that compute outside of `jit` too.
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
# Tracing makes many objects that live on; looking through them so often gains nothing.
gc.set_threshold(100_000, 50, 100)


def free_address() -> str:
    """HOST:PORT on this machine that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(scope="module", autouse=True)
def forget_programs():
    """Let a module's compiled programs go after it: kept together they came to 4 GB a worker."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def keep_short_programs():
    """A command run in this process would leave the users' threshold to the tests after it."""
    use_cache = commands.use_cache

    def use_and_keep():
        use_cache()
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "use_cache", use_and_keep)
        yield


@pytest.fixture
def float64():
    """Arrays are float64 inside the test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def photos() -> np.ndarray:
    """The shipped photographs, (16, 32, 32, 3) in [-1, 1]."""
    return data.load_squares(folders.list_images(SAMPLES), 32, 3)


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
    return prior.replace(calibration=denoising_error(prior, photos, jax.random.key(2)))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, tiny_spec, tiny_params, tiny_prior) -> pathlib.Path:
    """That prior, saved."""
    folder = tmp_path_factory.mktemp("prior")
    checkpoints.save_prior(folder, tiny_spec, tiny_params, tiny_prior.calibration, {})
    return folder


def published_like(model: BlurEncoder, seed: int = 0) -> dict:
    """A state dictionary of random arrays with the shapes and the order of the encoder's published file."""
    generator, state, shapes = np.random.default_rng(seed), {}, bkse.expected_shapes(model)
    for prefix, paths in bkse._order(model).items():
        for number, path in enumerate(paths):
            leaf = shapes
            for name in path:
                leaf = leaf[name]
            h, w, i, o = leaf["kernel"].shape
            turned = path[0] == "adapter" and path[-1].startswith("up")
            shape = (i, o, h, w) if turned else (o, i, h, w)
            state[f"{prefix}.{number}.weight"] = generator.normal(size=shape).astype(np.float32) / (h * w * i) ** 0.5
            state[f"{prefix}.{number}.bias"] = np.zeros(o, np.float32)
    return state


@pytest.fixture
def small_encoder(tmp_path, monkeypatch) -> EncoderWeights:
    """`SMALL_ENCODER` in place of the published network, and a file of weights for it."""
    monkeypatch.setattr("cvsa_jax.operators.encoder.BlurEncoder", lambda: SMALL_ENCODER)
    monkeypatch.setattr(bkse, "BlurEncoder", lambda: SMALL_ENCODER)
    monkeypatch.setattr("cvsa_jax.operators.encoder.STRIDE", 32)
    params = bkse.convert(published_like(SMALL_ENCODER), SMALL_ENCODER)
    arrays.save_tree(tmp_path / "weights.npz", params)
    return EncoderWeights(params, str(tmp_path / "weights.npz"))


@pytest.fixture(scope="session")
def run_program():
    """Run `cvsa VERB FLAGS...` as a user does; returns the finished process."""

    def run(verb: str, *arguments, timeout: float = 300, cwd=ROOT, **environment):
        command = [sys.executable, "-m", "cvsa_jax", verb, *map(str, arguments)]
        if "XLA_FLAGS" in environment:
            environment["XLA_FLAGS"] += f" {os.environ['XLA_FLAGS']}"
        variables = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | environment
        variables = {name: value for name, value in variables.items() if value is not None}
        return subprocess.run(
            command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


@pytest.fixture(scope="session")
def run_verb():
    """What `cvsa VERB FLAGS...` does, in this process: as `run_program`, without its start; None is `cvsa` alone.

    In place of a verb a module's name: `python -m MODULE FLAGS...`.
    """

    def run(verb: str | None, *arguments) -> subprocess.CompletedProcess:
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                program = commands.run if verb and "." in verb else commands.main
                program(verb, [str(a) for a in arguments])
            except SystemExit as stop:
                code = stop.code or 0
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def run_restore(run_verb):
    """`cvsa restore`, in this process."""
    return functools.partial(run_verb, "restore")
