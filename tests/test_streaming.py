"""Reading, restoring and writing go on at once, and what comes out is what it was; images of near sizes together."""

import contextlib
import threading
import time
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import multihost_utils
from PIL import Image
from test_failures import rows

from cvsa_jax import CLD, Gaussian, checkpoints, data, guidance, prior_from_denoiser
from cvsa_jax.baselines import BASELINES
from cvsa_jax.batch import BatchRestorer, BatchResult, baseline_loops
from cvsa_jax.guidance import GUIDANCES
from cvsa_jax.jobs import buckets, inputs, prepare, resolve, streaming
from cvsa_jax.jobs.inputs import Entry, Reader
from cvsa_jax.jobs.outputs import Results
from cvsa_jax.jobs.retrying import SecondTry, broken_step
from cvsa_jax.jobs.settings import RestorationJob
from cvsa_jax.noise import GaussianNoise
from cvsa_jax.operators import Chain, Identity, Mask, find_task
from cvsa_jax.operators.algebra import root_mean_square
from cvsa_jax.types import Info, InputError, Stopped, UnsuitableError

WAIT = 30  # seconds after which a test that hangs fails


@pytest.fixture
def folder(tmp_path):
    """Makes a folder of grey pictures of some sizes (H, W), each of its own level."""

    def make(sizes, name="in"):
        (tmp_path / name).mkdir()
        for i, (height, width) in enumerate(sizes):
            ramp = np.linspace(20 + 9 * i % 100, 200 - 7 * i % 80, height * width).reshape(height, width)
            Image.fromarray(ramp.astype(np.uint8)).save(tmp_path / name / f"{i:03d}.png")
        return tmp_path / name

    return make


@pytest.fixture
def job(folder, tmp_path):
    """A classical job of four small images, one in a batch; more settings by name."""
    source = folder([(8, 8)] * 4)
    given = {"task": "sr2", "method": "classical", "noise_std": 0.05, "input": str(source), "batch_size": 1}
    return lambda **more: prepare(resolve({**given, "output": str(tmp_path / "out"), **more}))


def threads() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith(("grain-prefetch", "writer"))}


class Restorer:
    """Gives images of zeros, after a call of `hook` with the number of the batch."""

    def __init__(self, hook=lambda number: None):
        self.hook, self.count = hook, 0

    def check(self, *args):
        """Takes everything."""

    def __call__(self, keys, measurements, known, shape, progress, noises=None, size=None):
        self.count += 1
        self.hook(self.count)
        progress(1)
        return BatchResult(np.zeros((len(keys), *shape), np.float32), np.ones(len(keys)), None, None, 0.01)


# Threads.


def test_prefetched_items_come_in_order_and_few_wait():
    lock, begun, taken, most = threading.Lock(), [], 0, 0

    def slow(item):
        nonlocal most
        with lock:
            begun.append(item)
            most = max(most, len(begun) - taken)
        time.sleep(0.002 * (item % 3))
        return item * item

    with data.prefetched(list(range(40)), slow, ahead=3) as found:
        out = []
        for value in found:
            out.append(value)
            with lock:
                taken += 1
    assert out == [i * i for i in range(40)]
    assert 3 <= most <= 4
    with data.prefetched([], slow, ahead=3) as found:
        assert list(found) == []


def test_one_result_ahead_is_read_without_a_warning(caplog):
    with data.prefetched([1, 2, 3], lambda item: -item, ahead=1) as found:
        assert list(found) == [-1, -2, -3]
    assert not caplog.records


def test_nobody_reads_behind_the_end():
    """Those who read are waited for; what waits is not begun."""
    begun, reading = [], threading.Event()

    def slow(item):
        begun.append(item)
        reading.set()
        time.sleep(0.2)
        begun.append(-item)
        return item

    with pytest.raises(KeyError), data.prefetched(list(range(1, 20)), slow, ahead=9) as found:
        next(found)
        raise KeyError
    count = len(begun)
    assert sum(begun) == 0  # each that began has ended
    time.sleep(0.3)
    assert len(begun) == count < 12


