"""Published weights are read without PyTorch: the same numbers, whatever holds them; and nothing of a file runs."""

import json
import os
import pathlib
import pickle
import re
import struct
import sys
import time
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from containers import (
    MAGIC,
    TYPES,
    Call,
    Global,
    Raw,
    Reference,
    Storage,
    alone,
    archive,
    emit,
    identity,
    legacy,
    persistent,
    pickled,
    plain,
    storage,
    tensor,
)

from cvsa_jax.importers import arrays
from cvsa_jax.importers.files import flat_state, read_file
from cvsa_jax.importers.source import Source, read_source, state_of, take

WRITERS = {"archive": archive, "legacy": legacy, "plain": plain}
BASE = np.random.default_rng(0).normal(size=60).astype(np.float32)
every_writer = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def read(path: pathlib.Path, content: bytes):
    path.write_bytes(content)
    return read_file(path)


def refusal(path: pathlib.Path, content: bytes | None = None, reader=read_file) -> str:
    """The one line with which a file is refused."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^cannot read ") as caught:
        reader(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def same(found: np.ndarray, expected) -> None:
    expected = np.asarray(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.flags.c_contiguous
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, expected)


# --- the same numbers ---


@every_writer
@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_numbers_is_read(write, kind, tmp_path):
    """As it is; bfloat16, which NumPy lacks, as float32."""
    run = storage(kind, "0", np.arange(12) % (2 if kind == "Bool" else 12) + (kind != "Bool"))
    found = read(tmp_path / "a.pt", write({"w": tensor(run, 0, (3, 4), (4, 1))}, run))
    expected = run.numbers.reshape(3, 4)
    same(found["w"], expected.astype(np.float32) if kind == "BFloat16" else expected)


@every_writer
def test_offsets_and_strides_are_honoured(write, tmp_path):
    """Tensors in one storage are what slices, steps, turns and repeats of one array are."""
    run = storage("Float", "7", BASE)
    cases = {
        "whole": ((0, (60,), (1,)), BASE),
        "later": ((7, (12,), (1,)), BASE[7:19]),
        "stepped": ((3, (12,), (5,)), BASE[3::5]),
        "turned": ((0, (10, 6), (1, 10)), BASE.reshape(6, 10).T),
        "axes": ((20, (4, 1, 5), (1, 20, 4)), BASE.reshape(3, 5, 4).transpose(2, 0, 1)[:, 1:2]),
        "repeated": ((4, (3, 4), (0, 1)), np.broadcast_to(BASE[4:8], (3, 4))),
        "one": ((59, (), ()), BASE[59]),
        "none": ((0, (0, 3), (3, 1)), np.zeros((0, 3), np.float32)),
        "long stride": ((0, (1, 5), (2**62, 1)), BASE[None, :5]),
    }
    found = read(tmp_path / "a.pt", write({name: tensor(run, *where) for name, (where, _) in cases.items()}, run))
    for name, (_, expected) in cases.items():
        same(found[name], expected)


def test_views_of_storages_in_the_older_format(tmp_path):
    """A reference may be to a part of a storage: (key, offset, length)."""
    run = storage("Float", "7", BASE)
    part = identity(run, ("8", 10, 20))
    found = read(tmp_path / "a.pt", legacy({"w": tensor(part, 5, (3,), (1,))}, run))
    same(found["w"], BASE[15:18])
    for view in (("8", 50, 20), ("8", -1, 2), ("8", 0, True)):
        refusal(tmp_path / "b.pt", legacy({"w": tensor(identity(run, view), 0, (1,), (1,))}, run))


@pytest.mark.parametrize("kind", [kind for kind in TYPES if kind not in ("Bool", "Byte", "Char")])
def test_archives_of_the_other_byte_order(kind, tmp_path):
    run = storage(kind, "0", np.arange(1, 7))
    content = archive({"w": tensor(run, 0, (6,), (1,))}, run, order="big")
    numbers = run.numbers.astype(np.float32) if kind == "BFloat16" else run.numbers
    same(read(tmp_path / "a.pt", content)["w"], numbers)
    assert "byte order" in refusal(tmp_path / "b.pt", archive({}, order="middle"))


def test_any_prefix_and_no_record_of_the_byte_order(tmp_path):
    run = storage("Float", "0", BASE)
    for prefix in ("archive", "ffhq_10m", "a b.c"):
        content = archive({"w": tensor(run, 0, (60,), (1,))}, run, prefix=prefix, order=None)
        same(read(tmp_path / "other.pt", content)["w"], BASE)


def test_truth_is_any_byte_but_zero(tmp_path):
    run = Storage("Bool", "0", np.array([0, 1, 2, 255], np.uint8))
    same(read(tmp_path / "a.pt", legacy({"w": tensor(run, 0, (4,), (1,))}, run))["w"], [False, True, True, True])


@every_writer
def test_what_stands_beside_tensors(write, tmp_path):
    """Parameters, devices of other machines, ordered dictionaries with attributes, states of optimizers."""
    run = storage("Float", "0", BASE, place="cuda:0")
    inner, utils = tensor(run, 0, (2, 3), (3, 1)), "torch._utils"
    attributes = {"_metadata": {"": {"version": 1}}}
    value = {
        "state": Call(Global("collections", "OrderedDict"), (), attributes, {"w": inner}),
        "parameter": Call(Global(utils, "_rebuild_parameter"), (inner, True, None)),
        "stateful": Call(Global(utils, "_rebuild_parameter_with_state"), (inner, True, None, {"note": 1})),
        "attributes": Call(
            Global("torch._tensor", "_rebuild_from_type_v2"),
            (Global(utils, "_rebuild_tensor_v2"), Global("torch", "Tensor"), inner.arguments, {"note": 1}),
        ),
        "old": Call(Global(utils, "_rebuild_tensor"), inner.arguments[:4]),
        "typed": Call(Global(utils, "_rebuild_tensor_v3"), (*inner.arguments, Global("torch", "uint32"))),
        "optimizer": {"state": {0: {"step": 3, "exp_avg": inner}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "default": Call(Global("collections", "defaultdict"), (Global("builtins", "list"),)),
        "set": Call(Global("__builtin__", "set"), ([1, 2],)),
        "place": Call(Global("torch", "device"), ("cuda", 1)),
        "size": Call(Global("torch", "Size"), ((2, 3),)),
        "options": Call(Global("argparse", "Namespace"), (), {"lr": 0.5}),
        "bytes": Call(Global("_codecs", "encode"), ("\xff", "latin1")),
        "rest": [None, True, 2, -(2**70), 0.25, "text", ()],
    }
    found, expected = read(tmp_path / "a.pt", write(value, run)), BASE[:6].reshape(2, 3)
    for name in ("parameter", "stateful", "attributes", "old"):
        same(found[name], expected)
    same(found["typed"], expected.view(np.uint32))
    same(found["state"]["w"], expected)
    same(found["optimizer"]["state"][0].pop("exp_avg"), expected)
    assert found["optimizer"] == {"state": {0: {"step": 3}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    names = ("default", "set", "place", "size", "options", "bytes", "rest")
    plain_values = [{}, {1, 2}, "cuda:1", (2, 3), {"lr": 0.5}, b"\xff", value["rest"]]
    assert [found[name] for name in names] == plain_values


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_numbers_of_numpy(protocol, tmp_path):
    """Python's own pickles of them, with the names of NumPy 2 and of NumPy 1."""
    expected = {
        "scalar": np.float64(0.5), "whole": np.int32(-3), "array": np.arange(6.0).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)), "other order": np.arange(3, dtype=">i4"),
        "empty": b"", "bytes": b"\x00\xff", "set": {1}, "frozen": frozenset({2}),
    }  # fmt: skip
    content = pickle.dumps(expected, protocol)
    old = content.replace(b"numpy._core", b"numpy.core") if protocol == 2 else content
    for version in {content, old}:
        found = read(tmp_path / "a.pkl", version)
        for name, value in expected.items():
            if isinstance(value, np.ndarray):
                same(found[name], np.ascontiguousarray(value, value.dtype.newbyteorder("=")))
            else:
                assert found[name] == value


