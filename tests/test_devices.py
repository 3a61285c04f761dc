"""Several devices and several processes: the same images, and less memory on each."""

import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, free_address

from cvsa_jax import processes
from cvsa_jax.processes import ProcessSettings
from cvsa_jax.sharding import largest_axis
from cvsa_jax.types import InputError

SPREAD = """
import sys
import jax, jax.numpy as jnp, numpy as np
from cvsa_jax import SamplerSettings, batch, load_prior, make_operator
from cvsa_jax.noise import GaussianNoise
from cvsa_jax import placement
from cvsa_jax.placement import Spread

placement.LARGE_BYTES = 2**10  # the network is tiny
prior = load_prior(sys.argv[1]).prior
settings = SamplerSettings("decoupled", "spectral_covariance", num_steps=2)
loops = batch.guided_loops(prior, GaussianNoise(0.1), settings, None)
x = jax.random.uniform(jax.random.key(0), (32, 32, 3), minval=-1.0)
for task in ("denoise", "random_inpaint", "sr4", "motion_deblur"):
    h = make_operator(task, np.random.default_rng(0), 32, 32)
    given = jax.random.split(jax.random.key(1), 1), np.asarray(h(x))[None], [h], x.shape
    found, size = {}, {}
    for spread in (Spread(), Spread(split_rows=True)):
        restorer = batch.BatchRestorer(prior, loops, 2, spread=spread)
        found[spread.split_rows] = restorer(*given)
        run = next(program for key, program in restorer._compiled.items() if key[0] == "run 2")
        size[spread.split_rows] = run.memory_analysis().temp_size_in_bytes
    np.testing.assert_allclose(found[True].images, found[False].images, atol=2e-4)
    np.testing.assert_allclose(found[True].residuals, found[False].residuals, rtol=1e-3)
    assert size[True] < 0.6 * size[False], (task, size)
spread = batch.BatchRestorer(prior, loops, 2, spread=Spread(shard_params=True))
np.testing.assert_allclose(spread(*given).images, found[False].images, atol=2e-4)
assert any(len(a.sharding.device_set) == 4 and not a.is_fully_replicated for a in jax.tree.leaves(spread._placed[1]))
"""


JOINED = """
import sys
from cvsa_jax import checkpoints, processes
address, number = sys.argv[2], int(sys.argv[3])
processes.ProcessSettings(address, 2, number).join()
import jax, numpy as np
from cvsa_jax.sharding import batch_mesh

assert jax.process_count() == 2 and len(jax.devices()) == 4 and batch_mesh(1).size == 4
assert processes.union([f"é{number}"]) == {"é0", "é1"}
if number == 1:  # a prior is read by whoever needs it
    checkpoints.read_prior(sys.argv[1])
assert processes.anyone(number == 1) and not processes.everyone(number == 1)
assert processes.alike([np.arange(3), np.arange(3) + number, None]) == [True, False, False]
processes.require_same(("a", 1), "images")
try:
    processes.require_same(("a", number), "images")
except Exception as error:
    assert "different images" in str(error)
else:
    raise AssertionError("different images pass")
"""
PROBLEM = """
import sys
import jax, jax.numpy as jnp, numpy as np
from cvsa_jax import SamplerSettings, batch, load_prior, make_operator
from cvsa_jax.noise import GaussianNoise

prior = load_prior(sys.argv[1]).prior
settings = SamplerSettings("decoupled", "spectral_covariance", num_steps=2)
loops = batch.guided_loops(prior, GaussianNoise(0.1), settings, None)
hs = [make_operator("motion_deblur", np.random.default_rng(i), 16, 16) for i in range(5)]
keys, x = jax.random.split(jax.random.key(1), 5), jax.random.uniform(jax.random.key(0), (5, 16, 16, 3))
ys = np.stack([np.asarray(h(image)) for h, image in zip(hs, x)])
restorer = batch.BatchRestorer(prior, loops, 2)
"""
LOCKSTEP = """
found = {}
size, batches = processes.own_batches(range(5), 1, 4, number, 2)
assert [len(b) for b in batches] == ([2, 1] if number == 0 else [2, 0])
for own in batches:
    own = [image for image, _ in own] or [0]  # any image stands in where a process has none
    result = restorer(keys[np.array(own)], ys[own], [hs[i] for i in own], x[0].shape, size=size)
    found |= dict(zip(own, result.images))
assert len(restorer._compiled) == 3
np.savez(sys.argv[4], **{str(i): a for i, a in found.items()})
"""
ALONE = """
np.savez(sys.argv[4], **{str(i): a for i, a in enumerate(restorer(keys, ys, hs, x[0].shape).images)})
"""


