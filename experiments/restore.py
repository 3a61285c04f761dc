"""Restore photographs: degrade clean ones and restore them, or restore measured ones.

    python -m experiments.restore --task=motion_deblur --input=FOLDER --output=results/motion
    python -m experiments.restore --task=sr4 --measured --input=small.png --output=results/mine

The same command given again continues a job that was stopped.
"""

import sys

from absl import flags

from cvsa_jax.types import UnsuitableError
from experiments import common, job_flags, jobs, methods, settings
from experiments import report as page


def main(values: flags.FlagValues = flags.FLAGS) -> None:
    """Run the job that the flags describe; exits with 1 if an image failed."""
    if values.list_tasks:
        print(settings.listing())
        return
    with common.user_errors():
        try:
            job = jobs.prepare(values)
        except UnsuitableError as error:
            raise ValueError(f"{methods.METHODS[values.method]} cannot do {values.task}: {error}") from error
    job.run()
    report(job)


def report(job: jobs.Job) -> None:
    """The closing lines, and exit code 1 if an image failed."""
    results, failures = job.results, job.failures
    means = results.means()
    if "psnr" in means:
        psnr, ssim = (
            " -> ".join(f"{means[k]:.{digits}f}" for k in (f"{metric}_measurement", metric) if k in means)
            for metric, digits in (("psnr", 2), ("ssim", 3))
        )
        print(f"{job.flags.task}: {len(results.rows)} images, PSNR {psnr} dB, SSIM {ssim}")
    if "psnr_aligned" in means:
        psnr, ssim = means["psnr_aligned"], means["ssim_aligned"]
        print(f"up to the task's trivial ambiguities: PSNR {psnr:.2f} dB, SSIM {ssim:.3f}")
    if "kernel_mse" in means:
        print(f"kernel's mean squared error (maximum one, common shift removed): {means['kernel_mse']:.4f}")
    print(f"pictures: {results.folder / 'grid.png'}, {results.folder / 'restored'}")
    if job.flags.report:
        print(f"report: {page.job_report(results.folder)}")
    if failures:
        print(f"error: {len(failures)} of the images failed, see {results.folder / 'summary.json'}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    job_flags.define(flags.FLAGS)
    common.run(main)
