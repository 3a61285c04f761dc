"""Every test runs with float64 available and without implicit rank promotion surprises."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

ROOT = pathlib.Path(__file__).resolve().parent.parent
jax.config.update("jax_compilation_cache_dir", str(ROOT / ".jax_cache"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