def run_python(program: str, count: int, *arguments) -> subprocess.Popen:
    """A Python program that sees so many CPU devices; the pool has room for what waits for another device."""
    flags = f"--xla_force_host_platform_device_count={count} {os.environ['XLA_FLAGS']}"
    variables = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags, "NPROC": "8"}
    variables["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(*running: subprocess.Popen) -> None:
    """Wait for them; all must succeed."""
    try:
        errors = [one.communicate(timeout=400)[1] for one in running]
    finally:
        for one in running:
            one.kill()
    for one, error in zip(running, errors, strict=True):
        assert one.returncode == 0, error[-3000:]


def test_one_image_over_several_devices(tiny_checkpoint):
    """Cut by rows, or with parameters cut: the image of one device to rounding; by rows each has much less of it."""
    finish(run_python(SPREAD, 4, tiny_checkpoint))


def test_two_processes_restore_what_one_does(tiny_checkpoint, tmp_path):
    """By one mesh over the devices of both; each has its own images, and one that has none keeps step."""
    address = free_address()
    places = [tmp_path / f"{i}.npz" for i in range(3)]
    joined = JOINED + PROBLEM + LOCKSTEP
    finish(*(run_python(joined, 2, tiny_checkpoint, address, i, places[i]) for i in range(2)))
    finish(run_python(PROBLEM + ALONE, 1, tiny_checkpoint, "", 0, places[2]))
    first, second, alone = (dict(np.load(place)) for place in places)
    assert sorted(first) == ["0", "2", "4"] and sorted(second) == ["0", "1", "3"]
    for name, image in [*first.items(), *second.items()]:
        np.testing.assert_allclose(image, alone[name], atol=2e-4)


@pytest.mark.parametrize("true", [True, False])
def test_one_process_agrees_with_itself(true):
    assert processes.everyone(true) == processes.anyone(true) == true


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("images", "chains", "most"), [(0, 1, 4), (1, 1, 16), (17, 1, 16), (5, 3, 4), (2, 2, 1)])
def test_a_plan_gives_each_process_its_own_images_and_as_many_batches(images, chains, most, count):
    plans = [processes.own_batches(range(images), chains, most, i, count) for i in range(count)]
    sizes, numbers = {size for size, _ in plans}, {len(batches) for _, batches in plans}
    assert len(sizes) == len(numbers) == 1
    size, number = sizes.pop(), numbers.pop()
    owners = [{image for b in batches for image, _ in b} for _, batches in plans]
    assert sum(map(len, owners)) == len(set.union(*owners)) == images
    every = [pair for _, batches in plans for b in batches for pair in b]
    assert sorted(every) == [(i, c) for i in range(images) for c in range(chains)]
    assert all(len(b) <= size <= max(1, most // count) for _, batches in plans for b in batches)
    longest = max((sum(map(len, batches)) for _, batches in plans), default=0)
    assert size * number - longest < max(number, 1), "less than an image of each batch is filling"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, 2, None), "need --coordinator: HOST:PORT of process 0"),
        (("auto", None, 1), "need --coordinator: not auto"),
        (("localhost:1", 2, None), "needs --num_processes and --process_id"),
        (("localhost:1", 2, 2), "--process_id=2 must be below --num_processes=2"),
        (("localhost", 2, 0), "neither HOST:PORT nor auto"),
    ],
)
def test_flags_of_processes_that_do_not_go_together_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        ProcessSettings(*given).join()


def test_parameters_are_cut_along_their_largest_axis_that_the_devices_divide():
    assert largest_axis((3, 3, 48, 96), 4) == 3
    assert largest_axis((3, 3, 96, 50), 4) == 2
    assert largest_axis((3, 5), 4) is None
