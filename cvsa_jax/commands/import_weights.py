"""Turn published PyTorch weights into a file that needs no PyTorch.

    cvsa import --network=bkse --weights=GOPRO_wVAE.pth --output=bkse.npz
    cvsa import --network=inception --weights=pt_inception-2015-12-05-6726825d.pth --output=inception.npz
    cvsa import --network=lpips --weights=alexnet-owt-7be5be79.pth,alex.pth --output=lpips.npz

The result goes to --bkse_weights of cvsa restore, or to --inception_weights and --lpips_weights of cvsa evaluate,
which take the PyTorch files as well.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from cvsa_jax.commands.flags import Groups
from cvsa_jax.importers import arrays, bkse, quality
from cvsa_jax.settings import Settings, build, fields, require, setting

NETWORKS = {
    "bkse": bkse.load,
    "inception": quality.load_inception,
    "lpips": lambda paths: quality.load_perceptual(paths)[1],
}


@dataclasses.dataclass(frozen=True)
class ImportSettings(Settings):
    """Weights of a network."""

    network: str | None = setting(None, "Which network they are of.", choices=NETWORKS)
    weights: str | None = setting(None, "The PyTorch file; of lpips two, CLASSIFIER,LINEAR.")
    output: str | None = setting(None, "The .npz file to write.")


def groups() -> Groups:
    """The verb's flags."""
    return {"Import": ("", fields(ImportSettings))}


def check(given: dict[str, Any]) -> Callable[[], None]:
    """The conversion."""
    require(given, "network", "weights", "output")
    own = build(ImportSettings, given)
    output = pathlib.Path(str(own.output))
    if output.suffix != ".npz":
        raise ValueError(f"--output must end in .npz, got {output}")
    if output.exists():
        raise ValueError(f"--output={output} exists")
    params = NETWORKS[str(own.network)](str(own.weights))

    def work() -> None:
        output.parent.mkdir(parents=True, exist_ok=True)
        arrays.save_tree(output, params)
        print(f"the weights are in {output}")

    return work
