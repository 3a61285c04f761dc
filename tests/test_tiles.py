"""Large photographs: the network in tiles, long transforms, what a job settles for them."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from PIL import Image

from cvsa_jax import (
    CLD,
    placement,
    prior_from_denoiser,
    prior_from_velocity_network,
    processes,
    restore,
    spectral,
    tiles,
)  # fmt: skip
from cvsa_jax.experts import experts
from cvsa_jax.jobs import buckets, inputs, tiling
from cvsa_jax.jobs.settings import JobSettings, resolve
from cvsa_jax.operators import camera, kernel_blur
from cvsa_jax.operators.kernel_blur import GaussianBlurSettings
from cvsa_jax.priors import coefficients, denoiser_of

SHAPE = (40, 28, 2)


def pointwise(x, sigma):
    """Local and nonlinear: what a tile sees of a pixel is what the image shows."""
    return jnp.tanh(x) / (1 + sigma**2)


def near(x, sigma):
    """Neighbours two pixels away count, so that a tile's own border is wrong."""
    rolled = sum(jnp.roll(x, shift, axis) for shift in (-2, 2) for axis in (0, 1)) / 4
    return (x + 0.5 * rolled) / (1 + sigma**2)


def row(prior, t=0.1):
    return jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), coefficients(prior.cld, t))


def draw(seed, shape=SHAPE):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize(("side", "tile", "overlap", "stride"), [
    (40, 16, 4, 1), (40, 16, 8, 4), (24, 16, 8, 8), (16, 16, 4, 1), (9, 16, 4, 1), (4000, 1024, 128, 8),
    (136, 128, 16, 8), (15, 256, 32, 1), (3, 64, 8, 1), (1, 64, 8, 1),
])  # fmt: skip
def test_tiles_cover_the_image_and_their_weights_sum_to_one(side, tile, overlap, stride):
    layout = tiles.Layout(tile, overlap, stride)
    starts, weights, length = layout.starts(side), layout.weights(side), min(side, tile)
    assert weights.shape == (len(starts), length)
    assert starts[0] == 0 and starts[-1] + length == side and not (starts % stride).any()
    if len(starts) > 1:
        assert np.diff(starts).max() <= tile - overlap + stride
    total = np.zeros(side)
    np.add.at(total, starts[:, None] + np.arange(length), weights)
    np.testing.assert_allclose(total, 1, atol=1e-12)
    assert weights.min() >= 0
    # A tile fades out before its border, except where the image ends.
    quarter = overlap // 4
    assert not weights[1:, :quarter].any() and not weights[:-1, length - quarter :].any()
    assert weights[0, 0] == weights[-1, -1] == 1


def test_what_is_local_is_the_same_in_tiles():
    """Its mean and its gradient in both arguments; one image and a batch."""
    whole = prior_from_denoiser(pointwise, CLD())
    cut, c = tiles.tiled(whole, 16, 4), row(whole)
    x, v, w = (draw(i) for i in range(3))
    np.testing.assert_allclose(cut.mean(x, v, c), whole.mean(x, v, c), atol=1e-6)
    for prior in (cut, whole):
        assert denoiser_of(prior) is not None
    found, wanted = (jax.vjp(lambda x, v, p=p: p.mean(x, v, c), x, v)[1](w) for p in (cut, whole))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    batch = jax.vmap(lambda x, v: cut.mean(x, v, c))(jnp.stack([x, w]), jnp.stack([v, v]))
    np.testing.assert_allclose(batch[1], whole.mean(w, v, c), atol=1e-6)


def test_a_network_of_the_diffusion_and_experts_go_in_tiles():
    velocity = prior_from_velocity_network(
        lambda scale, u, t: scale * jnp.tanh(u[..., :2] - u[..., 2:]) * t, jnp.float32(0.7), CLD()
    )
    low = dataclasses.replace(prior_from_denoiser(pointwise, CLD()), highest_noise=0.5)
    high = prior_from_denoiser(lambda x, sigma: 0.1 * x, CLD())
    x, v = draw(0), draw(1)
    for whole in (velocity, experts(low, high), experts(low, velocity)):
        cut = tiles.tiled(whole, 16, 4)
        assert cut.highest_noise == whole.highest_noise and cut.stride == whole.stride
        for t in (0.02, 0.9):
            c = row(whole, t)
            wanted = whole.mean(x, v, c)
            np.testing.assert_allclose(cut.mean(x, v, c), wanted, atol=2e-6 * np.abs(wanted).max())


