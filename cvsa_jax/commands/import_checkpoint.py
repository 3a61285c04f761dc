"""Take over published weights: a diffusion model or a denoiser as a prior, or a network that measures.

    cvsa import --source=ffhq_10m.pt --model=ffhq_10m --output=priors/ffhq
    cvsa restore --checkpoint=priors/ffhq --task=motion_deblur --input=FOLDER --output=results/ffhq

The source is a file of PyTorch, a safetensors file, a pickle of EDM, or a folder of the diffusers library. Nothing in
it is run, and PyTorch is not needed. Its format is found by its keys; what it does not say comes from --model, a public
model, or from --options. A key that is missing, left over or of another shape stops the import.

    cvsa import --network=bkse --weights=GOPRO_wVAE.pth --output=bkse.npz
    cvsa import --network=inception --weights=pt_inception-2015-12-05-6726825d.pth --output=inception.npz
    cvsa import --network=lpips --weights=alexnet-owt-7be5be79.pth,alex.pth --output=lpips.npz

These results go to --bkse_weights of cvsa restore, or to --inception_weights and --lpips_weights of cvsa evaluate,
which take the published files as well.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from cvsa_jax.commands.flags import Groups
from cvsa_jax.importers import arrays, bkse, quality
from cvsa_jax.importers.formats import FORMATS, describe
from cvsa_jax.importers.known import KNOWN
from cvsa_jax.jobs import import_model
from cvsa_jax.settings import Settings, build, fields, require, setting

NETWORKS = {
    "bkse": bkse.load,
    "inception": quality.load_inception,
    "lpips": lambda paths: quality.load_perceptual(paths)[1],
}


@dataclasses.dataclass(frozen=True)
class ImportSettings(Settings):
    """Weights of a network that measures."""

    network: str | None = setting(None, "Which network they are of.", choices=NETWORKS)
    weights: str | None = setting(None, "The published file; of lpips two, CLASSIFIER,LINEAR.", path=True, listed=True)


def groups() -> Groups:
    """The verb's flags."""
    return {
        "A prior": ("", fields(import_model.ModelSettings)),
        "A network that measures": ("With --output.", fields(ImportSettings)),
    }


def check(given: dict[str, Any]) -> Callable[[], None]:
    """The conversion."""
    if given.get("list_options"):
        return lambda: print(listing())
    own = {f.name for f in fields(ImportSettings)}
    if own & given.keys():
        return _check_network(given)
    require(given, "source", "output")
    settings = build(import_model.ModelSettings, given)
    output = pathlib.Path(str(settings.output))
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"--output={output} is not an empty folder; name another")
    model = import_model.read_model(settings)
    verified = import_model.verify(model, settings.verify) if settings.verify else []

    def work() -> None:
        import_model.write_model(output, model)
        spec, facts = model.imported.spec, model.facts
        kind = ", ".join(facts[name] for name in ("format", "model") if name in facts)
        print(f"{kind}: {facts['parameters']:,} parameters, {spec.image_channels} channels, "
              f"trained at {spec.image_size}x{spec.image_size}")  # fmt: skip
        for line in [*facts["notes"], *verified]:
            print(f"- {line}")
        told = model.imported.description
        advice = "" if told and told.calibration else (
            f"; measure its errors with: cvsa calibrate --checkpoint={output} --data=FOLDER "
            f"--image_size={spec.image_size}")  # fmt: skip
        print(f"the prior is in {output}{advice}")

    return work


def _check_network(given: dict[str, Any]) -> Callable[[], None]:
    foreign = given.keys() - {f.name for f in fields(ImportSettings)} - {"output"}
    if foreign:
        raise ValueError(f"--{min(foreign)} has no effect beside --network")
    require(given, "network", "weights", "output")
    own, output = build(ImportSettings, given), pathlib.Path(str(given["output"]))
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


def listing() -> str:
    """Every format with its options, and the known models."""
    lines = []
    for name, module in FORMATS.items():
        lines += [f"{name}: {module.SUMMARY}", *(f"  {line}" for line in describe(name)), ""]
    lines += ["--model:"]
    for name, known in KNOWN.items():
        lines.append(f"  {name}: {known.format}, {known.size}x{known.size}, {known.file} of {known.home}")
    return "\n".join(lines)