def network(marker: pathlib.Path) -> tuple[dict, dict[str, np.ndarray]]:
    """What EDM's training writes, and the state dictionary of its network."""
    runs = [storage("Float", str(i), BASE[:n]) for i, n in enumerate((6, 4, 2))]
    weight, filters, bias = (tensor(alone(run), 0, (run.numbers.size,), (1,)) for run in runs)
    weight = Call(Global("torch._utils", "_rebuild_parameter"), (weight, True, None))
    conv = persistent("Conv2d", {
        "_parameters": {"weight": weight, "bias": None},
        "_buffers": {"resample_filter": filters, "cache": bias},
        "_non_persistent_buffers_set": Call(Global("builtins", "set"), (["cache"],)),
        "_modules": {}, "_init_args": (3, 4), "_init_kwargs": {"kernel": 3},
    })  # fmt: skip
    dtype = Call(Global("numpy", "dtype"), ("f8", False, True), (3, "<", None, None, None, -1, -1, 0))
    skip = Call(Global("numpy.core.multiarray", "scalar"), (dtype, np.float64(0.5).tobytes()))
    empty = {"_parameters": {}, "_buffers": {}}
    parts = Call(Global("torch.nn.modules.container", "ModuleDict"), (), empty | {"_modules": {"b": conv, "a": conv}})
    top = persistent(
        "EDMPrecond",
        {"_parameters": {"scale": bias}, "_buffers": {}, "_modules": {"model": parts, "none": None}}
        | {"_init_kwargs": {"img_resolution": 16, "skip_scale": skip}, "sigma_data": 0.5},
        f"import os; os.system('touch {marker}')",
    )
    state = {"scale": BASE[:2]}
    for name in ("b", "a"):  # as they stand, not sorted
        state |= {f"model.{name}.weight": BASE[:6], f"model.{name}.resample_filter": BASE[:4]}
    return {"ema": top, "loss_fn": persistent("EDMLoss", {"P_mean": -1.2}), "dataset_kwargs": {"path": "x"}}, state


