"""Run every command that the documents print, at a tiny size: `make docs`.

    python docs/run.py
    python docs/run.py docs/tasks.md docs/method.md

Reads README.md, CONTRIBUTING.md, docs/*.md and the model cards, or those given. A command is a line of a shell block
(indented or fenced) that begins with a program's name, or the same in `backquotes` with a flag. Names of files and
folders, sizes and counts are replaced by tiny ones, and equal commands run once. Two processes share the documents;
each runs its commands one after the other, without starting Python anew. A command that fails is printed with its
document and line, and the exit code is 1.
"""

import contextlib
import io
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import time
import traceback
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/*.md", "checkpoints/*/MODEL_CARD.md")
LONGEST = "docs/results.md"  # takes about as long as all others
PROGRAMS = ("cvsa", "python", "make", "pip", "git")
WEIGHTS = "it needs the published weights, which are large and not ours to ship"
# What is not run here, and why.
SKIPPED = (
    (r"make ", "it builds .venv, and takes minutes"),
    (r"git ", "it is no command of the project"),
    (r"pip |python -m pip ", "it installs packages"),
    (r"cvsa .*--coordinator", "it waits for another process"),
    (r"cvsa .*(gs|s3)://", "it needs a bucket"),
    (r"cvsa import --network=(inception|lpips)", WEIGHTS),
    (r"cvsa .*priors/", WEIGHTS),
    (r"cvsa .*(inception|lpips)_weights", WEIGHTS),
    (r"cvsa benchmark --vs=deepinv", "it needs deepinv and PyTorch, which the project does not"),
    (r"cvsa benchmark --random_weights", "it runs a network of its true size for minutes, and takes gigabytes"),
)
SIDE = 16
SUFFIXES = (".npz", ".safetensors")  # of outputs that are files
# Which methods stand for all in a table; the tests run the others.
ROWS = {"table1": "cvsa_sample,classical", "table2": "cvsa,dps", "table3": "paper,blind_dps"}
# Where a name in the documents stands for anything of its kind.
PLACES = {
    "FOLDER": "photographs",
    "MASKS": "masks",
    "IMAGE": "photographs/a.png",
    "TASK": "sr2",
    "experiments/samples": "photographs",
    "experiments/masks/hand64.png": "hole.png",
}


class Command(NamedTuple):
    """A command of a document. words: as a shell reads them."""

    document: str
    line: int
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        """As it would be typed."""
        return shlex.join(self.words)


class Block(NamedTuple):
    """A fenced block of a document. line: of its first line of text."""

    document: str
    line: int
    language: str
    text: str


def documents() -> list[pathlib.Path]:
    """The documents that are read."""
    return [path for pattern in DOCUMENTS for path in sorted(ROOT.glob(pattern))]


def blocks(path: pathlib.Path) -> list[Block]:
    """The fenced blocks of a document."""
    found, start, language, name = [], None, "", str(path.relative_to(ROOT))
    lines = path.read_text().splitlines()
    for i, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start, language = i + 1, line[3:].strip()
        else:
            found.append(Block(name, start + 1, language, "\n".join(lines[start:i]) + "\n"))
            start = None
    return found


def collect(path: pathlib.Path) -> list[Command]:
    """The commands of a document, in order."""
    name, lines = str(path.relative_to(ROOT)), path.read_text().splitlines()
    fenced = {block.line - 1 + i for block in blocks(path) for i in range(len(block.text.splitlines()))}
    python = {b.line - 1 + i for b in blocks(path) if b.language == "python" for i in range(len(b.text.splitlines()))}
    found, prose, i = [], [], 0
    while i < len(lines):
        first, shell = i, i in fenced or lines[i].startswith("    ")
        text = lines[i].strip()
        while shell and text.endswith("\\") and i + 1 < len(lines):
            i += 1
            text = f"{text[:-1]} {lines[i].strip()}"
        if shell and first not in python and text.split(" ")[0] in PROGRAMS:
            found.append(Command(name, first + 1, tuple(shlex.split(text, comments=True))))
        prose.append("" if shell else lines[first])
        prose += [""] * (i - first)
        i += 1
    for match in re.finditer(rf"`((?:{'|'.join(PROGRAMS)}) [^`]*?--[^`]*)`", "\n".join(prose)):
        number = "\n".join(prose)[: match.start()].count("\n") + 1
        found.append(Command(name, number, tuple(shlex.split(match.group(1)))))
    return sorted(found, key=lambda command: command.line)