def test_the_writer_does_things_in_order_and_makes_who_gives_wait():
    done, go = [], threading.Event()
    with streaming.Writer(2) as writer:
        writer.put(go.wait, WAIT)
        writer.put(done.append, 1)
        third = threading.Thread(target=writer.put, args=(done.append, 2))
        third.start()
        third.join(0.2)
        assert third.is_alive()  # two wait already
        go.set()
        third.join(WAIT)
    assert done == [1, 2]


def test_an_error_of_the_writer_is_raised_and_nothing_is_done_after_it():
    done = []
    with pytest.raises(ZeroDivisionError), streaming.Writer(8) as writer:
        writer.put(done.append, 1)
        writer.put(divmod, 1, 0)
        writer.put(done.append, 2)
    assert done == [1]
    with pytest.raises(KeyError), streaming.Writer(8) as writer:  # of who gives: what was given is done
        writer.put(time.sleep, 0.1)
        writer.put(done.append, 3)
        raise KeyError
    assert done == [1, 3]
    assert not threads()


# Jobs.


def test_the_next_image_is_read_and_the_last_written_while_one_is_restored(job, monkeypatch):
    read, written = threading.Semaphore(0), threading.Event()
    measure, write = Reader.measure, Results.write
    prepared = job()

    def hook(number):
        if number == 1:
            assert all(read.acquire(timeout=WAIT) for _ in range(2))  # itself, and the next
        if number == 2:
            assert written.wait(WAIT)

    monkeypatch.setattr(Reader, "measure", lambda self, entry: (measure(self, entry), read.release())[0])
    monkeypatch.setattr(Results, "write", lambda self, *a: (write(self, *a), written.set())[0])
    prepared.restorer = Restorer(hook)
    prepared.run()
    assert len(prepared.results.rows) == 4


@pytest.mark.parametrize(("owner", "name", "done"), [(Reader, "measure", 2), (Results, "write", 2)])
def test_a_fault_of_a_thread_ends_the_job_and_is_seen(job, monkeypatch, owner, name, done):
    """One that is no fault of the user's, at the third image; what came before it is kept."""
    method, prepared = getattr(owner, name), job()

    def failing(self, first, *args):
        if getattr(first, "name", None) == "002" or getattr(getattr(first, "entry", None), "name", None) == "002":
            raise ZeroDivisionError("here")
        return method(self, first, *args)

    monkeypatch.setattr(owner, name, failing)
    with pytest.raises(ZeroDivisionError, match="here"):
        prepared.run()
    assert [row["image"] for row in prepared.results.rows] == ["000", "001"][:done]
    assert not threads() - {t for t in threads() if t.startswith("grain")}


@pytest.mark.parametrize("how", ["interrupted", "asked"])
def test_a_job_that_is_stopped_has_written_what_it_computed(job, tmp_path, monkeypatch, how):
    """Nothing runs on; the same job goes on, to the pictures of an undisturbed one."""
    stop = threading.Event()

    def hook(number):
        if number == 3:
            stop.set()
            if how == "interrupted":
                raise KeyboardInterrupt

    prepared = job()
    run, prepared.restorer = prepared.restorer, Restorer(hook)
    calls = prepared.restorer

    class Real(Restorer):
        def __call__(self, *args):
            calls.count += 1
            hook(calls.count)
            return run(*args)

    prepared.restorer = Real()
    monkeypatch.setattr("cvsa_jax.jobs.stopping.asked", lambda: how == "asked" and stop.is_set())
    with pytest.raises(KeyboardInterrupt if how == "interrupted" else Stopped):
        prepared.run()
    if how == "interrupted":
        prepared.results._ledger.release()
    assert len(rows(tmp_path / "out" / "metrics.csv")) == (2 if how == "interrupted" else 3)
    assert not {name for name in threads() if name.startswith("writer")}
    monkeypatch.undo()
    job().run()
    job(output=str(tmp_path / "whole")).run()
    for path in (tmp_path / "whole" / "restored").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / "restored" / path.name).read_bytes()
    assert len(rows(tmp_path / "out" / "metrics.csv")) == 4