def test_overlap_hides_the_borders_of_tiles():
    """A network that looks two pixels far, beside whose wrong borders there are 16 / 4 = 4 pixels, is exact inside."""
    whole = prior_from_denoiser(near, CLD())
    x, c = draw(0, (64, 48, 1)), row(whole)
    error = np.abs(tiles.tiled(whole, 32, 16).mean(x, x, c) - whole.mean(x, x, c))
    assert error[4:-4, 4:-4].max() < 1e-6
    assert np.abs(tiles.tiled(whole, 32, 2).mean(x, x, c) - whole.mean(x, x, c))[4:-4, 4:-4].max() > 1e-3


def level(x, sigma):
    """The mean of what is seen, at each pixel: its derivative is as far as can be from local."""
    return jnp.full_like(x, x.mean())


def test_the_pullback_has_no_bands_where_tiles_overlap():
    """Of a flat image it is flat, as without tiles; the transpose of the blend is twice as large in the overlap."""
    whole = prior_from_denoiser(level, CLD())
    x, ones, c = draw(0, (64, 48, 1)), jnp.ones((64, 48, 1)), row(whole)
    found, wanted = (jax.vjp(lambda v, p=p: p.mean(x, v, c), x)[1](ones)[0] for p in (tiles.tiled(whole, 32, 8), whole))
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_an_image_as_large_as_a_tile_is_not_cut(tiny_prior):
    """The same program, bit for bit."""
    x, v, c = draw(0, (32, 24, 3)), draw(1, (32, 24, 3)), row(tiny_prior)
    cut = tiles.tiled(tiny_prior, 32, 16)
    programs = [str(jax.make_jaxpr(lambda x, v, p=p: p.mean(x, v, c))(x, v)) for p in (cut, tiny_prior)]
    assert programs[0] == programs[1]
    larger = jax.ShapeDtypeStruct((32, 40, 3), jnp.float32)
    assert "scan" in str(jax.make_jaxpr(lambda x, v: cut.mean(x, v, c))(larger, larger))