def expand(command: Command) -> list[Command]:
    """A command for each verb, where VERB stands for any."""
    if "VERB" not in command.words:
        return [command]
    from cvsa_jax.commands import VERBS

    return [command._replace(words=tuple(v if w == "VERB" else w for w in command.words)) for v in VERBS]


def reason_to_skip(command: Command) -> str | None:
    """Why a command is not run, or None."""
    return next((reason for pattern, reason in SKIPPED if re.match(pattern, command.text)), None)


class Flags:
    """The flags of a command, in order; values are text, or None of a switch."""

    def __init__(self, words):
        parts = [word[2:].partition("=") for word in words]
        self.pairs: list[list] = [[name, value if equals else None] for name, equals, value in parts]

    def get(self, name: str):
        """The last value of a flag."""
        return next((v for n, v in reversed(self.pairs) if n == name), None)

    def has(self, name: str) -> bool:
        """Whether a flag is given."""
        return any(n == name for n, _ in self.pairs)

    def set(self, **flags) -> None:
        """Replace or add some."""
        self.pairs = [p for p in self.pairs if p[0] not in flags] + [[n, str(v)] for n, v in flags.items()]

    def shrink(self, **flags) -> None:
        """Replace some where they are given."""
        self.set(**{n: v for n, v in flags.items() if self.has(n)})

    def words(self) -> list[str]:
        """As arguments."""
        return [f"--{n}" if v is None else f"--{n}={v}" for n, v in self.pairs]


class Workshop:
    """Runs commands, one after the other, in a folder with the files that the documents name."""

    def __init__(self):
        self._outputs: dict[str, str] = {}  # by the name in the documents, where the result lies
        self._done: dict[tuple[str, ...], str | None] = {}

    def place(self, value: str) -> str:
        """A file or folder of a document as one here."""
        for name, here in sorted(self._outputs.items(), key=lambda item: -len(item[0])):
            if value == name or value.startswith(name + "/"):
                return here + value[len(name) :].replace("NAME", "a")
        if value.startswith("experiments/samples/"):
            return PLACES["IMAGE"]
        return PLACES.get(value, value)

    def shrink(self, command: Command) -> tuple[list[str], Flags, str | None]:
        """(program and verb, its tiny flags, the name of its output in the documents)."""
        words = list(command.words)
        count = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
        head, flags = words[:count], Flags(words[count:])
        output = flags.get("output")
        flags.pairs = [[n, v and self.place(v)] for n, v in flags.pairs if n != "output"]
        if not flags.has("help"):
            SHRINK[head[-1].rsplit(".", 1)[-1]](flags)
        return head, flags, output

    def run(self, command: Command) -> bool:
        """Run a command; False if an equal one was run before."""
        head, flags, output = self.shrink(command)
        key = (*head, *sorted(flags.words()))
        if key in self._done:
            if output:
                self._outputs[output] = str(self._done[key])
            return False
        here = None
        if output:
            here = f"out/{len(self._done)}{next((end for end in SUFFIXES if output.endswith(end)), '')}"
            self._outputs[output] = here
            flags.set(output=here)
        self._done[key] = here
        if head[0] == "python" and head[1] != "-m":
            self._script([*head[1:], *flags.words()])
        else:
            self._verb(head, flags.words())
        return True

    def _script(self, words: list[str]) -> None:
        """Run a script that the documents ask for in a process of its own."""
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}\n{done.stdout[-500:]}{done.stderr[-3000:]}")

    def _verb(self, head: list[str], arguments: list[str]) -> None:
        """Run a verb in this process."""
        from cvsa_jax import commands

        module = head[2] if head[0] == "python" else "cvsa_jax"
        text = io.StringIO()
        try:
            with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
                if module == "cvsa_jax":
                    commands.main(head[-1], arguments)
                else:
                    commands.run(module, arguments)
        except SystemExit as stop:
            if stop.code:
                raise RuntimeError(f"exit code {stop.code}\n{text.getvalue()[-3000:]}") from stop