def test_nothing_of_a_finished_image_is_kept(folder, tmp_path, monkeypatch):
    """However many there are: only those that wait are alive."""
    lock, alive, most, measure = threading.Lock(), 0, 0, Reader.measure

    def gone():
        nonlocal alive
        alive -= 1

    def counted(self, entry):
        nonlocal alive, most
        found = measure(self, entry)
        with lock:
            alive, most = alive + 1, max(most, alive + 1)
        weakref.finalize(found.truth, gone)
        return found

    source = folder([(8, 8)] * 40)
    given = {"task": "sr2", "method": "classical", "input": str(source), "output": str(tmp_path / "out")}
    prepared = prepare(resolve({**given, "batch_size": 2}))
    monkeypatch.setattr(Reader, "measure", counted)
    prepared.restorer = Restorer()
    prepared.run()
    room = streaming.ahead([(8, 8, 1)], 1, 2)
    assert room == 4
    assert len(prepared.results.rows) == 40
    assert most <= 2 * (room + 1) + 2 * 2  # before and behind, and the batch; the frames that hand them on
    assert alive <= 2


def test_fewer_images_wait_where_they_are_large():
    assert streaming.ahead([(64, 64, 3), (8, 8, 3)], 1, 16) == 32
    assert streaming.ahead([(64, 64, 3), (4000, 3000, 3)], 1, 16) == 1
    assert streaming.ahead([], 1, 16) == 32


# A second try.


@pytest.fixture
def overflowing(monkeypatch):
    """The prior of a job whose network overflows on bright images below a noise of .5: in bfloat16, or in any dtype."""

    def use(dtypes=("bfloat16",)):
        def prior(self):
            bad = self.job.dtype in dtypes

            def denoise(x, sigma):
                return x / (1 + 4 * sigma**2) * jnp.where(bad & (sigma < 0.5) & (x.mean() > 0), jnp.inf, 1.0)

            return prior_from_denoiser(denoise, CLD())

        monkeypatch.setattr(RestorationJob, "prior", prior)

    return use


@pytest.fixture
def lights(tmp_path):
    """A dark and a bright picture."""
    (tmp_path / "in").mkdir()
    for name, level in (("bright", 220), ("dark", 30)):
        Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(tmp_path / "in" / f"{name}.png")
    return tmp_path / "in"


def noisy(source, output, **more):
    given = {"task": "denoise", "dtype": "bfloat16", "num_steps": 4, "num_samples": 2, "noise_std": 0.2}
    return prepare(resolve({**given, "input": str(source), "output": str(output), **more}))


def test_what_is_not_finite_is_tried_again_in_float32_with_more_steps(overflowing, lights, tmp_path, capsys):
    """With the same keys, and its neighbour left alone; the answer says so."""
    overflowing()
    job = noisy(lights, tmp_path / "out")
    job.run()
    assert not job.failures
    (warning,) = [text for text in capsys.readouterr().err.splitlines() if "second try" in text]
    assert warning.startswith("warning: bright: the loop was not finite from step ")
    assert " of 4 on: this is a second try, in float32 with 8 steps" in warning
    assert {r["image"]: int(r["network_evaluations"]) for r in job.results.rows} == {"bright": 24, "dark": 8}
    picture = lambda place, name: (tmp_path / place / "restored" / f"{name}.png").read_bytes()  # noqa: E731
    overflowing(())
    for place, name, steps in (("longer", "bright", 8), ("same", "dark", 4)):
        noisy(lights, tmp_path / place, num_steps=steps).run()
        assert picture("out", name) == picture(place, name)


@pytest.fixture
def others_busy(monkeypatch):
    """Of a job of two processes this is one; the other takes part in nothing now."""

    def asked(*_, **__):
        raise AssertionError("the others are asked")

    def begin():
        monkeypatch.setattr(jax, "process_count", lambda: 2)  # which orbax counts by too
        for name in ("process_allgather", "sync_global_devices"):
            monkeypatch.setattr(multihost_utils, name, asked)

    return begin


