"""Checkpoints: a training run's whole state, and a finished prior. The only module with orbax.

A prior is a folder: `prior.json` (network, diffusion, calibration, how it was trained),
`params/` (orbax) and, when shipped, a model card.
"""

import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from cvsa_jax.diffusion import CLD
from cvsa_jax.networks import NetworkSpec, as_dtype, build_prior
from cvsa_jax.priors import Calibration, Prior
from cvsa_jax.spectral import Spectrum
from cvsa_jax.types import InputError

DEFAULT, KERNELS = "products64", "kernels16"


class CheckpointError(InputError):
    """A checkpoint that is missing, unreadable or of another shape; one line for the user."""


class LoadedPrior(NamedTuple):
    """A prior with its description and the facts of its training."""

    prior: Prior
    spec: NetworkSpec
    training: dict[str, Any]


def spec_to_json(spec: NetworkSpec) -> dict[str, Any]:
    """A NetworkSpec as plain JSON values."""
    return dataclasses.asdict(spec)


def spec_from_json(record: dict[str, Any]) -> NetworkSpec:
    """The inverse of spec_to_json; lists become tuples again."""
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in record["options"].items()}
    spectrum = record["spectrum"]
    if spectrum is not None:
        spectrum = Spectrum(tuple(map(tuple, spectrum["variance"])), tuple(spectrum["mean_power"]))
    return NetworkSpec(**{**record, "options": options, "spectrum": spectrum, "cld": CLD(**record["cld"])})


def save_prior(folder, spec: NetworkSpec, params, calibration: Calibration, training: dict) -> None:
    """Write a prior, replacing one that is there."""
    folder = pathlib.Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "network": spec_to_json(spec),
        "calibration": {
            "noise": [float(f"{s:.6g}") for s in np.asarray(calibration.noise)],
            "error": [float(f"{e:.6g}") for e in np.asarray(calibration.error)],
        },
        "training": training,
    }
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "params", params, force=True)
    (folder / "prior.json").write_text(json.dumps(record, indent=1) + "\n")


def _shapes(tree) -> dict[str, tuple]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}


def _restore_params(folder: pathlib.Path, expected):
    """The parameters, checked name by name and shape by shape before anything is read."""
    with ocp.StandardCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(folder / "params")
        stored = getattr(metadata, "item_metadata", metadata)
        stored = getattr(stored, "tree", stored)
        want, have = _shapes(expected), _shapes(stored)
        wrong = [n for n in sorted(want.keys() | have.keys()) if want.get(n) != have.get(n)]
        if wrong:
            name = wrong[0]
            raise CheckpointError(
                f"checkpoint {folder} does not match its network: {len(wrong)} of {len(want)} parameters "
                f"differ, the first is {name}: stored {have.get(name)}, expected {want.get(name)}"
            )
        # Arrays that are bound to no device: a program of the user's places them where its other arguments are.
        host = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), expected)
        return jax.tree.map(jnp.asarray, checkpointer.restore(folder / "params", host))


def shipped_folder() -> pathlib.Path:
    """Where the shipped priors are: in the installed package, or beside it in its repository."""
    inside = pathlib.Path(__file__).parent / "shipped"
    return inside if inside.is_dir() else pathlib.Path(__file__).parent.parent / "checkpoints"


def find_prior(name) -> pathlib.Path:
    """The folder of a prior: a path, or the name of a shipped one if there is no such path."""
    folder = pathlib.Path(name)
    if not folder.exists() and folder.name == str(name) and (shipped_folder() / folder).is_dir():
        folder = shipped_folder() / folder
    return folder.absolute()


def load_prior(folder=DEFAULT, cld: CLD | None = None, dtype: Any = None, remat: bool = False) -> LoadedPrior:
    """Read a prior. Its parameters are bound to no device, so that jit, shard_map and device_put may place them.

    Args:
      folder: as written by `save_prior`, or the name of a shipped prior: 'products64', 'kernels16'.
      cld: the diffusion to run; None is the stored one.
      dtype, remat: how the network computes, see `NetworkSpec.build`.

    Raises:
      ValueError: if `dtype` is none that the network can compute in.
      CheckpointError: if it is missing, damaged, or does not match its network or `cld`.
    """
    folder, dtype = find_prior(folder), None if dtype is None else as_dtype(dtype)
    try:
        record = json.loads((folder / "prior.json").read_text())
        spec = spec_from_json(record["network"])
        expected = jax.eval_shape(spec.init, jax.random.key(0))
        calibration = Calibration(
            np.array(record["calibration"]["noise"], np.float32),
            np.array(record["calibration"]["error"], np.float32),
        )
        prior = build_prior(spec, _restore_params(folder, expected), cld, calibration, dtype, remat)
        return LoadedPrior(prior, spec, record.get("training", {}))
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"no prior in {folder}: {error.filename or error} is missing") from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"cannot load the prior in {folder}: {message}") from error


class TrainingCheckpoints:
    """The checkpoints of one training run: its state and its data position, kept together."""

    def __init__(self, folder, keep: int = 2):
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(pathlib.Path(folder).absolute(), options=options)

    def save(self, step: int, state, data_state: dict, settings: dict) -> None:
        """Write in the background; `close` waits for it."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                data=ocp.args.JsonSave(data_state),
                settings=ocp.args.JsonSave(settings),
            ),
        )

    @property
    def latest_step(self) -> int | None:
        """The newest complete checkpoint, or None."""
        return self._manager.latest_step()

    def settings(self) -> dict:
        """The settings that the newest checkpoint was written with."""
        args = ocp.args.Composite(settings=ocp.args.JsonRestore())
        return self._manager.restore(self.latest_step, args=args)["settings"]

    def restore(self, like) -> tuple[Any, dict]:
        """(state, data_state) of the newest checkpoint; `like` has its shapes and shardings."""
        args = ocp.args.Composite(state=ocp.args.StandardRestore(like), data=ocp.args.JsonRestore())
        restored = self._manager.restore(self.latest_step, args=args)
        return restored["state"], restored["data"]

    def close(self) -> None:
        """Wait for what is being written."""
        self._manager.wait_until_finished()
        self._manager.close()
