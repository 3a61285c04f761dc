r"""Vary one setting at a time and see what it does.

    cvsa ablate --task=motion_deblur --input=FOLDER --limit=8 --image_size=64 \
      --sweep=mass=.1,.25,1 --sweep=num_steps=20,50,100 --output=results/ablation

--sweep takes any flag of cvsa restore that is no list (mass, friction, beta, gamma, num_steps, num_samples, guidance,
sampler, time_grid, noise_std, ...), and every flag of that verb but --overwrite and --report may be given for all the
jobs. Each value of each sweep is a job in OUTPUT/NAME=VALUE; a run that was stopped goes on with the same command. It
writes ablation.csv (each image), ablation.md (means and their 95 % intervals), NAME.png for each sweep (PSNR, SSIM and
residual), and report.html.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from cvsa_jax import remote
from cvsa_jax.commands import require_images
from cvsa_jax.commands.flags import Groups, parse
from cvsa_jax.evaluation import ablation
from cvsa_jax.jobs import check_job, records
from cvsa_jax.jobs.settings import known
from cvsa_jax.settings import Settings, fields, setting, text_of


@dataclasses.dataclass(frozen=True)
class AblateSettings(Settings):
    """An ablation."""

    sweep: tuple[str, ...] = setting(
        (), "NAME=VALUE,VALUE,... of a flag of cvsa restore; may be repeated.", several=True
    )


def groups() -> Groups:
    """The verb's flags: those of a job, on folders here, but for what an ablation decides itself."""
    remark, some = known()["Job"]
    here = [f._replace(setting=f.setting._replace(remote=False)) for f in some if f.name not in ablation.ALWAYS]
    return {"Ablation": ("", fields(AblateSettings)), **known(), "Job": (remark, here)}


def check(given: dict[str, Any]) -> Callable[[], None]:
    """The ablation."""
    texts, output = given.pop("sweep", ()), given.pop("output", None)
    if not texts or not output:
        raise ValueError("--sweep and --output are required")
    remote.refuse("output", output)
    remote.refuse("input", given.get("input"))
    folder = pathlib.Path(output)
    sweeps = ablation.read_sweeps(texts, given, folder, lambda flag: parse([flag], known()))
    for sweep in sweeps:
        for job in sweep.jobs:
            check_job(job)
    free = {f.name for _, group in known().values() for f in group if f.setting.free}
    lock = records.claim_folder(folder, {"shared": {k: v for k, v in given.items() if k not in free}})
    shown = " ".join(f"--{name}={text_of(value)}" for name, value in given.items())

    def work() -> None:
        text, failed = ablation.ablate(sweeps, folder, {"shared flags": shown} | records.versions())
        print(text)
        print(f"plots and the report: {output}/*.png, {folder / 'report.html'}")
        lock.release()
        require_images({str(job.folder): len(job.failures) for job in failed})

    return work