def test_a_second_try_asks_nothing_of_other_processes(overflowing, lights, tmp_path, others_busy):
    overflowing()
    job = noisy(lights, tmp_path / "out", num_samples=1)
    job.results._ledger.release()
    measured = job.measure(job.entries[0]).measured
    others_busy()
    key = inputs.key_of(measured.entry, 0, 1)
    found = SecondTry(job)([key], measured.measurement, measured.operator, measured.entry.shape, None, 1)
    assert np.isfinite(found.images).all()


def test_a_process_reads_a_prior_without_the_others(tiny_checkpoint, others_busy):
    """As one does in another type for a second try."""
    others_busy()
    assert checkpoints.read_prior(tiny_checkpoint).record["network"]


def test_a_second_failure_says_at_which_step_it_came(overflowing, lights, tmp_path):
    overflowing(("bfloat16", "float32"))
    for more, words in (({}, "; so did a second try, in float32 with 8 steps;"), ({"retry": False}, None)):
        job = noisy(lights, tmp_path / f"out{len(more)}", **more)
        job.run()
        assert [row["image"] for row in job.results.rows] == ["dark"]
        assert list(job.failures) == ["bright"]
        assert job.failures["bright"].startswith("the loop diverged; its measurement is ")
        assert "; it was not finite from step " in job.failures["bright"]
        assert (words or "take more steps") in job.failures["bright"]
        assert ("second try" in job.failures["bright"]) == (words is not None)


def test_the_first_step_that_is_not_finite():
    def found(*residuals):
        return BatchResult(np.zeros(0), np.zeros(0), Info(np.array(residuals)), None, 0.0)

    nan, inf = np.nan, np.inf
    assert broken_step(found([1, 2, 3], [1, 2, 3])) is None
    assert broken_step(found([1, 2, nan], [1, inf, 2])) == 2
    assert broken_step(found([[1, 1], [1, nan]])) == 2  # (samples, steps, particles)
    assert broken_step(found([1])._replace(trace=None)) is None


# Images of near sizes.

SHAPE, LARGER = (5, 6, 3), (8, 8, 3)
MASK = (np.arange(30).reshape(5, 6, 1) % 4 != 0).astype(np.float32)
PADDABLE = {"mask": Mask(jnp.asarray(MASK)), "soft": Mask(jnp.asarray(MASK * 0.7)), "noise": Identity()}
PADDABLE["both"] = Chain(PADDABLE["mask"], Mask(jnp.asarray(MASK[::-1])))


def in_corner(x):
    return jnp.pad(x, [(0, b - a) for a, b in zip(SHAPE, LARGER, strict=True)])


def corner(x):
    return x[: SHAPE[0], : SHAPE[1]]


@pytest.mark.parametrize("name", PADDABLE)
@pytest.mark.parametrize("form", [name for name in GUIDANCES if name != "projection"])
def test_guidance_of_a_padded_image_is_that_of_the_image(float64, form, name):
    """Under a prior of independent pixels, inside; outside nothing pulls. And the residual is the same number."""
    generator = np.random.default_rng(0)
    x, v, y = (jnp.asarray(generator.normal(size=SHAPE)) for _ in range(3))
    wide = [in_corner(a).at[SHAPE[0] :].set(0.3) for a in (x, v)]
    prior, own = prior_from_denoiser(Gaussian(jnp.asarray(0.1), jnp.asarray(0.25)), CLD()), PADDABLE[name]
    y = own.restrict(y)
    padded = own.padded(SHAPE, LARGER)
    assert padded is not None
    np.testing.assert_array_equal(padded(wide[0]), in_corner(own(x)))
    dual = jnp.zeros_like(y) if GUIDANCES[form].iterates else None
    times = np.array([0.6, 0.2])
    for index in (0, 1):
        alone = guidance.conditional_mean(y, own, prior, 0.2, form, times)(x, v, index, dual)
        found = guidance.conditional_mean(in_corner(y), padded, prior, 0.2, form, times)(
            *wide, index, None if dual is None else in_corner(dual)
        )
        np.testing.assert_allclose(corner(found.mean), alone.mean, atol=1e-10)
        np.testing.assert_allclose(found.info.residual, alone.info.residual, rtol=1e-10)
        outside = jnp.ones(LARGER).at[: SHAPE[0], : SHAPE[1]].set(0)
        assert float(jnp.abs(outside * jnp.asarray(found.correction)).max()) < 1e-12
    assert float(root_mean_square(padded, in_corner(y))) == pytest.approx(float(root_mean_square(own, y)))