def test_objects_of_edm_are_data(tmp_path):
    """Every attribute is there. The state dictionary is PyTorch's: parameters, buffers, then the modules in order."""
    value, state = network(tmp_path / "marker")
    (tmp_path / "edm.pkl").write_bytes(pickled(value))
    source = read_source(tmp_path / "edm.pkl")
    top = source.tree["ema"]
    assert (top.class_name, top.init_kwargs) == ("EDMPrecond", {"img_resolution": 16, "skip_scale": 0.5})
    assert top.attributes == {"sigma_data": 0.5}
    conv = top.modules["model"].modules["a"]
    assert (conv.class_name, conv.init_kwargs, conv.attributes["_init_args"]) == ("Conv2d", {"kernel": 3}, (3, 4))
    assert source.tree["loss_fn"].attributes == {"P_mean": -1.2}
    found = state_of(source)
    assert list(found) == list(state)
    for name, array in state.items():
        same(found[name], array)
    assert not (tmp_path / "marker").exists()


# --- nothing runs ---


def wrapped(marker: pathlib.Path) -> dict[str, tuple[object, str]]:
    """Calls that make the marker if they run, and the name that each is refused by."""
    touch, text = f"touch {marker}", f"open({str(marker)!r}, 'w')"

    class Harmful:
        def __reduce__(self):
            import subprocess

            return subprocess.Popen, (["touch", str(marker)],)

    system = Call(Global("os", "system"), (touch,))
    return {
        "system": (system, "`os.system`"),
        "posix": (Call(Global("posix", "system"), (touch,)), "`posix.system`"),
        "eval": (Call(Global("builtins", "eval"), (text,)), "`builtins.eval`"),
        "exec": (Call(Global("__builtin__", "exec"), (text,)), "`__builtin__.exec`"),
        "open": (Call(Global("io", "open"), (str(marker), "w")), "`io.open`"),
        "reduce": (Raw(pickle.dumps(Harmful(), 3)[2:-1]), "`subprocess.Popen`"),
        "getattr": (Call(Global("builtins", "getattr"), (Global("os", "system"), "x")), "`builtins.getattr`"),
        "older": (Raw(b"(" + emit(touch) + b"ios\nsystem\n"), "`os.system`"),
        "object": (Raw(b"(cos\nsystem\n" + emit(touch) + b"o"), "`os.system`"),
        "made": (Raw(b"cos\nsystem\n" + emit((touch,)) + b"\x81"), "`os.system`"),
        "stack": (Raw(emit("os") + emit("system") + b"\x93" + emit((touch,)) + b"R"), "`os.system`"),
        "lines": (Raw(emit("os\nfine") + emit("system") + b"\x93"), "`os fine.system`"),
        "bytes": (Raw(b"C\x02osC\x06system\x93"), "`no text`"),
        "factory": (Call(Global("collections", "defaultdict"), (Global("os", "getcwd"),)), "`os.getcwd`"),
        "set": (Call(Global("builtins", "set"), ([system],)), "`os.system`"),
        "attribute": (Raw(emit("torch._utils") + emit("_rebuild_tensor_v2.__globals__") + b"\x93"), "__globals__`"),
        "dotted": (Raw(emit("torch") + emit("_utils._rebuild_tensor_v2") + b"\x93"), "_rebuild_tensor_v2`"),
        "deep": (Raw(emit("collections") + emit("OrderedDict.__init__.__globals__") + b"\x93"), "__globals__`"),
        "module": (Call(Global("torch", "load"), ("x",)), "`torch.load`"),
        "extension": (Raw(b"\x82\x01"), "instruction EXT1"),
        "buffer": (Raw(b"\x97"), "instruction NEXT_BUFFER"),
        "keywords": (Raw(b"ccollections\nOrderedDict\n)}\x92"), "instruction NEWOBJ_EX"),
        "text reference": (Raw(b"Psystem\n"), "instruction PERSID"),
        "call of text": (Raw(emit("system") + emit((touch,)) + b"R"), "call a str"),
        "call of nothing": (Raw(b"Ncollections\nOrderedDict\n"), "broken|refuses|takes"),
        "class": (Raw(b"ccollections\nOrderedDict\n" + emit({"__class__": 1}) + b"b"), "attributes of a Name"),
        "slots": (Raw(b"ctorch._utils\n_rebuild_tensor\n" + emit((None, {"make": 1})) + b"b"), "attributes of a Name"),
        "of a list": (Raw(b"]" + emit({"append": 1}) + b"b"), "attributes of a list"),
        "of a type": (Raw(b"ctorch\nFloatStorage\n" + emit((None, {"metadata": 1})) + b"b"), "attributes of a"),
        "filled": (Raw(b"ccollections\nOrderedDict\n" + emit("x") + b"a"), "fill a Name"),
        "nested key": (Raw(b"}" + emit(((1, 2), 3)) + b"Ns"), "tuple as a key"),
        "huge key": (Raw(b"}" + emit(2**80) + b"Ns"), "int as a key"),
        "reference": (Reference(("module", Global("torch", "Size"), "a.py", text)), "no storage|outside"),
        "storage": (Reference(("storage", "FloatStorage", "1", "cpu", 1)), "no type of numbers|outside"),
    }  # fmt: skip


