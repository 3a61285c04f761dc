"""Faults put into the code one at a time, each with the tests that must notice it.

    .venv/bin/python tests/mutations.py                  # all of them, one after the other
    .venv/bin/python tests/mutations.py decoupled mask   # those whose name has one of the words

Not a part of the suite. The code is changed in a copy. A fault that no test of its list notices is printed as ALIVE,
and the exit status is 1. The text to be replaced must be there exactly once, so that the list follows the code.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Mutation(NamedTuple):
    """A fault: in `file` of the package `old` becomes `new`; `tests` are pytest's arguments."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = (
    # Published weights.
    Mutation("pickles: a dot in a name", "importers/pickles.py", 'or "." in name', "",
             "tests/test_containers.py -k hostile"),
    Mutation("pickles: attributes of anything", "importers/pickles.py", "elif type(value) is dict:", "elif value:",
             "tests/test_containers.py -k hostile"),
    Mutation("pickles: no budget", "importers/pickles.py", "if self.left < 0", "if False",
             "tests/test_containers.py -k reserved"),
    Mutation("pickles: more is asked for than there is", "importers/pickles.py", "_Bounded(file)):", "file):",
             "tests/test_containers.py -k reserved"),
    Mutation("tensors: no offset", "importers/tensors.py", "storage[offset:], size", "storage, size",
             "tests/test_containers.py"),
    Mutation("tensors: beyond the storage", "importers/tensors.py", "last >= storage.size", "last > storage.size",
             "tests/test_containers.py -k reserved"),
    Mutation("containers: sizes are believed", "importers/containers.py", "if count > _size(file) - file.tell()",
             "if False", "tests/test_containers.py -k stated"),
    Mutation("containers: sums are not checked", "importers/containers.py", "if info.CRC and", "if not info.CRC and",
             "tests/test_containers.py -k damaged"),
    Mutation("inert: modules backwards", "importers/inert.py", "parts += reversed(below)", "parts += below",
             "tests/test_containers.py -k edm"),
    Mutation("take: names left over", "importers/source.py", "k not in names and not any", "False and not any",
             "tests/test_containers.py -k fit"),
    Mutation("unets: shift for scale", "models/epsilon_unet.py", "scale, shift = jnp", "shift, scale = jnp",
             "tests/test_import_unets.py -k official"),
    Mutation("unets: sines for cosines", "models/blocks.py", "parts if cosine_first else parts[::-1]",
             "parts[::-1] if cosine_first else parts", "tests/test_import_unets.py -k official"),
    Mutation("unets: periods end elsewhere", "models/blocks.py", "np.float32(half - shift)", "np.float32(half)",
             "tests/test_import_unets.py -k official"),
    Mutation("unets: zeros before the strided convolution", "models/epsilon_unet.py", '"conv_after": (0, 1)',
             '"conv_after": (1, 0)', "tests/test_import_unets.py -k official"),
    Mutation("unets: skips first", "models/epsilon_unet.py", "[h, skips.pop()]", "[skips.pop(), h]",
             "tests/test_import_unets.py -k official"),
    Mutation("unets: attention is not divided", "models/blocks.py", "x if scale == 1 else x / scale", "x",
             "tests/test_import_unets.py -k official"),
    Mutation("unets: images are not centred", "models/epsilon_unet.py", "2 * x - 1 if self.center", "x if self.center",
             "tests/test_import_unets.py -k official"),
    Mutation("adm: heads inside q, k, v", "importers/adm.py", ".swapaxes(0, 1)", "",
             "tests/test_import_unets.py -k official"),
    Mutation("adm: the decoder's heads", "importers/adm.py", '"heads_up" if part', '"heads" if part',
             "tests/test_import_unets.py -k official"),
    Mutation("adm: rates of fewer steps", "importers/adm.py", "rate = STEPS / (options.diffusion_steps or STEPS)",
             "rate = 1.0", "tests/test_import_unets.py -k options_of_adm"),
    Mutation("ddpm: another epsilon", "importers/ddpm.py", "EPSILON = 32, 1e-6", "EPSILON = 32, 1e-5",
             "tests/test_import_unets.py -k other_names"),
    Mutation("ddpm: the last weights for their averages", "importers/ddpm.py", "4 if averaged else 0", "0",
             "tests/test_import_unets.py -k other_names"),
    Mutation("diffusers: a norm in the middle", "importers/diffusers.py", "(0 if scale_shift else", "(0 if False else",
             "tests/test_import_unets.py -k official"),
    Mutation("diffusers: a missing key is null", "importers/diffusers.py", '"attention_head_dim": 8,',
             '"attention_head_dim": None,', "tests/test_import_unets.py -k heads_differ"),
    Mutation("diffusers: unknown keys", "importers/diffusers.py", "and value not in (None, False):",
             "and value not in (None, False) and False:", "tests/test_import_unets.py -k configurations"),
    Mutation("export: queries and keys exchanged", "exporters/diffusers.py", "zip(parts, np.split(array, 3)",
             "zip((parts[1], parts[0], parts[2]), np.split(array, 3)", "tests/test_export.py -k option"),
    Mutation("export: other networks too", "exporters/diffusers.py", "if differing:", "if False:",
             "tests/test_export.py -k does_not_have"),
    Mutation("export: no spectrum comes back", "jobs/import_model.py", "told.spectrum, told.calibrated_on",
             "None, told.calibrated_on", "tests/test_export.py -k holds_all"),
    Mutation("export: half a file", "jobs/export.py", "export.write(part)", "export.write(part := output)",
             "tests/test_export.py -k until"),
    # The diffusion and its priors.
    Mutation("diffusion: no initial velocity", "diffusion.py", "return initial + self.process", "return self.process",
             "tests/test_diffusion.py"),
    Mutation("diffusion: no time is earlier than 1e-7", "diffusion.py", "low = np.where(above, low - 1, low)", "break",
             "tests/test_diffusion.py -k decrease"),
    Mutation("diffusion: friction halved in the process noise", "diffusion.py", "(t * 2 * self.damping * self.beta)",
             "(t * self.damping * self.beta)", "tests/test_diffusion.py"),
    Mutation("tiles: weights that do not sum to one", "tiles.py", "return window / total[places]", "return window",
             "tests/test_tiles.py"),
    Mutation("tiles: the overlap fades in at the very border", "tiles.py", "(edge - self.overlap / 4)", "edge",
             "tests/test_tiles.py"),
    Mutation("tiles: the pullback keeps every tile", "tiles.py",
             "jax.checkpoint(lambda pixels: function(pixels, *rest), prevent_cse=False)",
             "lambda pixels: function(pixels, *rest)", "tests/test_tiles.py"),
    Mutation("tiles: the transpose of the blend", "tiles.py", "lambda _, parts: (join(parts),)",
             "lambda _, parts: jax.vjp(apart, jnp.zeros((height, width, parts.shape[-1])))[1](parts)",
             "tests/test_tiles.py"),
    Mutation("tiles: a continued job takes the machine's tile", "jobs/tiling.py", 'now["tile"] = tile', "pass",
             "tests/test_tiles.py"),
    Mutation("prior: sign of the position in the score", "priors.py", "c.data * mean - c.precision_xv * x",
             "c.data * mean + c.precision_xv * x", "tests/test_priors.py"),
    Mutation("prior: error_spectrum not scaled to the calibration", "priors.py",
             "error * (self.error_variance(noise) / jnp.mean(error))", "error",
             "tests/test_guidance.py -k level"),
    Mutation("spectrum: the mean is like its neighbours", "spectral.py",
             "grid[0, 0] = np.array(spectrum.mean_power) * height * width", "pass",
             "tests/test_spectral.py tests/test_denoising.py tests/test_compilation.py"),
    Mutation("adapters: the sign of v", "adapters.py", "a * x_in - sigma * a * output",
             "a * x_in + sigma * a * output", "tests/test_adapters.py"),
    Mutation("mixture: no weights", "closed_form.py", "jnp.log(self.weights) + logits", "logits",
             "tests/test_priors.py"),
    Mutation("convolution: the kernel not turned", "models/convolution.py", "jnp.flip(kernel, (0, 1)).swapaxes(2, 3)",
             "kernel.swapaxes(2, 3)", "tests/test_networks.py"),
    # Noise.
    Mutation("noise: Poisson variance halved", "noise.py", "return 4 * mean / rate**2",
             "return 2 * mean / rate**2", "tests/test_noise.py"),
    Mutation("noise: the sensor's part left out", "noise.py", " + GaussianNoise(self.std).variance(predicted)", "",
             "tests/test_noise.py"),
    Mutation("numerics: a ratio's derivative by its divisor", "numerics.py", "_divided(da - q * db, b, b)",
             "_divided(da, b, b)", "tests/test_gradients.py"),
    Mutation("noise: deviations not bounded", "noise.py",
             "jnp.clip(jnp.asarray(self.std, jnp.result_type(float)), SMALLEST_NOISE, UNSEEN_STD)",
             "jnp.asarray(self.std, jnp.result_type(float))", "tests/test_noise.py -k good_as"),
    Mutation("calibration: every image of a batch has one noise", "denoising.py", "jax.vmap(one)(batch, keys)",
             "jax.vmap(lambda image: one(image, keys[0]))(batch)", "tests/test_denoising.py -k batch"),
    Mutation("checking: methods of any shape pass", "operators/checking.py", "if has != needs and not",
             "if False and not", "tests/test_checking.py -k shape_or_kind"),
    # Guidance.
    Mutation("guidance: fixed noise counts as Gaussian", "guidance/__init__.py", "not isinstance(model, GaussianNoise)",
             "not model.fixed", "tests/test_particles.py -k own_likelihood"),
    Mutation("guidance: SPREAD = 0", "guidance/__init__.py", "SPREAD = 2.0", "SPREAD = 0.0",
             "tests/test_guidance.py -k asked"),
    Mutation("guidance: a term of u_t in the determinant of few numbers", "guidance/base.py",
             "jnp.linalg.slogdet(gram_matrix(problem, spread))[1]",
             "jnp.linalg.slogdet(gram_matrix(problem, spread))[1] + jnp.sum(problem.estimate)",
             "tests/test_guidance.py -k log_fit"),
    Mutation("guidance: a term of u_t in the determinant of many", "guidance/base.py",
             "return 0.0 if problem.fixed_noise", "return jnp.sum(problem.estimate) if problem.fixed_noise",
             "tests/test_guidance.py -k log_fit"),
    Mutation("guidance: a nonlinear H counts as linear", "guidance/base.py", "and problem.linear() else",
             "else", "tests/test_particles.py -k refuse"),
    Mutation("guidance: the line search forgets the noise of each entry", "guidance/covariance_forms.py",
             "moved if problem.precision is None else problem.precision * moved", "moved", "tests/test_noise.py"),
    Mutation("guidance: no line search", "guidance/covariance_forms.py", "jnp.clip(length, 0.0, 1.0) * p", "p",
             "tests/test_guidance.py -k line"),
    Mutation("guidance: plug_in not kept stable", "guidance/plug_in_forms.py",
             "1 / jnp.maximum(problem.stiffness * load, 1.0)",
             "1.0", "tests/test_guidance.py -k stable"),
    Mutation("guidance: data_weight ignored", "guidance/__init__.py", "model.variance(predicted) / data_weight",
             "model.variance(predicted)", "tests/test_restore.py -k weight"),
    # Operators.
    Mutation("mask: applied twice, not squared", "operators/masks.py", "prior_variance * self.seen**2",
             "prior_variance * self.seen", "tests/test_masks_and_chains.py"),
    Mutation("mask: NaN times zero", "operators/masks.py", "jnp.where(self.seen != 0, y, 0.0)", "self.seen * y",
             "tests/test_masks_and_chains.py"),
    Mutation("residual: the mean over all entries", "operators/algebra.py", 'if operator.offers("restrict"):',
             "if False:", "tests/test_masks_and_chains.py"),
    Mutation("chain: `expected` lost", "operators/chain.py",
             "self.last.expected(self.first.expected(x, std), std)", "self(x)", "tests/test_masks_and_chains.py"),
    Mutation("view: the mean of colours in the closed form", "operators/view.py", "prior_variance / self.averaged",
             "prior_variance", "tests/test_masks_and_chains.py"),
    Mutation("blur: the kernel one pixel off", "operators/kernel_blur.py", "np.mod(np.arange(h) - h // 2, shape[0])",
             "np.mod(np.arange(h) - h // 2 + 1, shape[0])", "tests/test_operators.py -k convol"),
    Mutation("blur: the preconditioner knows no blur", "operators/kernel_blur.py", "gram[..., None] * variances",
             "variances", "tests/test_operators.py -k preconditioner"),
    Mutation("kernel files: the centre of an even side", "operators/kernel_files.py", "[(0, 1 - n % 2) for n in sides]",
             "[(1 - n % 2, 0) for n in sides]", "tests/test_kernel_files.py -k even"),
    Mutation("kernel files: resized about another point", "operators/kernel_files.py", "- count / 2) * factor",
             "- count / 2 + 0.5) * factor", "tests/test_kernel_files.py -k resized"),
    Mutation("mask files: black may never be missing", "operators/mask_files.py", "or _border(white) < SURROUNDS",
             "or True", "tests/test_mask_files.py -k black"),
    Mutation("mask files: the photograph is not asked", "operators/mask_files.py", "photograph() if measured else None",
             "None", "tests/test_mask_files.py -k otherwise"),
    Mutation("mask files: losses are paint", "operators/painted.py", "strength < LOSSES * typical", "False",
             "tests/test_mask_files.py -k no_paint"),
    Mutation("mask files: cut from the corner", "pictures/picture.py",
             "left, top = (image.width - side) // 2,", "left, top = 0 * side,",
             "tests/test_mask_files.py -k cut_and_resized"),
    Mutation("masks of photographs: a soft pixel is darkened", "jobs/inputs.py",
             "image = pairing.weighed(image, operator)", "pass", "tests/test_mask_files.py -k counts_as_much"),
    Mutation("known pixels: no membrane", "operators/known_pixels.py", "(estimate + shift)", "(estimate + 0 * shift)",
             "tests/test_mask_files.py -k fits_again"),
    Mutation("batches: operators of several sizes", "jobs/buckets.py", "() if side else entry.form", "()",
             "tests/test_kernel_files.py -k one_batch"),
    Mutation("buckets: what is padded is seen", "operators/masks.py", "(0, right), (0, 0))",
             "(0, right), (0, 0)), 'edge'", "tests/test_streaming.py -k padded_image"),
    Mutation("writer: goes on behind an error", "jobs/streaming.py", "self._broken = True", "self._broken = False",
             "tests/test_streaming.py -k nothing_is_done_after"),
    Mutation("prefetch: reads on behind the end", "data.py", "            busy.acquire()", "            pass",
             "tests/test_streaming.py -k behind_the_end"),
    Mutation("second try: as many steps", "jobs/retrying.py", "num_steps=2 * method.num_steps",
             "num_steps=1 * method.num_steps", "tests/test_streaming.py -k tried_again"),
    Mutation("clip: the edges' part of the mean", "operators/tones.py", "z * (upto - below) + s * edges",
             "z * (upto - below)", "tests/test_guidance.py -k expected"),
    Mutation("mri: the pairs of k and -k left out", "operators/fourier.py", "both = seen * opposite(seen)",
             "both = 0 * seen", "tests/test_scanners.py"),
    # Samplers.
    Mutation("decoupled: half the noise", "samplers/annealing.py", "cholesky(cld.covariance(times[1:]))",
             "0.5 * cholesky(cld.covariance(times[1:]))", "tests/test_samplers.py -k decoupled"),
    Mutation("decoupled: no noise", "samplers/annealing.py", "cholesky(cld.covariance(times[1:]))",
             "0.0 * cholesky(cld.covariance(times[1:]))", "tests/test_samplers.py -k decoupled"),
    Mutation("start: the guess not diffused", "restoration.py", "._replace(x=x, v=v)",
             "._replace(x=_fit(guess, image_shape), v=0 * v)", "tests/test_samplers.py -k guess"),
    Mutation("particles: a weight without |s c|^2 / 2", "samplers/monte_carlo.py",
             " - jnp.sum(s**2) / 2 * inner(correction, correction)", "", "tests/test_particles.py"),
    Mutation("particles: fit of the parent kept", "samplers/monte_carlo.py", "log_weights + ratio - fit",
             "log_weights + ratio", "tests/test_particles.py"),
    Mutation("corrections: noise not cut", "samplers/corrections.py", "(1 - KEPT**2) ** 0.5 * factor",
             "(2 - 2 * KEPT) ** 0.5 * factor", "tests/test_particles.py -k corrections"),
    Mutation("multistep: of first order", "samplers/flow_steps.py", "change = found.mean - state.last_mean",
             "change = 0 * found.mean", "tests/test_samplers.py -k order"),
    # The search for a kernel.
    Mutation("evidence: zero", "evidence.py", "return cast(jax.Array, total) / len(JUDGED_NOISES)",
             "return 0 * cast(jax.Array, total)", "tests/test_blind.py -k evidence"),
    Mutation("evidence: its sign", "evidence.py", "return cast(jax.Array, total) / len(JUDGED_NOISES)",
             "return -cast(jax.Array, total)", "tests/test_blind.py -k evidence"),
    Mutation("evidence: the image's own part left out", "evidence.py", "total, before = total + energy, (s, error)",
             "before = (s, error)", "tests/test_blind.py -k evidence"),
    # Baselines, measures, batches.
    Mutation("daps: tau's gradient halved", "baselines/daps.py", "+ 2 * back(measurement - predicted)[0] / tau**2",
             "+ back(measurement - predicted)[0] / tau**2", "tests/test_baselines.py -k daps"),
    Mutation("pigdm: the guide not scaled", "baselines/pigdm.py", "jnp.sqrt(before * kept) * guide", "guide",
             "tests/test_baselines.py -k pigdm"),
    Mutation("ddnm: the noise of y as if new", "baselines/ddnm.py",
             "jnp.sqrt(jnp.maximum(c**2 - (a * level) ** 2, 0.0))",
             "c", "tests/test_baselines.py -k ddnm"),
    Mutation("edm: the image as a step of its own", "parameterizations/edm.py", '["levels_of_noise"][:-1]',
             '["levels_of_noise"]', "tests/test_import_edm.py -k discrete"),
    Mutation("classical: reductions stretched to the image", "baselines/classical.py", "(*large, channels)",
             "image_shape", "tests/test_baselines.py -k register"),
    Mutation("constants: published for every task", "jobs/baseline_constants.py",
             "and task not in RELEASED[self.method]", "and False", "tests/test_baselines.py -k published"),
    Mutation("experts: a class for the first alone", "jobs/settings.py", "self.load(second, high_label)",
             "self.load(second)", "tests/test_jobs.py -k two_priors"),
    Mutation("uncertainty: any chains are judged", "evaluation/uncertainty.py",
             'if not (folder / "deviation").exists()', "if False", "tests/test_programs.py -k only_posterior"),
    Mutation("pictures: a diagonal turn is the other one", "pictures/reading.py", "5: (1, 0, 0)", "5: (1, 1, 1)",
             "tests/test_pictures.py -k orientations"),
    Mutation("pictures: the low bytes are lost", "pictures/deep.py", "high.astype(np.uint16) << 8 | low",
             "high.astype(np.uint16) << 8 | high", "tests/test_pictures.py -k full_depth"),
    Mutation("pictures: profiles of 16 bits are ignored", "pictures/profiles.py",
             "light @ np.linalg.solve(target.matrix, source.matrix).T", "light", "tests/test_pictures.py -k profiles"),
    Mutation("pictures: sums of a PNG are not checked", "pictures/reading.py", "        image.verify()", "        pass",
             "tests/test_pictures.py -k damaged_files"),
    Mutation("metrics: the range of images", "metrics.py", "jnp.float32) / 255", "jnp.float32) / 127.5",
             "tests/test_metrics.py"),
    Mutation("batch: copies that fill the devices are not cut off", "batch.py",
             "own_rows(a)[: self._count]", "own_rows(a)",
             "tests/test_compilation.py"),
    Mutation("posterior: a narrower interval", "posterior.py", "* (1 + 1 / count) ** 0.5 *", "*",
             "tests/test_posterior_helpers.py"),
    # The networks of EDM and CLD-SGM, and what surrounds them.
    Mutation("fir: the filter not turned on the way up", "models/fir.py", "gains[2 * d + r + border]",
             "gains[len(gains) - 1 - (2 * d + r + border)]", "tests/test_import_edm.py -k resampling"),
    Mutation("edm blocks: the embedding after the norm", "models/edm_blocks.py", 'h = norm(h + share, "norm1")',
             'h = norm(h, "norm1") + share', "tests/test_import_edm.py -k official"),
    Mutation("edm blocks: shift before scale", "models/edm_blocks.py", "scale, shift = jnp.split",
             "shift, scale = jnp.split", "tests/test_import_edm.py -k narrower"),
    Mutation("edm blocks: each block on the way up attends", "models/edm_blocks.py", "everywhere or i == blocks",
             "True", "tests/test_import_edm.py -k ddpmpp"),
    Mutation("song: the cosines first", "models/song_unet.py", "h = jnp.roll(h, self.waves // 2, -1)", "h = +h",
             "tests/test_import_edm.py -k official"),
    Mutation("song: the classes not scaled", "models/song_unet.py", "len(label)) * self.classes**0.5", "len(label))",
             "tests/test_import_edm.py -k ddpmpp"),
    Mutation("song: the pyramid of the input goes on from itself", "models/song_unet.py",
             "        return h, h\n", "        return h, pyramid\n", "tests/test_import_cld.py -k official"),
    Mutation("dhariwal: one head", "models/dhariwal_unet.py", "return heads_of(width) if", "return 1 if",
             "tests/test_import_edm.py -k two"),
    Mutation("edm: the label ends not", "parameterizations/edm.py", 'jnp.log(jnp.clip(s, *limits("edm", c))) / 4',
             "jnp.log(s) / 4", "tests/test_import_edm.py -k beyond"),
    Mutation("edm: log in place of log1p", "parameterizations/edm.py",
             'jnp.log1p(jnp.clip(s, *limits("edm_vp", c)) ** 2)', 'jnp.log(1 + jnp.clip(s, *limits("edm_vp", c)) ** 2)',
             "tests/test_import_edm.py -k label"),
    Mutation("edm: the table of noise levels by one", "parameterizations/edm.py", "levels.size - 1 - index",
             "levels.size - index", "tests/test_import_edm.py -k two"),
    Mutation("edm arrays: q, k, v not interleaved", "importers/edm_arrays.py", "array.reshape(heads, -1, 3,",
             "array.reshape(heads, 3, -1,", "tests/test_import_edm.py -k official"),
    Mutation("cld: nothing added to the variance", "parameterizations/cld_sgm.py",
             "c.std_v**2 + epsilon + hidden", "c.std_v**2 + epsilon", "tests/test_import_cld.py -k another_time"),
    Mutation("cld: their time is ours", "parameterizations/cld_sgm.py", "    if not beta1:\n", "    if True:\n",
             "tests/test_import_cld.py -k gaussian"),
    Mutation("cld: always mixed", "parameterizations/cld_sgm.py", 'if k["mixed_score"] else score',
             "if True else score", "tests/test_import_cld.py -k gaussian"),
    Mutation("cld: the last weights", "importers/cld_sgm.py", "        state[name] = np.asarray(array)\n", "",
             "tests/test_import_cld.py -k official"),
    Mutation("cld arrays: matrices of attention turned", "importers/cld_arrays.py", "arrays.pop(name).T for name",
             "arrays.pop(name) for name", "tests/test_import_cld.py -k official"),
    # The noise of files, and warnings.
    Mutation("noise estimates: no divergence", "noise_estimation.py", "left = count - jnp.sum(direction * turned)",
             "left = count", "tests/test_noise_estimation.py -k likeliest"),
    Mutation("noise estimates: what a kernel cannot explain", "noise_estimation.py",
             "np.fmin(spectral_std(y, kernel, prior), most)", "spectral_std(y, kernel, prior)",
             "tests/test_noise_estimation.py -k wrong_kernel"),
    Mutation("noise estimates: the first image's for all", "batch.py", "*(noises[row] for row in rows)",
             "*(noises[0] for row in rows)", "tests/test_noise_estimation.py -k own_noise"),
    Mutation("noise estimates: no residual is too large", "jobs/cautions.py", "HIGHEST + chance", "99 * HIGHEST",
             "tests/test_cautions.py -k unlike"),
    # Restarts.
    Mutation("manifest: its own clock alone", "jobs/manifest.py", "max(time.time(), self.last + 1e-3)", "time.time()",
             "tests/test_restart.py -k said"),
    Mutation("ledger: files are not looked at", "jobs/ledger.py", "= damaged(folder, own)", "= {}",
             "tests/test_restart.py -k damaged"),
    Mutation("origins: any file goes on", "jobs/origins.py", "before.get(n, own[n]) != own[n]", "False",
             "tests/test_restart.py -k may_not_change"),
    Mutation("origins: a shard that began at once is not looked at", "jobs/outputs.py",
             '            self._record["made_of"] = self._agreed()', "            pass",
             "tests/test_restart.py -k setting_names"),
    Mutation("origins: changed inputs stay", "jobs/run.py", "    results.damaged.update(_changed(",
             "    dict(_changed(", "tests/test_restart.py -k own_files"),
    Mutation("kinds: only the first image is tried", "jobs/run.py", "first = first or error", "raise error",
             "tests/test_jobs.py -k fails_alone"),
    Mutation("pairs: an image is its own mask", "operators/paired_files.py", " if file.resolve() != own]", "]",
             "tests/test_folders.py -k may_lie"),
    Mutation("inputs: a kernel supersedes an image", "jobs/selection.py", "if not (files := less(files)):",
             "if not less(files):", "tests/test_folders.py -k takes_from"),
    Mutation("buckets: a line before its files", "jobs/outputs.py", "            self.place.keep(files)\n", "",
             "tests/test_remote.py -k counts_once"),
    Mutation("buckets: sizes are not looked at", "jobs/places.py", "(size != told and None", "(False and None",
             "tests/test_remote.py -k killed"),
    Mutation("buckets: what others did is not fetched", "jobs/places.py", "n in self._sizes and n != but",
             "False", "tests/test_remote.py -k share"),
    Mutation("ledger: two names of one file", "jobs/ledger.py", "if other or own[0]", "if own[0]",
             "tests/test_restart.py -k differently"),
    Mutation("ledger: names of other shards are lost", "jobs/ledger.py",
             "manifest.named(self._folder, self._account) | self.files", "self.files",
             "tests/test_restart.py -k given_up"),
    Mutation("ledger: who joins knows what it read first", "jobs/ledger.py",
             "            self.read_again()\n            self.damaged", "            self.damaged",
             "tests/test_restart.py -k clock"),
    Mutation("processes: each plans by its own memory", "processes.py",
             "min(int(text) for text in union([str(number)]))", "number", "tests/test_tiles.py -k least_memory"),
    Mutation("second try: the others are asked", "batch.py", "*() if self._spread.alone else (alike,)", "alike",
             "tests/test_streaming.py -k asks_nothing"),
    Mutation("lock: any division goes", "jobs/folder_lock.py", "if before != parts:", "if False:",
             "tests/test_restart.py -k divisions"),
    Mutation("shards: by the length of the name", "jobs/shards.py",
             'int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")', "len(name)",
             "tests/test_restart.py -k whatever"),
    Mutation("streaming: more threads than results may wait", "data.py", "threads = min(threads, ahead)", "",
             "tests/test_streaming.py -k warning"),
    Mutation("growing: a new level counts at once", "growing.py",
             "[jnp.zeros((features, features)), jnp.eye(features)]",
             "[jnp.eye(features), jnp.zeros((features, features))]", "tests/test_training.py -k grown"),
    Mutation("growing: blocks in another order", "growing.py",
             "for level in reversed(range(levels)) for i", "for level in range(levels) for i",
             "tests/test_training.py -k grown"),
    Mutation("camera: neighbours in another order", "operators/camera.py", "light[:-1, 1:], light[1:, :-1]",
             "light[1:, :-1], light[:-1, 1:]", "tests/test_operators.py -k camera"),
    Mutation("masks: a shifted one is not told", "operators/misplaced.py", "    if words:", "    if False:",
             "tests/test_mask_files.py -k beside"),
    Mutation("coarse: begun at noise", "plans.py", "    if factor == 1:", "    if factor:",
             "tests/test_coarse.py -k colour"),
    Mutation("coarse: the noise of one pixel", "operators/masks.py", "ratio(jnp.ones_like(weight), weight)",
             "ratio(count + 0 * weight, weight)", "tests/test_coarse.py -k reduced"),
    Mutation("coarse: a soft mask's gain kept", "operators/masks.py", "self.pixels(y)", "y",
             "tests/test_coarse.py -k reduced"),
    Mutation("stopping: not asked", "jobs/restoring.py", "if processes.anyone(stopping.asked()):", "if False:",
             "tests/test_restart.py -k sigterm"),
)  # fmt: skip


