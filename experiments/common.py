"""What the command-line programs share: flags of the diffusion, errors, versions, the cache."""

import contextlib
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import sys

import jax
from absl import app, flags, logging

from cvsa_jax import checkpoints
from cvsa_jax.diffusion import CLD

ROOT = pathlib.Path(__file__).resolve().parent.parent
DEFAULT_CHECKPOINT = ROOT / "checkpoints" / "products64"
KERNEL_CHECKPOINT = ROOT / "checkpoints" / "kernels16"


def define_diffusion_flags(into: flags.FlagValues = flags.FLAGS) -> None:
    """--mass, --friction, --beta, --gamma."""
    default = CLD()
    flags.DEFINE_float("mass", default.mass, "M, how strongly position and velocity are coupled.", flag_values=into)
    flags.DEFINE_float("friction", None, "Gamma; by default critical damping, 2 sqrt(M).", flag_values=into)
    flags.DEFINE_float("beta", default.beta, "The diffusion's rate.", flag_values=into)
    flags.DEFINE_float("gamma", default.gamma, "The initial velocity has variance gamma * M.", flag_values=into)


def diffusion_from_flags(f: flags.FlagValues = flags.FLAGS) -> CLD:
    """The CLD that the flags describe."""
    return CLD(mass=f.mass, friction=f.friction, beta=f.beta, gamma=f.gamma)


# A comparison of finished jobs would spend its time on reading the same two priors, of images and kernels, for each.
load_prior = functools.lru_cache(maxsize=2)(checkpoints.load_prior)


@contextlib.contextmanager
def user_errors():
    """Turn a bad flag, setting or file into one line and exit code 1."""
    try:
        yield
    except (ValueError, OSError, flags.Error) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"error: {message}", file=sys.stderr)
        sys.exit(1)


def _parse_flags(argv):
    with user_errors():
        rest = flags.FLAGS(argv)
        if len(rest) > 1:
            raise ValueError(f"unexpected argument {rest[1]!r}; flags start with --")
        return rest


def run(main) -> None:
    """Start a program: absl parses the flags, compiled programs are kept between runs."""
    cache = pathlib.Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", ROOT / ".jax_cache"))
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

    def checked(_):
        logging.set_verbosity(logging.WARNING)  # orbax reports every file it touches
        try:
            main()
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on from here", file=sys.stderr)
            sys.exit(130)

    app.run(checked, flags_parser=_parse_flags)


def versions() -> dict[str, str]:
    """Versions and hardware, for the record of a run."""
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    devices = jax.local_devices()
    hardware = f"{len(devices)} x {devices[0].device_kind}"
    if devices[0].platform == "cpu":
        hardware += f" ({os.cpu_count()} cores)"
    return {"python": platform.python_version(), "hardware": hardware} | {
        name: importlib.metadata.version(name) for name in names
    }


def flag_values() -> dict:
    """Every flag of the program itself, as given or by default."""
    own = flags.FLAGS.flags_by_module_dict()
    mine = [f for module, fs in own.items() if module == sys.argv[0] or "experiments" in module for f in fs]
    return {f.name: f.value for f in mine}


def write_json(path: pathlib.Path, record: dict) -> None:
    """Write a record for people and programs to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1, default=str) + "\n")


def claim_folder(folder: pathlib.Path, settings: dict) -> None:
    """Begin or continue a job in a folder; settings.json tells which.

    Raises:
      ValueError: if the folder holds something else.
    """
    path, settings = folder / "settings.json", json.loads(json.dumps(settings, default=str))
    if path.exists():
        if json.loads(path.read_text())["settings"] != settings:
            raise ValueError(f"--output={folder} holds a job with other settings; name another folder")
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"--output={folder} is not an empty folder; name another")
    write_json(path, {"settings": settings, "versions": versions()})