NAMES = list(wrapped(pathlib.Path("marker")))


@pytest.mark.parametrize("name", NAMES)
def test_hostile_pickles_do_not_run(name, tmp_path):
    """In each container, and in a storage within a plain pickle. Python's own unpickler does run what can be run."""
    marker = tmp_path / "marker"
    value, told = wrapped(marker)[name]
    run = storage("Float", "0", BASE)
    inner = {"w": tensor(run, 0, (2,), (1,)), "evil": value}
    contents = [write(inner, run) for write in WRITERS.values()]
    nested = Call(Global("torch.storage", "_load_from_bytes"), (legacy(value),))
    contents += [
        pickled({"w": nested}),
        plain({"w": Call(Global("torch.storage", "_load_from_bytes"), (pickled(value),))}),
    ]
    lines = [refusal(tmp_path / "a.pt", content) for content in contents]
    for line in lines[:-1]:
        assert any(part in line for part in told.split("|")), line
    assert "not one that torch.save wrote" in lines[-1]
    assert not marker.exists()
    same(read(tmp_path / "good.pt", archive({"w": tensor(run, 0, (2,), (1,))}, run))["w"], BASE[:2])


@pytest.mark.parametrize("name", ["system", "posix", "eval", "exec", "open", "reduce", "older", "object", "stack"])
def test_these_pickles_are_hostile(name, tmp_path):
    """With the unpickler that is not used they leave the marker: the test above would notice."""
    marker = tmp_path / "marker"
    value, _ = wrapped(marker)[name]
    result = pickle.loads(pickled(value, 2))
    if name == "reduce":
        result.wait()
    elif name in ("eval", "open"):
        result.close()
    assert marker.exists()


