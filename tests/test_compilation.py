"""Where arrays are, and what is made once: programs, tables, weights."""

import functools
import os
import subprocess
import sys

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from jax.tree_util import Partial

from cvsa_jax import (
    CLD,
    Gaussian,
    SamplerSettings,
    batch,
    prior_from_denoiser,
    restore,
    sharding,
    spectral,
    time_grid,
)
from cvsa_jax.denoising import denoising_error
from cvsa_jax.kernel_search import DISTINCT, first_distinct
from cvsa_jax.noise import GaussianNoise
from cvsa_jax.operators import Operator
from cvsa_jax.operators.encoder import encoded_blur, read_weights
from cvsa_jax.operators.kernels import draw_kernels
from cvsa_jax.samplers import SAMPLERS, sample_prior
from cvsa_jax.samplers.flow_steps import flow

SHAPE = (4, 4, 1)


def small_prior(scale: float = 0.25):
    return prior_from_denoiser(Gaussian(jnp.zeros(SHAPE), jnp.asarray(scale)), CLD())


def run_on_devices(program: str, count: int, *arguments) -> str:
    """The output of a Python program that sees so many CPU devices."""
    flags = f"--xla_force_host_platform_device_count={count} {os.environ['XLA_FLAGS']}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "XLA_FLAGS": flags}
    environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


DEVICES = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from cvsa_jax import CLD, Gaussian, SamplerSettings, batch, load_prior, prior_from_denoiser
from cvsa_jax.noise import GaussianNoise
from cvsa_jax.sharding import batch_mesh

# A prior whose parameters a program of the user's may place.
prior = load_prior(sys.argv[1]).prior
mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
x = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
alone = jax.jit(jax.vmap(lambda x: prior.posterior_mean(x, -x, 0.3)))(x)
split = jax.device_put(x, NamedSharding(mesh, P("batch")))
run = lambda prior, x: jax.vmap(lambda x: prior.posterior_mean(x, -x, 0.3))(x)
np.testing.assert_allclose(jax.jit(run)(prior, split), alone, atol=1e-5)
mapped = jax.shard_map(run, mesh=mesh, in_specs=(P(), P("batch")), out_specs=P("batch"), check_vma=False)
np.testing.assert_allclose(jax.jit(mapped)(prior, x), alone, atol=1e-5)

# Seven images on four devices: as on one.
shape = (4, 4, 1)
prior = prior_from_denoiser(Gaussian(jnp.zeros(shape), 0.25), CLD())
loops = batch.guided_loops(prior, GaussianNoise(0.1), SamplerSettings(num_steps=4), None)
ys = np.random.default_rng(0).normal(size=(7, *shape)).astype(np.float32)
keys = jax.random.split(jax.random.key(0), 7)
found = batch.BatchRestorer(prior, loops, 4)(keys, ys, [lambda x: x] * 7, shape)
assert found.images.shape[0] == found.residuals.shape[0] == found.trace.residual.shape[0] == 7
for i in range(7):
    own = batch.BatchRestorer(prior, loops, 4)(keys[i:i+1], ys[i:i+1], [lambda x: x], shape)
    np.testing.assert_allclose(found.images[i], own.images[0], atol=1e-5)