def _loop(flags: Flags) -> None:
    """A tiny prior and few steps."""
    if not flags.has("checkpoint"):
        flags.set(checkpoint="prior")
    if "blind" in str(flags.get("task")):
        flags.set(kernel_checkpoint="kernels", search_guesses=1, limit=1)
    if flags.get("method") == "classical":
        return
    explicit = flags.get("guidance") in ("plug_in", "printed_plug_in")  # which diverges in few steps
    other = flags.get("method") not in (None, "cvsa")
    steps = 300 if explicit else 8 if other else 4
    flags.set(num_steps=steps, num_samples=2 if flags.get("aim") == "posterior" else 1)
    flags.shrink(num_corrections=1)


def shrink_restore(flags: Flags) -> None:
    if flags.has("list_tasks"):
        return
    _loop(flags)
    flags.shrink(image_size=SIDE, limit=1)
    if flags.has("bkse_weights"):  # whose strides need more pixels
        flags.set(image_size=2 * SIDE)


def shrink_ablate(flags: Flags) -> None:
    _loop(flags)
    flags.set(image_size=SIDE, limit=1)
    for pair in flags.pairs:
        if pair[0] == "sweep":
            name, values = pair[1].split("=")
            few = ["2", "3"] if name == "num_steps" else values.split(",")[:2]
            pair[1] = f"{name}={','.join(few)}"


def shrink_evaluate(flags: Flags) -> None:
    if flags.has("results"):
        return
    flags.set(checkpoint="prior", image_size=SIDE, limit=1, figure_images=1, evaluations=8)
    if flags.get("preset") == "table3":  # whose joint chains, as in `_loop`, diverge in few steps
        flags.set(kernel_checkpoint="kernels", search_guesses=1, evaluations=300)
    if not flags.has("methods"):
        flags.set(methods=ROWS[str(flags.get("preset"))])


def shrink_figures(flags: Flags) -> None:
    flags.set(checkpoint="prior", image_size=SIDE)
    flags.shrink(limit=1)
    if flags.get("kind") == "path":
        flags.set(num_steps=4, num_frames=2)


def shrink_train(flags: Flags) -> None:
    side = 8 if flags.get("data") == "kernels" else SIDE
    flags.set(
        image_size=side, channels="8,8", encoder_blocks="1,1", decoder_blocks="1,1", num_steps=3, batch_size=2,
        warmup_steps=1, num_validation=2, log_every=1, save_every=3, sample_every=3,
    )  # fmt: skip
    if flags.has("start"):
        flags.set(start="prior")


def shrink_benchmark(flags: Flags) -> None:
    flags.set(checkpoint="prior", image_size=SIDE, batch_size=2, steps_per_call=2)
    flags.shrink(batch_sizes="1,2")
    flags.set(**({"batches": 2, "devices": 2, "processes": 2} if flags.has("parts") else {"repeats": 1}))


def shrink_posterior_benchmark(flags: Flags) -> None:
    flags.set(dimensions=4, measured=1, num_samples=20, num_problems=1, field_size=8)
    flags.pairs += [["methods", name] for name in ("ancestral + covariance", "DDRM", "ancestral_multistep + spectral")]


def shrink_large(flags: Flags) -> None:
    flags.set(checkpoint="prior", sides=f"{SIDE},{2 * SIDE}", tile=SIDE)


def shrink_noise_estimates(flags: Flags) -> None:
    flags.set(checkpoint="prior", image_size=SIDE, limit=1, tasks="denoise,gaussian_deblur")


def shrink_wrong_measurements(flags: Flags) -> None:
    flags.set(checkpoint="prior", image_size=SIDE, limit=1, tasks="mri", num_steps=2)


SHRINK = {
    "restore": shrink_restore,
    "ablate": shrink_ablate,
    "evaluate": shrink_evaluate,
    "figures": shrink_figures,
    "train": shrink_train,
    "benchmark": shrink_benchmark,
    "posterior_benchmark": shrink_posterior_benchmark,
    "large": shrink_large,
    "noise_estimates": shrink_noise_estimates,
    "wrong_measurements": shrink_wrong_measurements,
    "import": lambda flags: None,
    "export": lambda flags: flags.set(checkpoint="prior"),
}


def tiny_code(text: str, prior: str = "prior", photographs: str = "photographs") -> str:
    """Python of a document with small images and a small prior; nothing else is changed."""
    text = text.replace('"products64"', repr(prior)).replace('"experiments/samples"', repr(photographs))
    return re.sub(r"\b64\b", str(SIDE), text)


