"""Restoring the images of a job, batch by batch: threads read and measure the next ones and write the last."""

import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cvsa_jax import batch, processes
from cvsa_jax.jobs import buckets, cautions, inputs, methods, stopping, streaming
from cvsa_jax.jobs.buckets import batches
from cvsa_jax.jobs.kernel_finder import Found
from cvsa_jax.jobs.outputs import Restored
from cvsa_jax.jobs.prepared import Prepared
from cvsa_jax.jobs.retrying import SecondTry, broken_step, diverged
from cvsa_jax.jobs.watching import DEVICE, INPUT, WRITING, Trace, Watch
from cvsa_jax.noise import NoiseModel
from cvsa_jax.operators import Operator
from cvsa_jax.types import InputError, UnsuitableError

ROOM = 2**20  # bytes without which a disk counts as full


class _Image(NamedTuple):
    """An image that is being restored. keys: of its chains. operator, measurement: what the loop is given, of an image
    of `shape`. noise: of it alone, or None. search: for its kernel, or None."""

    measured: inputs.Measured
    keys: list[jax.Array]
    operator: Operator
    measurement: np.ndarray
    shape: tuple[int, int, int]
    noise: NoiseModel | None
    search: Found | None


def restore_all(prepared: Prepared) -> dict[str, Any]:
    """Restore every image, writing each as soon as its last sample is there; ends after a batch if that is asked for.

    Returns: what the run took, for summary.json.
    """
    job, method, bucket = prepared.job, prepared.job.method, prepared.job.job.bucket
    population = prepared.sampler is not None and prepared.sampler.population
    plan = batches(
        prepared.entries, method.num_samples, job.job.batch_size, population, prepared.limit, bucket,
        prepared.results.kinds,
    )  # fmt: skip
    kinds = [(buckets.kind_of(part.group[0], bucket), part.size) for part in plan]
    trace, done = Trace(job.job.profile, kinds), len(prepared.results.rows)
    if (text := buckets.programs(prepared.entries, bucket)) is not None:
        print(text, file=sys.stderr)
    order = list(dict.fromkeys(entry for part in plan for entry, _ in part.pairs))
    chains = 1 if population else method.num_samples
    room = streaming.ahead([kind[0] for kind, _ in kinds], method.num_samples, job.job.batch_size)
    with (
        Watch(len(order)) as watch,
        streaming.Writer(room) as writer,
        streaming.images(prepared, order, chains, room) as ready,
    ):
        run = _Run(prepared, ready, writer, watch, chains)
        try:
            for number, part in enumerate(plan):
                if processes.anyone(stopping.asked()):
                    break
                trace.begin(number)
                run.restore(part)
                trace.end(number)
        finally:
            trace.end()
        with watch.spent(WRITING):
            writer.finish()
        return watch.record(len(prepared.results.rows) - done)


