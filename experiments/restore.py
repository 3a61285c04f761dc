"""Restore photographs: degrade clean ones and restore them, or restore measured ones.

    python -m experiments.restore --task=motion_deblur --input=FOLDER --output=results/motion
    python -m experiments.restore --task=sr4 --measured --input=small.png --output=results/mine

The same command given again continues a job that was stopped.
"""

import pathlib
import sys
from collections import defaultdict

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from cvsa_jax import batch, checkpoints, guidance, noise, operators, samplers
from cvsa_jax.diffusion import TIME_GRIDS
from cvsa_jax.importers import bkse
from cvsa_jax.restore import STARTS
from experiments import blind, common, inputs, outputs, settings

flags.DEFINE_string(
    "task", None, "The degradation, or several joined by '+', as in motion_deblur+sr4; see --list_tasks."
)
flags.DEFINE_bool("list_tasks", False, "Print the tasks with their presets and stop.")
flags.DEFINE_string("input", None, "An image, or a folder of images (subfolders are searched).")
flags.DEFINE_string("output", None, "Folder of the results.")
flags.DEFINE_bool("measured", False, "The inputs are already degraded; by default they are clean.")
flags.DEFINE_string("checkpoint", str(common.DEFAULT_CHECKPOINT), "Folder of the prior.")
flags.DEFINE_string("kernel_checkpoint", str(common.KERNEL_CHECKPOINT), "Blind tasks: folder of the prior of kernels.")
flags.DEFINE_integer("image_size", None, "Cut the centre square and resize it to this; by default as it is.")
flags.DEFINE_integer("limit", None, "Restore only the first N images.", lower_bound=1)
flags.DEFINE_bool("overwrite", False, "Write into a folder that holds other results.")
flags.DEFINE_enum("noise", "gaussian", ["gaussian", "poisson"], "The noise of the measurement.")
flags.DEFINE_float("noise_std", 0.05, "Gaussian noise: standard deviation, for images in [-1, 1].")
flags.DEFINE_float("photons", 200.0, "Poisson noise: photons that a white pixel counts.")
# What is None from here on is the task's preset.
flags.DEFINE_integer("num_steps", None, "Reverse steps of a sample; one network evaluation each.")
flags.DEFINE_enum(
    "sampler", None, [*samplers.SAMPLERS, *samplers.POPULATION_SAMPLERS],
    "The reverse-time sampler; the particles of one population are the --num_samples samples.",
)  # fmt: skip
flags.DEFINE_enum("guidance", None, list(guidance.GUIDANCES), "Form of the observation score.")
flags.DEFINE_integer("num_corrections", None, "Langevin steps at each noise level; an evaluation each.", lower_bound=0)
flags.DEFINE_enum("time_grid", None, list(TIME_GRIDS), "How the times are spaced.")
flags.DEFINE_float("t_start", None, "First time of the grid.")
flags.DEFINE_enum(
    "start", None, list(STARTS),
    "Begin at noise, or at the operator's own guess diffused to --t_start; blind: with a search for the kernel.",
)  # fmt: skip
flags.DEFINE_enum(
    "combine", None, ["mean", "residual"], "The restoration: the samples' mean, or that of least residual."
)
flags.DEFINE_float("t_end", None, "Last time at which the network is asked.")
flags.DEFINE_integer("seed", 0, "Seed of masks, kernels, noise and samples.")
flags.DEFINE_integer("batch_size", 16, "Samples restored together.", lower_bound=1)
flags.DEFINE_integer("num_samples", None, "Posterior samples (or starts) per image; see --combine.", lower_bound=1)
flags.DEFINE_string("operator", None, "An operator/NAME.npz of an earlier job, to use for every image.")
flags.DEFINE_string("mask", None, "mask_inpaint, checkout: image file, white where pixels are missing.")
flags.DEFINE_string("kernel", None, "Blurs: kernel file (.npy or image) in place of a drawn one.")
flags.DEFINE_integer("kernel_size", None, "motion_deblur: side of the kernel; by default 61/256 of the image's.")
flags.DEFINE_float("kernel_std", None, "gaussian_deblur: deviation in pixels; by default 3/256 of the side.")
flags.DEFINE_float("motion_intensity", 0.5, "motion_deblur: 0 straight to 1 shaky.")
flags.DEFINE_enum("boundary", "reflect", list(operators.BOUNDARIES), "Blurs by a kernel: beyond the border.")
flags.DEFINE_integer("box_size", None, "box_inpaint: side of the hole; by default half the image's.")
flags.DEFINE_integer("box_margin", None, "box_inpaint: least distance to the border; by default 1/16 of the side.")
flags.DEFINE_float("missing", 0.92, "random_inpaint: share of the pixels that is lost.")
flags.DEFINE_float("oversampling", 2.0, "phase_retrieval: an eighth of this, times the side, is padded on either side.")
flags.DEFINE_float("exposure", 1.2, "nonlinear_deblur: above 1 bright areas saturate.")
flags.DEFINE_float("hdr_gain", 2.0, "hdr: by which the image's range exceeds the sensor's.")
flags.DEFINE_integer("jpeg_quality", 10, "jpeg: 1 coarse to 100.")
flags.DEFINE_string("bkse_weights", None, "bkse_deblur: the blur encoder's published file, or one of import_bkse.")
flags.DEFINE_integer("search_guesses", 8, "Blind tasks: kernels that the search refines.", lower_bound=1)
common.define_diffusion_flags()
FLAGS = flags.FLAGS
DIVERGED = 10.0  # images lie in [-1, 1]
FREE_SETTINGS = ("input", "output", "overwrite", "list_tasks", "batch_size", "limit")