def test_tiles_that_do_not_suit_the_prior_are_refused(tiny_prior):
    assert tiny_prior.stride == 4
    for tile, overlap, message in (
        (18, None, "multiple of 4 pixels for this prior, 16 or more, got 18"), (8, None, "16 or more, got 8"),
        (32, 4, "overlap by 8 to 16, got 4"), (32, 20, "overlap by 8 to 16, got 20"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            tiles.tiled(tiny_prior, tile, overlap)


def deep(x, sigma):
    """Keeps many times its input for the pullback."""
    h = jnp.repeat(x, 64, -1)
    for _ in range(4):
        h = jnp.sin(h) + jnp.roll(h, 1, 0)
    return h.reshape(*x.shape, 64).mean(-1) + 0 * sigma


def pullback_bytes(prior, side: int) -> int:
    """Beside inputs and outputs, of the mean and its pullback."""
    c = row(prior)

    def both(x, v):
        mean, pull = jax.vjp(lambda v: prior.mean(x, v, c), v)
        return mean, pull(mean)[0]

    image = jax.ShapeDtypeStruct((side, side, 1), jnp.float32)
    return jax.jit(both).lower(image, image).compile().memory_analysis().temp_size_in_bytes


def test_memory_is_that_of_one_tile():
    """Four times the tiles take a few copies of the image more; without tiles they take four times the network."""
    whole = prior_from_denoiser(deep, CLD())
    cut = tiles.tiled(whole, 32, 8)
    small, large, bare = pullback_bytes(cut, 64), pullback_bytes(cut, 128), pullback_bytes(whole, 128)
    copies = (large - small) / (4 * (128**2 - 64**2))
    assert copies < 12
    assert (bare - pullback_bytes(whole, 64)) / (4 * (128**2 - 64**2)) > 8 * copies


def test_restoring_in_tiles():
    """`restore` as a whole, differentiated too: a grey image of sides that are no multiple of the stride."""
    whole = prior_from_denoiser(Partial(pointwise), CLD())
    y = draw(3, (37, 22, 1)) / 2
    given = {"image_shape": y.shape, "noise_std": 0.1, "num_steps": 2, "guidance": "covariance"}

    def total(scale, prior):
        return jnp.sum(restore(jax.random.key(0), scale * y, lambda x: x, prior, **given).image ** 2)

    pairs = [jax.value_and_grad(total)(1.0, p) for p in (whole, tiles.tiled(whole, 16, 4))]
    np.testing.assert_allclose(*pairs, rtol=1e-4)


def test_long_cosine_transforms_are_fast_ones(monkeypatch):
    """As by the matrices, and their own inverse and transpose."""
    x = draw(0, (36, 22, 3))
    wanted = spectral.forward(x), spectral.backward(x)
    monkeypatch.setattr(spectral, "DENSE_SIDE", 20)
    monkeypatch.setattr(spectral, "JOINT_WIDTH", 20)
    program = str(jax.make_jaxpr(spectral.forward)(x))
    assert program.count("fft[") == 2
    found = spectral.forward(x), spectral.backward(x)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_allclose(spectral.backward(found[0]), x, atol=1e-5)
    np.testing.assert_allclose(jax.linear_transpose(spectral.forward, x)(x)[0], wanted[1], atol=1e-5)
    monkeypatch.setattr(spectral, "DENSE_SIDE", 30)  # one side long, the other short
    np.testing.assert_allclose(spectral.forward(x), wanted[0], atol=1e-5)


def test_a_large_grid_of_variances_is_no_table(monkeypatch, tiny_spec):
    spectrum, size = tiny_spec.spectrum, (40, 30)
    monkeypatch.setattr(spectral, "DENSE_SIDE", 32)
    np.testing.assert_allclose(spectrum.variances(*size), spectrum.grid(*size), rtol=2e-5)
    program = jax.make_jaxpr(lambda: spectrum.variances(4000, 3000))()
    assert all(np.size(c) < 100 for c in program.consts)
    np.testing.assert_array_equal(spectrum.variances(32, 8), jnp.asarray(spectrum.grid(32, 8), jnp.float32))


def test_large_images_take_no_large_matrices(monkeypatch):
    """A Gaussian blur is then one by a kernel, and a camera's poses come one after the other: the same measurements."""
    build = functools.partial(kernel_blur._gaussian, None, 30, 24, GaussianBlurSettings(kernel_std=1.5))
    x, small = draw(0, (30, 24, 3)), build()
    shaken = camera.camera_shake(np.random.default_rng(0), 30, 24, 0.5, 1.0)
    seen, pull = jax.vjp(shaken, x)
    monkeypatch.setattr(kernel_blur, "MATRIX_SIDE", 16)
    monkeypatch.setattr(camera, "TOGETHER", 16)
    assert max(a.size for a in jax.tree.leaves(build())) < 200
    np.testing.assert_allclose(build()(x), small(x), atol=1e-5)
    again, pulled = jax.vjp(shaken, x)
    np.testing.assert_allclose(again, seen, atol=1e-5)
    np.testing.assert_allclose(pulled(x)[0], pull(x)[0], atol=1e-4)


def test_the_tile_follows_the_memory(tiny_prior, monkeypatch):
    """Never so large that a step takes more than its share; the smallest where nothing fits."""
    need = {side: tiles.step_bytes(tiny_prior, side, side) for side in tiles.SIDES}
    assert all(3 < need[a] / need[b] < 4.1 for a, b in zip(tiles.SIDES, tiles.SIDES[1:], strict=False))
    monkeypatch.setattr(tiles, "step_bytes", lambda prior, height, width: need[max(height, width)])
    for side in tiles.SIDES:
        assert tiles.automatic_tile(tiny_prior, int(need[side] / tiles.SHARE) + 4) == side
    assert tiles.automatic_tile(tiny_prior, 1) == tiles.SIDES[-1] and tiles.memory() > 2**28
    shape, whole = (3000, 4000, 3), 3000 * 4000 * 12
    assert tiles.largest_batch(tiny_prior, 512, shape, 1) == 1
    assert 1 < tiles.largest_batch(tiny_prior, 512, shape, 200 * whole) < 4
    assert tiles.largest_batch(tiny_prior, 512, (256, 256, 3), 200 * whole) > 16


@pytest.fixture
def job():
    return resolve({"task": "denoise", "input": "in", "output": "out", "batch_size": 6})


def entries(*shapes):
    return [inputs.Entry(None, str(i), (*shape, 3), str(i)) for i, shape in enumerate(shapes)]


def test_a_job_settles_its_tile_once(tiny_prior, job, monkeypatch):
    """Of small images it needs none; of large ones that of the first run, or the machine's."""
    monkeypatch.setattr(tiles, "memory", lambda: int(tiles.step_bytes(tiny_prior, 512, 512) / tiles.SHARE) + 4)
    small, large = entries((256, 200)), entries((64, 64), (300, 200))

    def tile(entries, stored=None, given=None, bucket=0):
        own = dataclasses.replace(job, job=dataclasses.replace(job.job, tile=given, bucket=bucket))
        return tiling.settled(own, tiny_prior, entries, stored).job.tile

    assert (tile(small), tile(large), tile(large, 1024), tile(large, 1024, 256), tile(large, None, 0)) == (
        None, 512, 1024, 256, 0,
    )  # fmt: skip
    # What counts is the canvas that an image is padded to: its tiles do not depend on its neighbours.
    assert (tile(small, bucket=128), tile(small, bucket=512), tile(small + large, bucket=512)) == (None, 512, 512)
    limit = tiling.batch_limit(job, tiny_prior)
    assert limit((256, 256, 3)) == 6 and limit((4000, 3000, 3)) == 1


def test_the_process_with_the_least_memory_decides(job, monkeypatch):
    """All make one plan; what cuts parameters in one process cuts them in all."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(tiles, "automatic_tile", lambda prior, available: available)
    monkeypatch.setattr(tiles, "largest_batch", lambda prior, tile, shape, available: available)
    for own, other in ((3, 10), (10, 3)):
        gathered = iter([other] * 2)
        monkeypatch.setattr(tiles, "memory", lambda own=own: own)
        monkeypatch.setattr(processes, "union", lambda own, gathered=gathered: {*own, str(next(gathered))})
        assert tiling.settled(job, None, entries((300, 200)), None).job.tile == 3
        limit = tiling.batch_limit(job, None)
        assert [limit((300, 300, 3)), limit((300, 300, 3)), *gathered] == [3, 3]  # asks nobody any more
    monkeypatch.setattr(placement, "anyone", lambda true: True)
    assert placement.spread_of(False, None, ()).shard_params
    assert not placement.spread_of(False, None, (), alone=True).shard_params


def test_batches_shrink_where_the_memory_asks():
    plan = buckets.batches(entries((64, 64), (900, 900)), 4, 16, False, lambda shape: 16 if shape[0] < 512 else 3)
    found = [(one.pairs[0][0].name, len(one.pairs), one.size) for one in plan]
    assert found == [("0", 4, 4), ("1", 2, 2), ("1", 2, 2)]


def test_a_tile_is_part_of_the_record(job):
    """Continued with the flag left out it is kept; another is refused, and so is a job that was not tiled at all."""
    assert job.record()["tile"] is None and JobSettings(tile=512).tile == 512
    same = lambda stored, own: (lambda a, b: a == b)(*tiling.agreed(stored, own))  # noqa: E731
    assert same({"tile": 512, "seed": 0}, {"tile": None, "seed": 0})
    assert same({"seed": 0}, {"tile": 512, "seed": 0}) and same({"tile": None}, {"tile": 0})
    assert not same({"tile": 512}, {"tile": 1024}) and not same({"tile": 512}, {"tile": 0})
    assert not same({"tile": None}, {"tile": 64})  # which would cut images that were not
    with pytest.raises(ValueError, match="tile must be at least 0 pixels"):
        JobSettings(tile=-1)


def test_a_job_in_tiles(tmp_path, tiny_checkpoint, run_restore):
    """--tile reaches the network, is recorded, and continues; the grid of a large picture is reduced."""
    pixels = np.random.default_rng(0).integers(0, 255, (20, 600, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    flags = [f"--checkpoint={tiny_checkpoint}", "--task=denoise", f"--input={tmp_path / 'wide.png'}",
             f"--output={tmp_path / 'out'}", "--num_steps=2", "--num_samples=1"]  # fmt: skip
    bad = run_restore(*flags, "--tile=30")
    assert bad.returncode == 1 and "--tile=30: the tile must be a multiple of 4 pixels" in bad.stderr
    assert not (tmp_path / "out").exists()
    done = run_restore(*flags, "--tile=256")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert record["settings"]["tile"] == 256 and "--tile=256" in record["command"]
    assert Image.open(tmp_path / "out" / "restored" / "wide.png").size == (600, 20)
    assert Image.open(tmp_path / "out" / "grid.png").width < 3 * 520
    assert run_restore(*flags).returncode == 0
    other = run_restore(*flags, "--tile=128")
    assert other.returncode == 1 and "other settings" in other.stderr
