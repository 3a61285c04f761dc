"""Checkpoints: a training run's whole state, and a finished prior. The only module with orbax.

A prior is a folder: `prior.json` (network, diffusion, calibration, the images' spectrum, how it was trained),
`params/` (orbax) and, when shipped, a model card.
"""

import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.tree_util import Partial

from cvsa_jax import photographs
from cvsa_jax.descriptions import StoredPrior, description_from_json, spec_to_json, statistics_to_json
from cvsa_jax.diffusion import CLD
from cvsa_jax.networks import NetworkSpec, as_dtype, build_prior
from cvsa_jax.priors import Calibration, Prior
from cvsa_jax.pyramid import Level
from cvsa_jax.spectral import Spectrum
from cvsa_jax.types import InputError
from cvsa_jax.writing import write_json

DEFAULT, KERNELS = "products64", "kernels16"


class CheckpointError(InputError):
    """A checkpoint that is missing, unreadable or of another shape; one line for the user."""


class LoadedPrior(NamedTuple):
    """A prior with its description and the facts of its training.

    calibrated: whether its denoising error and its images' spectrum were measured, and are not those of photographs.
    network: (x (B, H, W, C), label (B,)) -> what the network itself answers.
    """

    prior: Prior
    spec: NetworkSpec
    training: dict[str, Any]
    calibrated: bool = True
    network: Partial | None = None


def save_prior(
    folder, spec: NetworkSpec, params, calibration: Calibration | None, training: dict,
    spectrum: Spectrum | None = None, calibrated_on: dict | None = None, levels: tuple[Level, ...] = (),
) -> None:  # fmt: skip
    """Write a prior, replacing one that is there.

    Args:
      folder: where.
      spec, params: the network.
      calibration: its measured denoising error, or None.
      training: facts about it, JSON values.
      spectrum: of the images, for guidance, where it is not that of the network's preconditioning.
      calibrated_on: facts about the measuring, or None.
      levels: what was measured on larger images.
    """
    folder = pathlib.Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "params", params, force=True)
    record = {"network": spec_to_json(spec), **statistics_to_json(calibration, spectrum, levels), "training": training}
    record |= {} if calibrated_on is None else {"calibrated_on": calibrated_on}
    write_json(folder / "prior.json", record)


def save_statistics(
    folder, calibration: Calibration, spectrum: Spectrum | None, facts: dict, levels: tuple[Level, ...] = ()
) -> None:
    """Store what was measured of a prior beside it, and facts about the measuring.

    Raises:
      CheckpointError: if there is no prior.
    """
    path = find_prior(folder) / "prior.json"
    record = {name: value for name, value in _read(path).items() if name != "larger"}
    write_json(path, {**record, **statistics_to_json(calibration, spectrum, levels), "calibrated_on": facts})


def _read(path: pathlib.Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise CheckpointError(f"no prior in {path.parent}: {path} is missing") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot load the prior in {path.parent}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _shapes(tree) -> dict[str, tuple]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): tuple(leaf.shape) for path, leaf in leaves}


def _restore_params(folder: pathlib.Path, expected):
    """The parameters, checked name by name and shape by shape before anything is read.

    Of several processes each reads by itself, when it needs them: orbax would wait for all others.
    """
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(primary_host=own, active_processes={own})
    with ocp.StandardCheckpointer(multiprocessing_options=alone) as checkpointer:
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


def load_prior(
    folder=DEFAULT,
    cld: CLD | None = None,
    dtype: Any = None,
    remat: bool = False,
    class_label: int | None = None,
    pyramid: bool = True,
) -> LoadedPrior:
    """Read a prior. Its parameters are bound to no device, so that jit, shard_map and device_put may place them.

    Args:
      folder: as written by `save_prior`, or the name of a shipped prior: 'products64', 'kernels16'.
      cld: the diffusion to run; None is the stored one.
      dtype, remat: how the network computes, see `NetworkSpec.build`.
      class_label: the class that a class-conditional network is asked for.
      pyramid: whether images of twice the training images' side or more are seen at several resolutions, if the prior
        was measured there.

    A prior of which nothing was measured (`cvsa calibrate` does) gets the denoising error and the spectrum of
    photographs of its size, `photographs.statistics`.

    Raises:
      ValueError: if `dtype` is none that the network can compute in, or it has no such class.
      CheckpointError: if it is missing, damaged, or does not match its network or `cld`.
    """
    dtype = None if dtype is None else as_dtype(dtype)
    folder = find_prior(folder)
    _, (spec, calibration, spectrum, training, _, levels), arrays = read_prior(folder)
    levels = levels if pyramid else ()
    try:
        calibrated = calibration is not None
        if not calibrated:
            calibration, spectrum = photographs.statistics(spec.image_size, spec.image_channels)
        network = Partial(spec.network(dtype, remat, class_label), arrays)
        prior = build_prior(
            spec, arrays, cld, calibration, dtype, remat, spectrum=spectrum, class_label=class_label, levels=levels
        )
    except ValueError as error:
        raise CheckpointError(f"cannot load the prior in {folder}: {_one_line(error)}") from error
    return LoadedPrior(prior, spec, training, calibrated, network)


def read_prior(folder) -> StoredPrior:
    """What is stored of a prior, nothing added.

    Raises:
      CheckpointError: if it is missing, damaged, or does not match its network.
    """
    folder = find_prior(folder)
    try:
        record = _read(folder / "prior.json")
        description = description_from_json(record)
        expected = jax.eval_shape(description.spec.init, jax.random.key(0))
        return StoredPrior(record, description, _restore_params(folder, expected))
    except CheckpointError:
        raise
    except FileNotFoundError as error:
        raise CheckpointError(f"no prior in {folder}: {error.filename or error} is missing") from error
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"cannot load the prior in {folder}: {_one_line(error)}") from error


def spec_of(folder) -> NetworkSpec:
    """The network of a stored prior, without its parameters; what is wrong with it `load_prior` tells."""
    return description_from_json(_read(find_prior(folder) / "prior.json")).spec


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
