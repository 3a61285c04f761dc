"""What is stored comes back, and nothing else is taken for it."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvsa_jax import CLD, checkpoints, load_prior, networks, training
from cvsa_jax.jobs import resolve


def test_prior_round_trip(tiny_checkpoint, tiny_prior, tiny_spec):
    loaded = load_prior(tiny_checkpoint)
    assert loaded.spec == tiny_spec
    x = jax.random.normal(jax.random.key(0), (32, 32, 3))
    for t in (0.05, 0.6):
        expected = tiny_prior.posterior_mean(x, -x, t)
        np.testing.assert_array_equal(loaded.prior.posterior_mean(x, -x, t), expected)
    np.testing.assert_allclose(loaded.prior.calibration.error, tiny_prior.calibration.error, rtol=1e-5)


def test_shipped_priors_have_names():
    """The prior of products by default, that of kernels by name; both know the images that they take."""
    products, kernels = load_prior(), load_prior("kernels16")
    assert (products.spec.image_size, products.prior.channels, kernels.prior.channels) == (64, 3, 1)
    assert products.spec == load_prior("products64").spec
    assert products.prior.canvas((50, 61, 1)) == (-(-50 // products.spec.stride) * products.spec.stride, 64, 3)
    assert products.prior.calibration is not None
    with pytest.raises(checkpoints.CheckpointError, match="no prior in"):
        load_prior("products65")


def test_denoiser_serves_another_diffusion(tiny_checkpoint):
    cld = CLD(mass=1.0, friction=0.5)
    assert load_prior(tiny_checkpoint, cld).prior.cld == cld


def edit(source, target, **network):
    shutil.copytree(source, target)
    record = json.loads((target / "prior.json").read_text())
    record["network"] |= network
    (target / "prior.json").write_text(json.dumps(record))
    return target


def test_other_shapes_are_named(tiny_checkpoint, tiny_spec, tmp_path):
    folder = edit(tiny_checkpoint, tmp_path / "a", options=tiny_spec.options | {"channels": [8, 16]})
    with pytest.raises(checkpoints.CheckpointError, match=r"does not match .* stored \(.*\), expected \("):
        load_prior(folder)


def test_missing_and_damaged_checkpoints_are_refused(tiny_checkpoint, tmp_path):
    with pytest.raises(checkpoints.CheckpointError, match="no prior in"):
        load_prior(tmp_path / "nothing")
    broken = edit(tiny_checkpoint, tmp_path / "broken")
    (broken / "prior.json").write_text("{")
    with pytest.raises(checkpoints.CheckpointError, match="cannot load"):
        load_prior(broken)
    empty = edit(tiny_checkpoint, tmp_path / "empty")
    shutil.rmtree(empty / "params")
    with pytest.raises(checkpoints.CheckpointError, match="empty"):
        load_prior(empty)
    with pytest.raises(checkpoints.CheckpointError, match="parameterization"):
        load_prior(edit(tiny_checkpoint, tmp_path / "other", parameterization="score"))


def test_training_state_round_trip(tmp_path, photos):
    """State, key, data position and settings; the next step is the same to the bit."""
    options = {"channels": (8, 8), "encoder_blocks": (1, 1), "decoder_blocks": (1, 1)}
    spec = networks.NetworkSpec(image_size=16, options=options)
    optimizer = training.make_optimizer(1e-3, 1, 10)
    step = jax.jit(training.train_step(spec, optimizer, 0.9))
    images = jnp.asarray(photos[:4, ::2, ::2])
    state, _ = step(jax.jit(lambda: training.init_state(spec, optimizer, 0))(), images)
    store = checkpoints.TrainingCheckpoints(tmp_path)
    assert store.latest_step is None
    store.save(1, state, {"position": 7}, {"seed": 3})
    store.close()
    store = checkpoints.TrainingCheckpoints(tmp_path)
    assert store.latest_step == 1
    assert store.settings() == {"seed": 3}
    restored, position = store.restore(jax.jit(lambda: training.init_state(spec, optimizer, 5))())
    assert position == {"position": 7}
    expected, found = step(state, images), step(restored, images)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(a, b)
    store.close()


def test_how_the_network_computes_is_chosen_when_it_is_read(tiny_checkpoint):
    """As `build_prior` takes it, for the same parameters."""
    plain, chosen = load_prior(tiny_checkpoint), load_prior(tiny_checkpoint, dtype=jnp.bfloat16, remat=True)
    x = jax.random.normal(jax.random.key(0), (32, 32, 3))
    a, b = (loaded.prior.posterior_mean(x, -x, 0.1) for loaded in (plain, chosen))
    assert 0 < np.abs(a - b).max() < 0.1 * np.abs(a).max()
    with pytest.raises(ValueError, match="dtype must be one of"):
        load_prior(tiny_checkpoint, dtype="float8")
    given = {"task": "denoise", "input": "in", "output": "out", "dtype": "bfloat16", "remat": True}
    job = resolve(given)
    np.testing.assert_array_equal(job.load(str(tiny_checkpoint)).prior.posterior_mean(x, -x, 0.1), b)
    assert "remat" not in job.record() and job.record()["dtype"] == "bfloat16"  # which a job may not change half-way