class _Run:
    """The main thread's part: it gathers a batch, has it restored, and hands on what is finished."""

    def __init__(
        self, prepared: Prepared, ready: Iterator[streaming.Ready], writer: streaming.Writer, watch: Watch, chains: int
    ):
        self._prepared, self._ready, self._writer, self._watch, self._chains = prepared, ready, writer, watch, chains
        self._images: dict[str, _Image] = {}
        self._parts: dict[str, list[batch.BatchResult]] = defaultdict(list)
        self._again = SecondTry(prepared)

    def restore(self, part: buckets.Batch) -> None:
        """Restore a batch; an image that cannot be read, finds no memory, or is not for the method, is reported."""
        share, shown, prepared, job = len(part.pairs) / self._chains, 0.0, self._prepared, self._prepared.job.job
        for entry in dict.fromkeys(entry for entry, _ in part.pairs):
            if entry.name not in self._images and entry.name not in prepared.failures:
                self._take(entry)
        own = [(self._images[entry.name], i) for entry, i in part.pairs if entry.name in self._images]
        some = own or self._stand_in(part.group)

        def progress(steps: int) -> None:
            nonlocal shown
            new = min(share - shown, share * steps / prepared.job.method.num_steps)
            shown += new
            self._watch.step(new)

        if processes.everyone(bool(some)):
            try:
                found = self._compute(some, part.size, progress)
            except UnsuitableError as error:  # images of this kind; in every process
                self._fail_all(own, f"{methods.METHODS[job.method].label} cannot do it: {error}")
            except jax.errors.JaxRuntimeError as error:  # the memory did not suffice
                if jax.process_count() > 1:
                    raise InputError(f"a process of this job ended, or its memory did not suffice: {error}") from error
                self._fail_all(own, f"{str(error).splitlines()[0]}; lower --batch_size, now {job.batch_size}")
            else:
                for i, (image, _) in enumerate(own):
                    self._keep(image, found.part(i, len(some)))
        else:  # of one process only where there is none
            self._fail_all(own, f"another process could read no image of its batch; {prepared.command} goes on")
        self._watch.step(share - shown)

    def _stand_in(self, group: list[inputs.Entry]) -> list[tuple[_Image, int]]:
        """Any image of a group, where other processes have some of a batch and this has none; none if it reads none."""
        for entry in group if jax.process_count() > 1 else ():
            try:
                reading = self._prepared.measure(entry)
                return [(self._image(reading.measured, [inputs.key_of(entry, 0, 1)]), 0)]
            except streaming.FAILS:
                continue
        return []

    def _take(self, entry: inputs.Entry) -> None:
        """The next image of the stream, its kernel searched for where the task is blind."""
        prepared = self._prepared
        with self._watch.spent(INPUT):
            ready = next(self._ready)
        try:
            if ready.error is not None:
                raise ready.error
            assert ready.reading is not None and ready.reading.measured.entry == entry  # the order is that of the plan
            if ready.reading.note or ready.reading.warning:
                self._writer.put(prepared.tell, ready.reading)
            self._images[entry.name] = self._image(ready.reading.measured, ready.keys)
        except streaming.FAILS as error:  # since the job began, or no memory
            self._fail(entry.name, str(error).partition("\n")[0])

    def _image(self, measured: inputs.Measured, keys: list[jax.Array]) -> _Image:
        """What the loop is given; the kernel is searched for where the task is blind."""
        prepared, search = self._prepared, None
        if prepared.kernels:
            search = prepared.kernels.find(measured, inputs.key_of(measured.entry, prepared.job.job.seed, 2))
            self._watch.add(DEVICE, search.seconds)
        shape = buckets.shape_of(measured.entry, prepared.job.job.bucket)
        measurement, known = buckets.fitted(measured, search.operator if search else measured.operator, shape)
        noise = prepared.noise_of(measured) if prepared.estimator else None
        return _Image(measured, keys, known, measurement, shape, noise, search)

    def _compute(
        self, some: list[tuple[_Image, int]], size: int, progress: Callable[[int], object]
    ) -> batch.BatchResult:
        images = [image for image, _ in some]
        keys = jnp.stack([image.keys[i] for image, i in some])
        noises: Any = [image.noise for image in images] if self._prepared.estimator else None
        found = self._prepared.restorer(
            keys, np.stack([image.measurement for image in images]), [image.operator for image in images],
            images[0].shape, progress, noises, size,
        )  # fmt: skip
        self._watch.add(DEVICE, found.seconds)
        self._watch.restored()
        return found

    def _fail(self, name: str, why: str) -> None:
        self._prepared.fail(name, why)
        self._images.pop(name, None)
        self._parts.pop(name, None)

    def _fail_all(self, some: list[tuple[_Image, int]], why: str) -> None:
        for name in dict.fromkeys(image.measured.entry.name for image, _ in some):
            self._fail(name, why)

    def _keep(self, image: _Image, part: batch.BatchResult) -> None:
        """Keep one chain, and hand on the image with its last one."""
        name = image.measured.entry.name
        self._parts[name].append(part)
        method = self._prepared.job.method
        if sum(len(p.images) for p in self._parts[name]) < method.num_samples:
            return
        found, warning = batch.join_parts(self._parts.pop(name)), None
        evaluations = methods.evaluations(method, self._prepared.sampler)
        if diverged(found):
            second, first = self._second(image), broken_step(found)
            if second is None or diverged(second):
                why = cautions.divergence(image.measured, found.residuals, method, first, second is not None)
                self._fail(name, why)
                return
            at = "left the range of images"
            at = at if first is None else f"was not finite from step {first} of {method.num_steps} on"
            warning = f"the loop {at}: this is a second try, in float32 with {2 * method.num_steps} steps"
            found, evaluations = second._replace(seconds=found.seconds + second.seconds), 3 * evaluations
        del self._images[name]
        if image.shape != image.measured.entry.shape:
            found = buckets.cropped(found, image.measured.entry.shape)
        with self._watch.spent(WRITING):
            self._writer.put(finish, self._prepared, image.measured, found, image.search, evaluations, warning)

    def _second(self, image: _Image) -> batch.BatchResult | None:
        """What a second try finds; None if there can be none."""
        if not self._again.possible:
            return None
        size, limit = max(1, self._prepared.job.job.batch_size), self._prepared.limit
        size = min(size, limit(image.shape)) if limit else size
        try:
            found = self._again(image.keys, image.measurement, image.operator, image.shape, image.noise, size)
        except jax.errors.JaxRuntimeError:  # no memory: the first try is what there is
            return None
        self._watch.add(DEVICE, found.seconds)
        return found


def finish(
    prepared: Prepared, measured: inputs.Measured, found: batch.BatchResult, search: Found | None, evaluations: int,
    warning: str | None = None,
) -> None:  # fmt: skip
    """Write one image; warning: what else should be known of it.

    Raises:
      InputError: if the disk is full.
    """
    name, method, seconds = measured.entry.name, prepared.job.method, found.seconds
    kernel = None
    if search is not None:
        best = found.kernels if found.kernels is None else found.kernels[np.argmin(found.residuals)]
        kernel = search.kernel if best is None else best
        evaluations, seconds = evaluations + search.evaluations, seconds + search.seconds
    texts = [warning]
    if isinstance(method, methods.CvsaSettings):  # the others do not promise to fit
        residual, noise = prepared.results.residual(found.residuals), prepared.noise_of(measured)
        task = prepared.job.task
        texts.append(cautions.misfit(residual, noise, measured, task) or cautions.out_of_range(found.images, task))
    text = "; ".join(text for text in texts if text) or None
    restored = Restored(found.images, found.residuals, kernel, seconds, evaluations)
    try:
        prepared.results.write(measured, restored, text)
    except OSError as error:
        folder, disk = prepared.results.folder, prepared.results.place.disk
        prepared.fail(name, f"cannot write {error.filename or folder}: {error.strerror or error}")
        if shutil.disk_usage(folder).free < ROOM:
            raise InputError(f"the disk of {disk} is full; make room: {prepared.command} goes on") from error
        return
    if text is not None:
        prepared.say(name, text)