def make_files(folder: pathlib.Path) -> None:
    """Everything that a document's command may name: photographs, measured files, tiny untrained priors."""
    import jax
    import numpy as np
    from PIL import Image

    from cvsa_jax import checkpoints, data, folders, images, networks, spectral
    from cvsa_jax.denoising import denoising_error

    photographs = data.load_squares(folders.list_images(ROOT / "experiments" / "samples")[:4], SIDE, 3)
    for name, image in zip("abcd", photographs, strict=True):
        images.save_image(folder / "photographs" / f"{name}.png", image)
    for name, side in (("small", SIDE // 4), ("torn", SIDE), ("blurred", SIDE)):
        Image.open(folder / "photographs" / "a.png").resize((side, side)).save(folder / f"{name}.png")
    hole = -np.ones((SIDE, SIDE, 1))
    hole[4:8, 4:8] = 1
    for path in ("hole.png", *(f"masks/{name}.png" for name in "abcd")):
        images.save_image(folder / path, hole)
    np.save(folder / "kernel.npy", np.full((3, 3), 1 / 9))
    code = [tiny_code(b.text) for b in blocks(ROOT / "README.md") if b.language == "python"]
    (folder / "mine.py").write_text("\n".join([*code, "from cvsa_jax.commands import main", "main()"]))
    (folder / "eight.txt").write_text("a.png\n")
    (folder / "GOPRO_wVAE.pth").write_bytes(b"a stand-in, see `small_encoder`")
    levels = {"channels": (8, 8), "encoder_blocks": (1, 1), "decoder_blocks": (1, 1)}
    for name, some, patch in (("prior", photographs, 2), ("kernels", data.draw_kernels(64, 8, 0), 1)):
        spec = networks.NetworkSpec(
            image_size=some.shape[1], image_channels=some.shape[-1], options=levels | {"patch": patch},
            spectrum=spectral.estimate_spectrum(some),
        )  # fmt: skip
        params = jax.jit(spec.init)(jax.random.key(0))
        prior = networks.build_prior(spec, params)
        error = denoising_error(prior, some, jax.random.key(1))
        checkpoints.save_prior(folder / name, spec, params, error, {})


def small_encoder() -> None:
    """A small blur encoder with random weights in place of the published one, which is not ours to ship."""
    sys.path.insert(0, str(ROOT / "tests"))
    import conftest

    from cvsa_jax.importers import bkse
    from cvsa_jax.operators import encoder

    small = conftest.SMALL_ENCODER
    bkse.read_state = lambda path: conftest.published_like(small)
    bkse.BlurEncoder = encoder.BlurEncoder = lambda: small
    encoder.STRIDE = 32


def run(paths: list[pathlib.Path]) -> int:
    """Run the commands of some documents; the number of those that failed."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
    sys.path.insert(0, str(ROOT))
    found = [command for path in paths for one in collect(path) for command in expand(one)]
    failed = ran = 0
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        make_files(pathlib.Path(name))
        small_encoder()
        os.chdir(name)
        workshop = Workshop()
        for command in found:
            place, clock = f"{command.document}:{command.line}", time.perf_counter()
            reason = reason_to_skip(command)
            if reason is not None:
                print(f"skip  {place}  {command.text}\n      {reason}", flush=True)
                continue
            try:
                if workshop.run(command):
                    ran += 1
                    print(f"{time.perf_counter() - clock:4.0f}s {place}  {command.text}", flush=True)
            except Exception as error:  # all are reported before this ends
                failed += 1
                text = str(error) if isinstance(error, RuntimeError) else traceback.format_exc()
                text = text.strip().replace("\n", "\n      ")
                print(f"FAIL  {place}  {command.text}\n      {text}", flush=True)
        os.chdir(ROOT)
    seconds = time.perf_counter() - begin
    print(f"{len(found)} commands, {ran} different ones run in {seconds:.0f} s, {failed} failed", flush=True)
    return failed


def main(names: list[str]) -> int:
    """Run the commands of the documents named, or of all; the exit code."""
    if names:
        return 1 if run([ROOT / name for name in names]) else 0
    others = [str(path.relative_to(ROOT)) for path in documents() if path != ROOT / LONGEST]
    started = [subprocess.Popen([sys.executable, __file__, *part]) for part in ([LONGEST], others)]
    return max([process.wait() for process in started])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