def operator_options() -> operators.OperatorOptions:
    """The tasks' settings from the flags, files read."""
    return operators.OperatorOptions(
        kernel_size=FLAGS.kernel_size,
        kernel_std=FLAGS.kernel_std,
        motion_intensity=FLAGS.motion_intensity,
        kernel=inputs.read_kernel(FLAGS.kernel) if FLAGS.kernel else None,
        boundary=FLAGS.boundary,
        box_size=FLAGS.box_size,
        box_margin=FLAGS.box_margin,
        missing=FLAGS.missing,
        seen=inputs.read_mask(FLAGS.mask) if FLAGS.mask else None,
        oversampling=FLAGS.oversampling,
        exposure=FLAGS.exposure,
        hdr_gain=FLAGS.hdr_gain,
        jpeg_quality=FLAGS.jpeg_quality,
        encoder=bkse.load(FLAGS.bkse_weights) if FLAGS.bkse_weights else None,
        encoder_source=FLAGS.bkse_weights or "",
    )


def noise_model() -> noise.NoiseModel:
    """The noise from the flags."""
    return noise.PoissonNoise(FLAGS.photons) if FLAGS.noise == "poisson" else noise.GaussianNoise(FLAGS.noise_std)


def batches(entries: list[inputs.Entry]) -> list[list[tuple[inputs.Entry, int]]]:
    """(image, chain index) pairs of one shape each, batch_size samples at most, an image's in a row."""
    population = FLAGS.sampler in samplers.POPULATION_SAMPLERS
    chains = 1 if population else FLAGS.num_samples
    size = max(1, FLAGS.batch_size // FLAGS.num_samples) if population else FLAGS.batch_size
    groups = defaultdict(list)
    for entry in entries:
        groups[entry.shape].append(entry)
    out = []
    for group in groups.values():
        pairs = [(entry, i) for entry in group for i in range(chains)]
        out += [pairs[i : i + size] for i in range(0, len(pairs), size)]
    return out


def main() -> None:
    if FLAGS.list_tasks:
        print(settings.listing())
        return
    with common.user_errors():
        for name in ("task", "input", "output"):
            if FLAGS[name].value is None:
                raise ValueError(f"--{name} is required")
        task = operators.find_task(FLAGS.task)
        settings.fill(FLAGS.task, FLAGS)
        options = operator_options()
        stored = operators.load_operator(FLAGS.operator) if FLAGS.operator else None
        if FLAGS.measured:
            inputs.check_measured(FLAGS.task, options, stored is not None)
        files = inputs.list_inputs(FLAGS.input, FLAGS.measured)[: FLAGS.limit]
        loaded = checkpoints.load_prior(FLAGS.checkpoint, common.diffusion_from_flags())
        channels = loaded.spec.image_channels
        kernels = blind.KernelFinder.from_flags(loaded) if task.blind else None
        record = {k: v for k, v in common.flag_values().items() if k not in FREE_SETTINGS}
        results = outputs.Results(pathlib.Path(FLAGS.output), record, FLAGS.overwrite)
        restorer = batch.BatchRestorer(
            loaded.prior, loaded.spec.build().stride, channels, FLAGS.num_steps,
            noise_std=noise_model(), sampler=FLAGS.sampler, guidance=FLAGS.guidance,
            time_grid_name=FLAGS.time_grid, t_start=FLAGS.t_start, t_end=FLAGS.t_end,
            num_corrections=FLAGS.num_corrections, start="noise" if task.blind else FLAGS.start,
            num_particles=FLAGS.num_samples if FLAGS.sampler in samplers.POPULATION_SAMPLERS else None,
            **(kernels.joint_settings() if kernels else {}),
        )  # fmt: skip
        reader = inputs.Reader(
            FLAGS.task, options, channels, FLAGS.image_size, FLAGS.measured, noise_model(), FLAGS.seed, stored,
            FLAGS.start == "guess" and not task.blind,
        )  # fmt: skip
        names = inputs.output_names(files, pathlib.Path(FLAGS.input))
        todo = [(path, name) for path, name in zip(files, names, strict=True) if name not in results.done]
        entries, failures = reader.check(todo)
        if failures and not entries and not results.rows:
            raise ValueError(next(iter(failures.values())))
        for error in failures.values():
            print(f"skipped: {error}", file=sys.stderr)
        results.begin()

    restore_all(entries, reader, restorer, kernels, results, failures)
    results.finish(failures)
    report(results, failures)


def restore_all(entries, reader, restorer, kernels, results, failures) -> None:
    """Restore every image, writing each as soon as its last sample is there."""
    parts: dict[str, list] = defaultdict(list)  # by image: (samples, residuals, kernels, seconds) of each batch
    plan, searched = batches(entries), {}
    with tqdm(total=len(plan) * FLAGS.num_steps, unit="step", disable=not plan) as bar:
        for pairs in plan:
            jobs = {entry.name: reader.measure(entry) for entry, _ in pairs}
            if kernels:
                for name, job in jobs.items():
                    if name not in searched:
                        searched[name] = kernels.find(job, inputs.key_of(job.entry, FLAGS.seed, 2))
            keys = jnp.stack([
                jax.random.fold_in(inputs.key_of(entry, FLAGS.seed, 1), i) for entry, i in pairs
            ])  # fmt: skip
            measurements = np.stack([jobs[entry.name].measurement for entry, _ in pairs])
            known = [searched[e.name].operator if kernels else jobs[e.name].operator for e, _ in pairs]
            done = restorer(keys, measurements, known, pairs[0][0].shape, bar.update)
            for i, (entry, _) in enumerate(pairs):
                parts[entry.name].append(done.part(i, len(pairs)))
                if sum(len(p.images) for p in parts[entry.name]) == FLAGS.num_samples:
                    found = batch.join(parts.pop(entry.name))
                    finish(jobs[entry.name], found, searched.pop(entry.name, None), results, failures)


def finish(job, found, search, results, failures) -> None:
    """Write one image, or report that its loop diverged."""
    name = job.entry.name
    if not np.abs(found.images).max() < DIVERGED:  # true for not-a-number too
        failures[name] = "the loop diverged; take more steps, or sampler ancestral with covariance"
        print(f"failed: {name}: {failures[name]}", file=sys.stderr)
        return
    evaluations, seconds = FLAGS.num_steps * FLAGS.num_samples * (1 + FLAGS.num_corrections), found.seconds
    kernel = None
    if search is not None:
        best = found.kernels if found.kernels is None else found.kernels[np.argmin(found.residuals)]
        kernel = search.kernel if best is None else best
        evaluations, seconds = evaluations + search.evaluations, seconds + search.seconds
    results.write(job, outputs.Restored(found.images, found.residuals, kernel, seconds, evaluations))


def report(results, failures) -> None:
    """The closing lines, and exit code 1 if an image failed."""
    means = results.means()
    if "psnr" in means:
        psnr, ssim = (
            " -> ".join(f"{means[k]:.{digits}f}" for k in (f"{metric}_measurement", metric) if k in means)
            for metric, digits in (("psnr", 2), ("ssim", 3))
        )
        print(f"{FLAGS.task}: {len(results.rows)} images, PSNR {psnr} dB, SSIM {ssim}")
    if "psnr_aligned" in means:
        psnr, ssim = means["psnr_aligned"], means["ssim_aligned"]
        print(f"up to the task's trivial ambiguities: PSNR {psnr:.2f} dB, SSIM {ssim:.3f}")
    if "kernel_mse" in means:
        print(f"kernel's mean squared error (maximum one, common shift removed): {means['kernel_mse']:.4f}")
    print(f"pictures: {results.folder / 'grid.png'}, {results.folder / 'restored'}")
    if failures:
        print(f"error: {len(failures)} of the images failed, see {results.folder / 'summary.json'}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    common.run(main)