print(*(batch_mesh(n).size for n in (1, 3, 4, 5, 6, 7, 8)))
"""


def test_several_devices(tiny_checkpoint):
    """A loaded prior runs where the data is, and every device gets its share of a batch that they do not divide."""
    assert run_on_devices(DEVICES, 4, tiny_checkpoint).split() == ["1", "3", "4", "3", "3", "4", "4"]


@flax.struct.dataclass
class Weighed(Operator):
    """Pixels weighed, and a large array that all operators share."""

    weight: jax.Array
    table: jax.Array

    def __call__(self, x):
        return self.weight * x + 0 * self.table.sum()


def test_what_all_operators_share_is_not_copied_for_each_image():
    table, other = jnp.ones((200, 200)), jnp.ones((200, 200))
    operators = [Weighed(jnp.full(SHAPE, w), table) for w in (0.5, 1.0, 2.0)]
    split, whole = sharding.stack_alike(operators)
    assert split.weight.shape == (3, *SHAPE) and split.table is None
    assert whole.table.shape == (200, 200) and whole.weight is None
    copies, nothing = sharding.stack_alike([*operators, Weighed(jnp.ones(SHAPE), other)])
    assert copies.table.shape == (4, 200, 200) and jax.tree.leaves(nothing) == []
    joined = sharding.join_alike(jax.tree.map(lambda a: a[1], split), whole)
    np.testing.assert_array_equal(joined.weight, operators[1].weight)
    np.testing.assert_array_equal(joined.table, table)
    # In the restoration itself: its arguments hold the table once, and the images are those of copies.
    loops = batch.guided_loops(small_prior(), GaussianNoise(0.1), SamplerSettings(num_steps=3), None)
    inputs = jax.random.split(jax.random.key(0), 3), np.full((3, *SHAPE), 0.3, np.float32)
    restorer = batch.BatchRestorer(small_prior(), loops, 3)
    found = restorer(*inputs, operators, SHAPE)
    for program in restorer._compiled.values():
        sizes = [np.prod(a.shape) for a in jax.tree.leaves(program.in_avals)]
        assert max(sizes) == table.size
    apart = [h.replace(table=h.table + 0) for h in operators]
    np.testing.assert_allclose(restorer(*inputs, apart, SHAPE).images, found.images, atol=1e-6)


def test_operators_of_one_network_hold_the_same_weights(small_encoder):
    generator, weights = np.random.default_rng(0), read_weights(small_encoder.source)
    again = read_weights(small_encoder.source)
    blurs = [encoded_blur(generator, 24, 16, *w) for w in (weights, weights, again, small_encoder, small_encoder)]
    leaves = [jax.tree.leaves(h.params) for h in blurs]
    assert all(a is b is c for a, b, c in zip(*leaves[:3], strict=True))
    assert all(a is b for a, b in zip(*leaves[3:], strict=True))
    loaded = [type(h).load({"code": h.code, "source": h.source}) for h in blurs[:2]]
    assert all(a is b for a, b in zip(*(jax.tree.leaves(h.params) for h in loaded), strict=True))


class Traced:
    """A denoiser that counts how often it is traced."""

    def __init__(self):
        self.count = 0

    def __call__(self, scale, x, sigma):
        self.count += 1
        return scale * x / (1 + sigma**2)

    def prior(self, scale: float):
        return prior_from_denoiser(Partial(self, jnp.float32(scale)), CLD())


def test_samples_of_a_prior_compile_once():
    """Also with other parameters, which are arguments, and another key."""
    traced, times = Traced(), time_grid("logarithmic", 4, CLD())
    first = sample_prior(jax.random.key(0), traced.prior(0.5), SHAPE, times, 2)
    before = traced.count
    other = sample_prior(jax.random.key(0), traced.prior(0.9), SHAPE, times, 2)
    assert traced.count == before
    assert np.abs(first - other).max() > 0


def test_the_error_of_a_prior_compiles_once():
    traced, images = Traced(), np.zeros((2, *SHAPE), np.float32)
    first = denoising_error(traced.prior(0.5), images, jax.random.key(0))
    before = traced.count
    other = denoising_error(traced.prior(0.9), images, jax.random.key(0))
    assert traced.count == before
    np.testing.assert_allclose(other.error, first.error * (0.9 / 0.5) ** 2, rtol=1e-4)


def restored(prior, y, operator, **changes):
    given = {"image_shape": SHAPE, "noise_std": 0.1, "num_steps": 3, "guidance": "covariance"} | changes
    return restore(jax.random.key(0), y, operator, prior, **given).image


def test_eager_restoration_compiles_once():
    """Other arrays, noise and weight need no other program, and give what jit gives."""
    traced, table = Traced(), jnp.ones((2, 2))
    y, weight = jnp.full(SHAPE, 0.3), jnp.full(SHAPE, 0.5)
    restored(traced.prior(0.5), y, Weighed(weight, table))
    before = traced.count
    for scale, factor, std, power in ((0.9, 1.0, 0.1, 1.0), (0.5, 2.0, 0.2, 2.0)):
        measured, h = factor * y, Weighed(factor * weight, table)
        changes = {"noise_std": std, "data_weight": power}
        found = restored(traced.prior(scale), measured, h, **changes)
        assert traced.count == before
        jitted = jax.jit(functools.partial(restored, **changes))(traced.prior(scale), measured, h)
        before = traced.count
        np.testing.assert_allclose(found, jitted, atol=1e-5)
    restored(traced.prior(0.5), y, Weighed(weight, table), num_steps=4)
    assert traced.count > before


def test_what_a_name_stands_for_is_no_part_of_the_past(monkeypatch):
    """A registry is live: another sampler of the same name is another program."""
    prior, y = small_prior(), jnp.full(SHAPE, 0.3)
    monkeypatch.setitem(SAMPLERS, "mine", SAMPLERS["decoupled"])
    first = restored(prior, y, identity, sampler="mine")
    monkeypatch.setitem(SAMPLERS, "mine", SAMPLERS["ddim"])
    np.testing.assert_array_equal(
        restored(prior, y, identity, sampler="mine"), restored(prior, y, identity, sampler="ddim")
    )
    assert np.abs(restored(prior, y, identity, sampler="mine") - first).max() > 0


def identity(x):
    return x


@flax.struct.dataclass
class Shifted(Operator):
    """Looks at its array's value, and has one among what is static: no program can be kept for it."""

    shift: jax.Array
    mask: np.ndarray = flax.struct.field(pytree_node=False)

    def __call__(self, x):
        return jnp.asarray(self.mask) * jnp.roll(x, int(self.shift), 0)