def test_no_module_of_a_file_is_imported(tmp_path):
    (tmp_path / "strange_module.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    sys.path.insert(0, str(tmp_path))
    try:
        line = refusal(tmp_path / "a.pkl", pickled(Call(Global("strange_module", "f"), ())))
    finally:
        sys.path.remove(str(tmp_path))
    assert "`strange_module.f`" in line
    assert "strange_module" not in sys.modules
    assert not (tmp_path / "marker").exists()


# --- nothing is reserved that is not there ---


def declared(content: bytes, member: bytes, size: int) -> bytes:
    """An archive whose list of members gives one of them another size."""
    place = content.rindex(member) - 46
    assert content[place : place + 4] == b"PK\x01\x02"
    return content[: place + 20] + size.to_bytes(4, "little") * 2 + content[place + 28 :]


def bombs() -> dict[str, bytes]:
    """Small files that ask for much memory or time."""
    run = storage("Float", "0", BASE)
    of = {
        "repeated": (0, (10**6, 10**6), (0, 0)), "past the end": (50, (11,), (1,)), "before it": (-1, (2,), (1,)),
        "backwards": (5, (3,), (-1,)), "negative size": (0, (-2,), (1,)), "overflow": (0, (2**32, 2**32), (2**32, 1)),
        "long step": (0, (2, 2), (2**62, 1)), "axes": (0, (1,) * 40, (1,) * 40), "mixed": (0, (2, 2), (1,)),
        "truth": (True, (2,), (1,)), "fraction": (0, (2.0,), (1,)), "list": (0, [2], [1]), "huge": (0, (2**70,), (1,)),
    }  # fmt: skip
    found = {
        f"{name} {k}": w({"w": tensor(run, *where)}, run) for name, where in of.items() for k, w in WRITERS.items()
    }
    whole, many = {"w": tensor(run, 0, (60,), (1,))}, Reference((*identity(run).identity[:4], 10**12))
    large = {"w": tensor(many, 0, (10**12,), (1,))}
    zeros = storage("Float", "0", np.zeros(10**6))
    numbers = BASE.tobytes()
    wide = tensor(alone(run), 0, (1000, 1000), (0, 0))
    remembered = lambda value, use, times: pickled(Raw(emit(value) + b"q\x000" + use * times + b"N"))  # noqa: E731
    return found | {
        "stated": archive(large, run),
        "stated older": legacy(large, run)[: -8 - len(numbers)] + struct.pack("<q", 10**12) + numbers,
        "stated less": legacy(whole, run)[: -8 - len(numbers)] + struct.pack("<q", 59) + numbers,
        "stated negative": legacy(whole, run)[: -8 - len(numbers)] + struct.pack("<q", -1) + numbers,
        "compressed": archive({"w": tensor(zeros, 0, (10**6,), (1,))}, zeros, compression=zipfile.ZIP_DEFLATED),
        "declared": declared(archive(whole, run), b"archive/data/0", 2**31),
        "declared shorter": declared(archive(whole, run), b"archive/data/0", 200),
        "bytes": pickled(Raw(b"\x8e" + struct.pack("<Q", 10**12))),
        "text": pickled(Raw(b"\x8d" + struct.pack("<Q", 10**12))),
        "array": pickled(Raw(b"\x96" + struct.pack("<Q", 10**12))),
        "number": pickled(Raw(b"\x8b" + struct.pack("<i", 2**31 - 1))),
        "copies of tensors": pickled(Raw((emit(wide) + b"0") * 500 + b"N")),
        "copies of lists": remembered([0] * 20000, emit(Global("builtins", "set")) + b"h\x00\x85R0", 2000),
        "copies of text": remembered("a" * 10**5, emit(Global("_codecs", "encode")) + b"h\x00\x85R0", 20000),
        "copies of attributes": remembered(
            {str(i): i for i in range(20000)}, emit(Global("argparse", "Namespace")) + b")Rh\x00b0", 2000
        ),
        "instructions": pickled(Raw(b"\x8f0" * 10**6 + b"N")),
        "NumPy": pickled(Call(Global("numpy", "dtype"), ("(1000000000,)f8", False, True))),
        "objects": pickled(Call(Global("numpy", "dtype"), ("O8", False, True))),
    }


BOMBS = bombs()


@pytest.mark.parametrize("name", BOMBS)
def test_no_more_is_reserved_than_is_there(name, tmp_path):
    (tmp_path / "a.pt").write_bytes(BOMBS[name])
    tracemalloc.start()
    start = time.perf_counter()
    refusal(tmp_path / "a.pt")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**27
    assert time.perf_counter() - start < 30


def test_depth_and_places_of_the_memo_cost_nothing(tmp_path):
    """Python's unpickler reserves memory up to a place's number, and ends the process on a deep key."""
    deep = read(tmp_path / "a.pkl", pickled(Raw(b"]" * 10**5 + b"a" * (10**5 - 1))))
    assert len(deep) == 1
    assert read(tmp_path / "b.pkl", pickled(Raw(b"Nr\xff\xff\xff\xff"))) is None
    for content in (pickled(Raw(b"]" * 10**5 + b"a" * (10**5 - 1))), pickled(Raw(b")" + b"\x85" * 10**5))):
        assert "not weights by name" in refusal(tmp_path / "c.pkl", content, arrays.read_state)


def test_a_part_in_many_places_is_refused(tmp_path):
    """2^60 parts in a file of some kilobytes; and names that grow with the depth."""
    code = emit(persistent("Leaf", {"_modules": {}})) + b"q\x000"
    doubled = {"_modules": {"a": Raw(b"h\x00"), "b": Raw(b"h\x00")}}
    many = code + (emit(persistent("Twice", doubled)) + b"q\x000") * 60 + b"h\x00"
    long = code + (emit(persistent("Long", {"_modules": {"a" * 100: Raw(b"h\x00")}})) + b"q\x000") * 60 + b"h\x00"
    for value, told in ((many, "parts"), (long, "no module")):
        assert told in refusal(tmp_path / "a.pkl", pickled({"ema": Raw(value)}), lambda p: state_of(read_source(p)))
    assert "no module" in refusal(
        tmp_path / "a.pkl",
        pickled({"ema": persistent("X", {"_modules": {"a": 1}})}),
        lambda p: state_of(read_source(p)),
    )


# --- broken and foreign files ---


def small() -> dict[str, bytes]:
    """One valid file of each kind."""
    run, half = storage("Float", "0", BASE[:8]), storage("Half", "1", BASE[:3])
    value = {"a": tensor(run, 2, (2, 3), (3, 1)), "b": tensor(half, 0, (3,), (1,)), "step": 3}
    found = {kind: write(value, run, half) for kind, write in WRITERS.items()}
    return found | {"safetensors": safetensors.numpy.save({"a": BASE[:6].reshape(2, 3), "b": np.arange(3)})}


@pytest.mark.parametrize("kind", small())
def test_a_file_that_ends_early_is_refused(kind, tmp_path):
    """At every byte."""
    content = small()[kind]
    path = tmp_path / "a.bin"
    read(path, content)
    for length in range(len(content)):
        refusal(path, content[:length])


@pytest.mark.parametrize("kind", small())
def test_a_changed_byte_is_refused_or_harmless(kind, tmp_path):
    content = small()[kind]
    path = tmp_path / "a.bin"
    generator = np.random.default_rng(0)
    for _ in range(400):
        changed = bytearray(content)
        for place in generator.integers(len(changed), size=generator.integers(1, 4)):
            changed[place] = generator.integers(256)
        path.write_bytes(changed)
        try:
            read_file(path)
        except ValueError as error:
            assert "\n" not in str(error)
            assert str(error).startswith(f"cannot read {path}: ")


def test_a_damaged_storage_of_an_archive_is_noticed(tmp_path):
    run = storage("Float", "0", BASE)
    content = archive({"w": tensor(run, 0, (60,), (1,))}, run)
    place = content.index(BASE.tobytes())
    assert "data/0 is damaged" in refusal(tmp_path / "a.pt", content[:place] + b"\x01" + content[place + 1 :])
    # The sums may be left out, as 0: torch.save can be told so.
    bare = re.sub(rb"(PK\x01\x02.{12}).{4}", rb"\1\0\0\0\0", content, flags=re.DOTALL)
    same(read(tmp_path / "a.pt", bare)["w"], BASE)


FOREIGN = {
    "empty": (b"", "empty"),
    "text": (b"these are no weights\n", "neither of torch.save"),
    "page": (b"<!DOCTYPE html><html></html>", "neither of torch.save"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "neither of torch.save"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
    "zeros": (bytes(1000), "neither of torch.save"),
    "older pickle": (b"(dp0\n.", "neither of torch.save"),
    "number": (pickled(3), "holds a int"),
    "list": (pickled([{"a": 1}]), "holds a list"),
    "number by name": (pickled({"step": 3}), "step is a int"),
    "nothing by name": (pickled({}), "no weights"),
    "keys": (pickled({3: 4}), "3 is a int"),
    "other magic": (legacy({}).replace(MAGIC.to_bytes(10, "little"), bytes(9) + b"\x01"), "holds a int"),
    "other version": (legacy({}).replace(b"\x8a\x02\xe9\x03", b"\x8a\x02\xe8\x03"), "another version"),
    "other keys": (legacy({}, storage("Float", "0", BASE)), "not those of its tensors"),
    "keys missing": (legacy({"w": tensor(storage("Float", "0", BASE), 0, (2,), (1,))}), "not those of its tensors"),
    "member missing": (archive({"w": tensor(storage("Float", "0", BASE), 0, (2,), (1,))}), "storage 0 is missing"),
    "header": (struct.pack("<Q", 9) + b"{nothing}", "header"),
    "long header": (struct.pack("<Q", 10**6) + b"{}", "header"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_files_are_refused(name, tmp_path):
    content, told = FOREIGN[name]
    assert told in refusal(tmp_path / "a.pt", content, arrays.read_state)
    assert refusal(tmp_path / "a.safetensors", content, arrays.read_state)


def test_what_is_no_file_is_refused(tmp_path):
    assert "no such file" in refusal(tmp_path / "none.pt")
    assert "it is no file" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe.pt")
    assert "it is no file" in refusal(tmp_path / "pipe.pt")
    np.savez(tmp_path / "a.npz", a=BASE)
    assert "one data.pkl, this one has 0" in refusal(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "two.pt", "w") as members:
        members.writestr("a/data.pkl", pickled({}))
        members.writestr("b/data.pkl", pickled({}))
    assert "this one has 2" in refusal(tmp_path / "two.pt")
    with zipfile.ZipFile(tmp_path / "same.pt", "w") as members, pytest.warns(UserWarning, match="Duplicate"):
        members.writestr("a/data.pkl", pickled({}))
        members.writestr("a/data.pkl", pickled({"a": 1}))
    assert "two have one name" in refusal(tmp_path / "same.pt")


# --- safetensors, folders ---


def test_safetensors_are_read_with_their_types(tmp_path):
    kinds = (np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_, ml_dtypes.bfloat16)
    state = {np.dtype(kind).name: np.arange(6).reshape(2, 3).astype(kind) for kind in kinds}
    safetensors.numpy.save_file(state, tmp_path / "a.safetensors")
    found = flat_state(read_file((tmp_path / "a.safetensors").rename(tmp_path / "named_otherwise.bin")))
    for name, array in state.items():
        same(found[name], array.astype(np.float32) if name == "bfloat16" else array)
    safetensors.numpy.save_file({"c": np.ones(2, np.complex64)}, tmp_path / "c.safetensors")
    assert "c as C64" in refusal(tmp_path / "c.safetensors")


def folder(path: pathlib.Path, files: dict[str, object]) -> pathlib.Path:
    """A folder with JSON files, weights (a number, told apart by it), and raw files."""
    for name, content in files.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            file.write_text(json.dumps(content))
        elif isinstance(content, bytes):
            file.write_bytes(content)
        elif file.suffix == ".safetensors":
            safetensors.numpy.save_file({f"w{content}": np.full(2, content, np.float32)}, file)
        else:
            run = storage("Float", "0", np.full(2, content))
            file.write_bytes(archive({f"w{content}": tensor(run, 0, (2,), (1,))}, run))
    return path


MODEL = "diffusion_pytorch_model"
SPLIT = {"weight_map": {"w1": f"{MODEL}-00001-of-00002.safetensors", "w2": f"{MODEL}-00002-of-00002.safetensors"}}
PARTS = {f"{MODEL}-0000{i}-of-00002.safetensors": i for i in (1, 2)}
SETTINGS = {"config.json": {"a": 1}, "scheduler_config.json": {"b": 2}}
BELOW = {"unet/config.json": {"a": 1}, "scheduler/scheduler_config.json": {"b": 2}}
FOLDERS = {
    "root": ({**SETTINGS, "model_index.json": {}, f"{MODEL}.bin": 1},
             f"{MODEL}.bin", ["w1"], {**SETTINGS, "model_index.json": {}}),
    "below": ({**BELOW, f"unet/{MODEL}.safetensors": 3}, f"unet/{MODEL}.safetensors", ["w3"], SETTINGS),
    "both": ({f"{MODEL}.bin": 1, f"{MODEL}.safetensors": 2, f"{MODEL}.fp16.safetensors": 3},
             f"{MODEL}.safetensors", ["w2"], {}),
    "other name": ({"model.bin": 1, "model.safetensors": 2}, "model.safetensors", ["w2"], {}),
    "one file": ({"ema_celeba_hq.ckpt": 5, "notes.txt": b"", "other.json": {}}, "ema_celeba_hq.ckpt", ["w5"], {}),
    "split": ({f"{MODEL}.safetensors.index.json": SPLIT, **PARTS}, f"{MODEL}.safetensors.index.json", ["w1", "w2"], {}),
    "split elsewhere": ({"unet/m.safetensors.index.json": SPLIT, **{f"unet/{k}": v for k, v in PARTS.items()}},
                        "unet/m.safetensors.index.json", ["w1", "w2"], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_has_one_file_of_weights(name, tmp_path):
    """Which one was read is told; its settings are found at the root and below."""
    files, read_from, weights, config = FOLDERS[name]
    source = read_source(folder(tmp_path / "model", files))
    assert source.path == tmp_path / "model" / read_from
    assert sorted(state_of(source)) == weights
    assert source.config == config
    assert read_source(source.path).config == {}


WRONG_FOLDERS = {
    "none": ({"config.json": {}}, "has no file of weights"),
    "two": ({"a.pt": 1, "b.pkl": 2}, "name one of its files of weights: a.pt, b.pkl"),
    "two kinds": ({"a.pt": 1, "a.pkl": 2}, "name one of its files of weights: a.pkl, a.pt"),
    "settings": ({"config.json": b"{", "a.pt": 1}, "config.json: "),
    "settings of another kind": ({"config.json": b"[1]", "a.pt": 1}, "holds a list"),
    "deep settings": ({"config.json": b"[" * 10**5, "a.pt": 1}, "config.json: "),
    "part missing": ({f"{MODEL}.safetensors.index.json": SPLIT, f"{MODEL}-00001-of-00002.safetensors": 1}, "00002-of"),
    "part of another": ({f"{MODEL}.safetensors.index.json": SPLIT, **dict.fromkeys(PARTS, 1)}, "w1, w2"),
    "part elsewhere": ({"a.index.json": {"weight_map": {"w1": "../b/a.pt"}}, "../b/a.pt": 1}, "file beside it"),
    "no list": ({"a.index.json": {}}, "file beside it"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_FOLDERS)
def test_other_folders_are_refused(name, tmp_path):
    files, told = WRONG_FOLDERS[name]
    with pytest.raises(ValueError, match=r"^cannot read ") as caught:
        read_source(folder(tmp_path / "model", files))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the strict way in ---

EXPECTED = {"conv": {"kernel": np.zeros((1, 1, 2, 3)), "bias": np.zeros(3)}}
STATE = {"c.weight": np.arange(6, dtype=np.float64).reshape(3, 2, 1, 1), "c.bias": np.arange(3, dtype=np.float16)}
ENTRIES = [("c.weight", ("conv", "kernel"), arrays.convolution), ("c.bias", ("conv", "bias"), np.asarray)]


def test_weights_are_taken_by_name():
    """Turned, float32, whatever is ignored left out."""
    state = STATE | {"map_augment.weight": np.zeros(9), "enc.8x8.resample_filter": np.zeros(4)}
    found = take(state, ENTRIES, EXPECTED, ["map_augment.*", "*.resample_filter"])
    same(found["conv"]["kernel"], STATE["c.weight"].transpose(2, 3, 1, 0).astype(np.float32))
    same(found["conv"]["bias"], np.arange(3, dtype=np.float32))
    assert list(found) == ["conv"]


@pytest.mark.parametrize(
    ("state", "entries", "told"),
    [
        (STATE | {"d.bias": np.zeros(3)}, ENTRIES, "not known: d.bias"),
        ({"c.bias": STATE["c.bias"]}, ENTRIES, "missing: c.weight"),
        (STATE, ENTRIES[:1], "not known: c.bias; not filled: conv/bias"),
        (STATE, [*ENTRIES, ENTRIES[1]], "used twice: c.bias, conv/bias"),
        (STATE, [*ENTRIES, ("c.bias", ("conv", "other"), np.asarray)], "twice: c.bias; without a place: conv/other"),
        (STATE | {"c.bias": np.zeros(4)}, ENTRIES, "of another shape: c.bias is float64 (4,) for conv/bias (3,)"),
        (STATE | {"c.weight": np.zeros(3)}, ENTRIES, "of another shape: c.weight is float64 (3,)"),
        (STATE | {"c.bias": np.zeros(3, np.complex64)}, ENTRIES, "of another shape: c.bias is complex64"),
        (STATE | {"c.bias": np.array([0, np.nan, 0])}, ENTRIES, "NaN or infinite: c.bias"),
        (STATE | {"c.bias": np.array([0, 1e300, 0])}, ENTRIES, "NaN or infinite: c.bias"),
        (STATE | {f"x{i}": np.zeros(1) for i in range(20)}, ENTRIES, "x7 and 12 more"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused(state, entries, told):
    with pytest.raises(ValueError, match="do not fit the network") as caught:
        take(state, entries, EXPECTED)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_source_of_other_things_has_no_state(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read a.pt: .* model is a dict"):
        state_of(Source(pathlib.Path("a.pt"), {"model": {"w": BASE}}, {}))
