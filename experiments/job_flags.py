"""The flags of one restoration job, for the command line and for programs that run many."""

import functools
from collections.abc import Sequence

from absl import flags

from cvsa_jax import guidance, operators, samplers
from cvsa_jax.diffusion import TIME_GRIDS
from cvsa_jax.restore import STARTS
from experiments import common, methods


def define(into: flags.FlagValues) -> None:
    """Define them."""
    text, switch, whole, number, choice, several = (
        functools.partial(kind, flag_values=into)
        for kind in (
            flags.DEFINE_string, flags.DEFINE_bool, flags.DEFINE_integer, flags.DEFINE_float, flags.DEFINE_enum,
            flags.DEFINE_list
        )
    )  # fmt: skip
    text("task", None, "The degradation, or several joined by '+', as in motion_deblur+sr4; see --list_tasks.")
    switch("list_tasks", False, "Print the tasks with their presets and stop.")
    text("input", None, "An image, or a folder of images (subfolders are searched).")
    text("list", None, "Text file with the images to take, a path a line, relative to --input.")
    text("output", None, "Folder of the results.")
    switch("measured", False, "The inputs are already degraded; by default they are clean.")
    text("checkpoint", str(common.DEFAULT_CHECKPOINT), "Folder of the prior.")
    text("kernel_checkpoint", str(common.KERNEL_CHECKPOINT), "Blind tasks: folder of the prior of kernels.")
    whole("image_size", None, "Cut the centre square and resize it to this; by default as it is.")
    whole("limit", None, "Restore only the first N images.", lower_bound=1)
    switch("overwrite", False, "Write into a folder that holds other results.")
    switch("report", False, "Write report.html too, one page with everything that needs no network.")
    choice("noise", "gaussian", ["gaussian", "poisson"], "The noise of the measurement.")
    number("noise_std", 0.05, "Gaussian noise: standard deviation, for images in [-1, 1].")
    number("photons", 200.0, "Poisson noise: photons that a white pixel counts.")
    choice("method", methods.CVSA, list(methods.METHODS), "What restores.")
    several("method_settings", [], "Constants of a baseline, NAME=NUMBER,...; by default those of the tables.")
    choice("aim", methods.ACCURACY, list(methods.AIMS), "The preset: of least error, or of posterior samples.")
    # What is None from here on is the preset of the task, or of the method.
    whole("num_steps", None, "Reverse steps of a sample; one network evaluation each.")
    choice(
        "sampler",
        None,
        [*samplers.SAMPLERS, *samplers.POPULATION_SAMPLERS],
        "The reverse-time sampler; the particles of one population are the --num_samples samples.",
    )
    choice("guidance", None, list(guidance.GUIDANCES), "Form of the observation score.")
    whole("num_corrections", None, "Langevin steps at each noise level; an evaluation each.", lower_bound=0)
    choice("time_grid", None, list(TIME_GRIDS), "How the times are spaced.")
    number("t_start", None, "First time of the grid.")
    choice(
        "start",
        None,
        list(STARTS),
        "Begin at noise, or at the operator's own guess diffused to --t_start; blind: with a search for the kernel.",
    )
    choice("combine", None, ["mean", "residual"], "The restoration: the samples' mean, or that of least residual.")
    number("t_end", None, "Last time at which the network is asked.")
    number("data_weight", None, "Power of the likelihood; 1, Bayes' rule, if --sampler or --guidance is given.")
    whole("seed", 0, "Seed of masks, kernels, noise and samples.")
    whole("batch_size", 16, "Samples restored together.", lower_bound=1)
    whole("num_samples", None, "Posterior samples (or starts) per image; see --combine.", lower_bound=1)
    text("operator", None, "An operator/NAME.npz of an earlier job, to use for every image.")
    text("mask", None, "mask_inpaint, checkout: image file, white where pixels are missing.")
    text("kernel", None, "Blurs: kernel file (.npy or image) in place of a drawn one.")
    whole("kernel_size", None, "motion_deblur: side of the kernel; by default 61/256 of the image's.")
    number("kernel_std", None, "gaussian_deblur: deviation in pixels; by default 3/256 of the side.")
    number("motion_intensity", 0.5, "motion_deblur: 0 straight to 1 shaky.")
    choice("boundary", "reflect", list(operators.BOUNDARIES), "Blurs by a kernel: beyond the border.")
    whole("box_size", None, "box_inpaint: side of the hole; by default half the image's.")
    whole("box_margin", None, "box_inpaint: least distance to the border; by default 1/16 of the side.")
    number("missing", 0.92, "random_inpaint: share of the pixels that is lost.")
    number("oversampling", 2.0, "phase_retrieval: an eighth of this, times the side, is padded on either side.")
    number("exposure", 1.2, "nonlinear_deblur: above 1 bright areas saturate.")
    number("hdr_gain", 2.0, "hdr: by which the image's range exceeds the sensor's.")
    whole("jpeg_quality", 10, "jpeg: 1 coarse to 100.")
    text("bkse_weights", None, "bkse_deblur: the blur encoder's published file, or one of import_weights.")
    whole("search_guesses", 8, "Blind tasks: kernels that the search refines.", lower_bound=1)
    common.define_diffusion_flags(into)


def parse(arguments: Sequence[str]) -> flags.FlagValues:
    """The flags of a job from the arguments that `experiments.restore` takes.

    Raises:
      absl.flags.Error, ValueError: on a flag that is unknown or out of range.
    """
    own = flags.FlagValues()
    define(own)
    rest = own(["restore", *arguments])
    if len(rest) > 1:
        raise ValueError(f"unexpected argument {rest[1]!r}; flags start with --")
    return own


def values(job: flags.FlagValues) -> dict:
    """Every flag of a job, as given or by default."""
    names = flags.FlagValues()
    define(names)
    return {name: job[name].value for name in names}