def test_operators_that_cannot_be_kept_run_as_they_are():
    prior, y = small_prior(), jnp.arange(16.0).reshape(SHAPE) / 16
    for shift, row in ((1, 0), (2, 3), (1, 2)):
        mask = np.ones(SHAPE, np.float32)
        mask[row] = 0
        found = restored(prior, y * mask, Shifted(jnp.asarray(shift), mask))
        plain = restored(prior, y * mask, lambda x, s=shift, m=mask: m * jnp.roll(x, s, 0))
        np.testing.assert_allclose(found, plain, atol=1e-5)


def test_eager_restoration_refuses_before_it_compiles():
    traced = Traced()
    for y, changes, message in (
        (jnp.full(SHAPE, jnp.nan), {}, "NaN"),
        (jnp.zeros(SHAPE), {"noise_std": -1.0}, "noise_std must be positive"),
        (jnp.zeros((4, 5, 1)), {}, "but the operator measures"),
    ):
        with pytest.raises(ValueError, match=message):
            restored(traced.prior(0.5), y, identity, **changes)
    assert traced.count == 0


def test_tables_are_made_once(monkeypatch):
    """Those of the flow and of the spectrum; nobody can spoil them for the next."""
    cld, calls = CLD(beta=3.9), []
    precision = CLD.precision
    monkeypatch.setattr(CLD, "precision", lambda *args: calls.append(1) or precision(*args))
    times = time_grid("uniform", 6, cld)
    gain, line = flow(cld, times[:-2], times[1:-1])
    first = len(calls)
    again = flow(cld, times[:-2].copy(), times[1:-1].copy())
    assert len(calls) == first and again[0].base is gain.base
    spectrum = spectral.Spectrum(((1.0,) * 12,), (0.3,))
    assert spectrum.grid(8, 6) is spectrum.grid(8, 6)
    for table in (gain, line, spectrum.grid(8, 6)):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 0


def test_the_flow_of_many_steps_takes_few_evaluations(monkeypatch):
    """And is right to float32: two steps are one of twice the length."""
    cld, calls = CLD(), []
    times = time_grid("logarithmic", 1001, cld)
    precision = CLD.precision
    monkeypatch.setattr(CLD, "precision", lambda *args: calls.append(1) or precision(*args))
    gain, _ = flow(cld, times[:-2], times[1:-1])
    assert len(calls) < 40
    long, _ = flow(cld, times[:-3:2], times[2:-1:2])
    np.testing.assert_allclose(gain[1::2] @ gain[:-1:2][: len(gain[1::2])], long[: len(gain[1::2])], atol=1e-8)


def test_spectrum_is_interpolated_in_the_logarithms():
    spectrum = spectral.Spectrum(tuple(tuple(a / np.array(spectral.KNOTS) ** 2) for a in (1e-2, 1e-3)), (0.3, 0.1))
    frequency = np.geomspace(1 / 128, 0.7, 50).reshape(5, 10)
    np.testing.assert_allclose(spectrum.at(frequency), frequency[..., None] ** -2.0 * [1e-2, 1e-3], rtol=1e-12)


def test_kernels_that_are_alike_are_left_out_once_and_for_all():
    """The same choice as by comparing each pair at every shift, with few comparisons."""
    bank = draw_kernels(np.random.default_rng(0), 60, 15, "gaussian").astype(np.float32)
    order = np.argsort(bank[:, 7, 7])

    def slow(a, b):
        r, moves = 3, range(-3, 4)
        a, b = (np.pad(k / k.max(), r) for k in (a, b))
        return min(np.sum((np.roll(a, (i, j), (0, 1)) - b) ** 2) for i in moves for j in moves) / 15**2

    expected: list[int] = []
    for index in order:
        turned = bank[index][::-1, ::-1]
        if all(min(slow(bank[index], bank[c]), slow(turned, bank[c])) > DISTINCT for c in expected):
            expected.append(int(index))
    assert 3 < len(expected) < 50
    assert first_distinct(bank, order, 60) == expected
    assert first_distinct(bank, order, 3) == expected[:3]
