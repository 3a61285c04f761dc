"""`cvsa VERB`: the command line.

A verb is a module here with groups(), its flags, and check(given), which checks the given values and returns
the work to do.
"""

import contextlib
import importlib
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import jax
from absl import logging

from cvsa_jax import processes
from cvsa_jax.commands import flags
from cvsa_jax.settings import nearest
from cvsa_jax.types import InputError, Stopped
from cvsa_jax.version import __version__

# By name: (module, a line for people).
VERBS = {
    "restore": ("restore", "restore photographs: degrade clean ones and restore them, or restore measured ones"),
    "evaluate": ("evaluate", "compare methods as the paper's tables do, or judge the posterior samples of a job"),
    "ablate": ("ablate", "vary one setting at a time and see what it does"),
    "figures": ("figures", "draw the figures of one image, as the paper's"),
    "train": ("train", "train a prior on a folder of images, or on blur kernels"),
    "calibrate": ("calibrate", "measure a prior's denoising error and the spectrum of its images"),
    "benchmark": ("benchmark", "time a guided step against the bare network"),
    "import": ("import_checkpoint", "take over published weights: diffusion models, denoisers, networks that measure"),
    "export": ("export", "write a prior as one safetensors file, or as a folder of the diffusers library"),
}


def main(verb: str | None = None, arguments: Sequence[str] | None = None) -> None:
    """Run a verb with the process's arguments, or with those given; exits with 1 on bad input."""
    rest = list(sys.argv[1:] if arguments is None else arguments)
    if verb is None:
        if not rest or rest[0] in ("--help", "-h", "help"):
            print(usage())
            sys.exit(0 if rest else 1)
        if rest[0] == "--version":
            print(f"cvsa_jax {__version__}")
            return
        verb, rest = rest[0], rest[1:]
    if verb not in VERBS:
        fail(f"there is no verb {verb!r}{nearest(verb, VERBS)}; the verbs are {', '.join(VERBS)}")
    run(f"cvsa_jax.commands.{VERBS[verb][0]}", rest)


def run(name: str, arguments: Sequence[str] | None = None) -> None:
    """Run the program of a module with some arguments, by default the process's; compiled programs are kept."""
    arguments = sys.argv[1:] if arguments is None else arguments
    use_cache()
    with stopped():
        try:
            module = importlib.import_module(name)
        except (RuntimeError, AssertionError):  # perhaps of an array that a module made
            require_backend()
            raise
        if any(a in flags.HELP for a in arguments):
            belongs = getattr(module, "belongs", lambda: {})()
            print(flags.help_text(module.__doc__ or "", module.groups(), belongs))
            return
        with user_errors(ValueError):
            given = flags.parse(arguments, module.groups())
            processes.joined(given)  # before anything asks for a device
        require_backend()
        with user_errors(ValueError):
            work = module.check(given)
        with user_errors(InputError):  # what else fails now is a fault of ours, whose trace is wanted
            work()


def usage() -> str:
    """What `cvsa` alone prints."""
    width = max(map(len, VERBS))
    lines = [f"  {name.ljust(width)}  {summary}" for name, (_, summary) in VERBS.items()]
    return "\n".join(["usage: cvsa VERB --flag=value ...", "", *lines, "", "cvsa VERB --help prints a verb's flags."])


@contextlib.contextmanager
def user_errors(kind: type[Exception]):
    """Turn a bad flag, setting or file into one line and exit code 1."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (kind, OSError) as error:
        message = str(error)
        if isinstance(error, OSError) and error.filename is not None and error.strerror:
            message = f"{error.filename}: {error.strerror}"
        fail(message or type(error).__name__)


def fail(message: str) -> NoReturn:
    """Say in one line what is wrong, and exit with 1."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(1)


def require_images(failed: Mapping[str, int]) -> None:
    """Exit with 1 if images failed, as every verb that runs jobs does when all is written.

    Args:
      failed: how many, by the folder of their job.
    """
    folders = [folder for folder, count in failed.items() if count]
    if folders:
        more = f" and {len(folders) - 1} more of its jobs" if len(folders) > 1 else ""
        fail(f"{sum(failed.values())} of the images failed, see {folders[0]}/summary.json{more}")


def require_backend() -> None:
    """Exit with one line if what JAX_PLATFORMS asks for is not there: JAX says it at the first array, in a trace."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        why = f" ({str(error).splitlines()[0]})" if str(error) else ""
        wanted = os.environ.get("JAX_PLATFORMS", "")
        fail(f"JAX_PLATFORMS={wanted}: this machine has no such device{why}; unset it, or give JAX_PLATFORMS=cpu")


@contextlib.contextmanager
def stopped():
    """Turn an interrupt into one line and exit code 130, and a job that SIGTERM ended into a line and 0.

    End quietly if nobody reads the output any more.
    """
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt as stop:  # which may say what goes on
        print(f"\nstopped; {str(stop) or 'the same command'} goes on from here", file=sys.stderr)
        sys.exit(130)
    except Stopped as stop:  # of several jobs; where it was all, the verb has said it
        print(stop)
        sys.exit(0)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
        sys.exit(1)


def cache_folder() -> pathlib.Path:
    """Where compiled programs are kept: JAX_COMPILATION_CACHE_DIR, else the user's cache folder."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    home = pathlib.Path.home()
    if sys.platform == "win32":
        base = pathlib.Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = pathlib.Path(os.environ.get("XDG_CACHE_HOME", home / ".cache"))
    return base / "cvsa_jax"


def use_cache() -> None:
    """Keep compiled programs between runs, and orbax's reports of every file to itself."""
    jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    logging.set_verbosity(logging.WARNING)