def run(folder: pathlib.Path, *tests: str) -> subprocess.CompletedProcess:
    """pytest in the copy, up to the first failure."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def survivors(chosen: list[Mutation], folder: pathlib.Path) -> list[str]:
    """The names of the mutations that no test of theirs notices; `folder` holds a copy of the repository."""
    alive = []
    for mutation in chosen:
        path = folder / "cvsa_jax" / mutation.file
        source, clock = path.read_text(), time.perf_counter()
        if source.count(mutation.old) != 1:
            raise SystemExit(
                f"{mutation.name}: {mutation.file} holds {mutation.old!r} {source.count(mutation.old)} times"
            )
        path.write_text(source.replace(mutation.old, mutation.new))
        done = run(folder, *mutation.tests.split())
        path.write_text(source)
        if done.returncode not in (0, 1):  # no tests, or none that runs
            raise SystemExit(f"{mutation.name}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}")
        failed = [
            line.removeprefix("FAILED ").split(" - ")[0]
            for line in done.stdout.splitlines()
            if line.startswith("FAILED ")
        ]
        if failed and run(folder, failed[0]).returncode:
            raise SystemExit(f"{mutation.name}: {failed[0]} fails without the fault too")
        state = "dead " if failed else "ALIVE"
        print(f"{state} {time.perf_counter() - clock:4.0f} s  {mutation.name}  {' '.join(failed)}", flush=True)
        alive += [] if failed else [mutation.name]
    return alive


def main(words: list[str]) -> int:
    """0 if every mutation with one of the words in its name dies."""
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name) / "copy"
        files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
            "\n"
        )
        for file in filter(None, files):
            if (ROOT / file).is_file():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / file, folder / file)
        os.environ["PYTHONPATH"] = str(folder)
        alive = survivors(chosen, folder)
    print(f"{len(chosen) - len(alive)} of {len(chosen)} die")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