def entry(name, *shape):
    return Entry(name, name, shape, name)


def test_an_images_bucket_follows_from_its_own_size():
    some = [entry("a", 30, 41, 3), entry("b", 32, 48, 3), entry("c", 33, 41, 3), entry("d", 30, 41, 1)]
    assert [buckets.shape_of(e, 16) for e in some] == [(32, 48, 3), (32, 48, 3), (48, 48, 3), (32, 48, 1)]
    assert [buckets.shape_of(e, 0) for e in some] == [e.shape for e in some]
    names = lambda plan: [[e.name for e, _ in part.pairs] for part in plan]  # noqa: E731
    assert names(buckets.batches(some, 1, 4, False, bucket=16)) == [["a", "b"], ["c"], ["d"]]
    assert names(buckets.batches(some, 1, 4, False)) == [["a"], ["b"], ["c"], ["d"]]
    assert buckets.programs(some, 0) == "4 images of 4 sizes: 4 programs"
    assert buckets.programs(some[:2], 16) == "2 images of 2 sizes: 1 program"
    assert buckets.programs(some[:1] * 3, 0) is None


@pytest.mark.parametrize("method", BASELINES)
def test_a_bucket_is_refused_by_the_methods_that_cannot_restore_a_padded_image(method, tiny_prior):
    """Before any image is read: whether one is padded depends on its size alone."""
    shape, task = (8, 8, 3), find_task("denoise")
    restorer = BatchRestorer(tiny_prior, baseline_loops(method, GaussianNoise(0.1), 2, {}, None), 2, None)
    able = (contextlib.nullcontext, contextlib.nullcontext)
    if not BASELINES[method].pads:
        able = (lambda: pytest.raises(UnsuitableError), lambda: pytest.raises(InputError, match="--bucket does not go"))
    with able[0]():
        restorer.check(np.zeros(shape), Identity().padded((5, 7, 3), shape), shape)
    with able[1]():
        buckets.check(task, method, 8)
    buckets.check(task, method, 0)


def test_buckets_do_not_depend_on_neighbours(overflowing, folder, tmp_path, capsys):
    """Two sizes in one program; each as in a job of its own, and of its own size."""
    overflowing(())
    source, more = folder([(7, 8), (6, 7), (6, 7)]), {"num_samples": 1, "bucket": 8, "batch_size": 3}
    noisy(source, tmp_path / "all", **more).run()
    assert "3 images of 2 sizes: 1 program\n" in capsys.readouterr().err
    alone = noisy(source / "001.png", tmp_path / "alone", **more)
    alone.run()
    pictures = [np.asarray(Image.open(tmp_path / p / "restored" / "001.png"), int) for p in ("all", "alone")]
    assert pictures[0].shape == (6, 7)
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    assert alone.job.record()["bucket"] == 8
    with pytest.raises(InputError, match="holds a job with other settings"):
        noisy(source, tmp_path / "all", **{**more, "bucket": 0})


@pytest.mark.parametrize("task", ["motion_deblur", "sr4", "hdr", "jpeg", "denoise+sr2", "mri", "blind_motion_deblur"])
def test_tasks_whose_measurement_knows_the_border_refuse_buckets(task):
    with pytest.raises(InputError, match="--bucket is for tasks that hide pixels or add noise alone: what "):
        resolve({"task": task, "input": "in", "output": "out", "bucket": 16})
    assert resolve({"task": "denoise+box_inpaint", "input": "in", "output": "out", "bucket": 16}).job.bucket == 16


def test_a_method_without_programs_refuses_buckets():
    with pytest.raises(InputError, match="--bucket has no effect with --method=classical"):
        resolve({"task": "denoise", "method": "classical", "input": "in", "output": "out", "bucket": 16})
