"""Writes the containers of published weights by hand, instruction by instruction: PyTorch is not needed."""

import io
import struct
import zipfile
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
TYPES = {
    "Double": "f8", "Float": "f4", "Half": "f2", "Long": "i8", "Int": "i4", "Short": "i2", "Char": "i1", "Byte": "u1",
    "Bool": "?", "BFloat16": ml_dtypes.bfloat16,
}  # fmt: skip


class Global(NamedTuple):
    """A name that the reader of a pickle would import."""

    module: str
    name: str


class Call(NamedTuple):
    """A call of a name, the entries that the result is filled with, and the state that is set on it."""

    function: Any
    arguments: tuple
    state: Any = None
    entries: dict | None = None


class Reference(NamedTuple):
    """Something outside of the pickle."""

    identity: tuple


class Raw(NamedTuple):
    """Instructions as they are."""

    code: bytes


class Storage(NamedTuple):
    """A run of numbers."""

    kind: str
    key: str
    numbers: np.ndarray
    place: str = "cpu"


def emit(value: Any) -> bytes:
    """The instructions that make a value."""
    match value:
        case Raw(code):
            return code
        case Global(module, name):
            return emit(module) + emit(name) + b"\x93" if "\n" in module + name else f"c{module}\n{name}\n".encode()
        case Call(function, arguments, state, entries):
            filled = b"" if entries is None else emit(entries)[1:]
            return emit(function) + emit(arguments) + b"R" + filled + (b"" if state is None else emit(state) + b"b")
        case Reference(identity):
            return emit(identity) + b"Q"
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            size = value.bit_length() // 8 + 1
            return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case bytes():
            return b"B" + struct.pack("<I", len(value)) + value
        case dict():
            return b"}(" + b"".join(emit(k) + emit(v) for k, v in value.items()) + b"u"
        case list():
            return b"](" + b"".join(map(emit, value)) + b"e"
        case tuple():
            return b"(" + b"".join(map(emit, value)) + b"t"
    raise TypeError(type(value))


def pickled(value: Any, protocol: int = 4) -> bytes:
    """A pickle."""
    return bytes([0x80, protocol]) + emit(value) + b"."


def storage(kind: str, key: str, numbers: Any, place: str = "cpu") -> Storage:
    """A storage of a type by its name in PyTorch."""
    return Storage(kind, key, np.asarray(numbers).astype(TYPES[kind]).ravel(), place)


def identity(run: Storage, *view: Any) -> Reference:
    """A reference to a storage."""
    return Reference(("storage", Global("torch", f"{run.kind}Storage"), run.key, run.place, run.numbers.size, *view))


def tensor(run: Any, offset: Any, size: Any, stride: Any) -> Call:
    """A tensor in a storage."""
    source = identity(run) if isinstance(run, Storage) else run
    hooks = Call(Global("collections", "OrderedDict"), ())
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), (source, offset, size, stride, False, hooks))


def archive(value: Any, *storages: Storage, prefix: str = "archive", order: str | None = "little", **options) -> bytes:
    """A file of torch.save's present format."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as members:
        members.writestr(f"{prefix}/data.pkl", pickled(value, 2))
        if order:
            members.writestr(f"{prefix}/byteorder", order)
        for run in storages:
            words = run.numbers.view(np.uint16) if run.kind == "BFloat16" else run.numbers
            members.writestr(f"{prefix}/data/{run.key}", (words.byteswap() if order == "big" else words).tobytes())
        members.writestr(f"{prefix}/version", "3\n")
    return file.getvalue()


def _replace(value: Any, change: Any) -> Any:
    """The same value with each reference changed."""
    match value:
        case Reference():
            return change(value)
        case Global() | Raw():
            return value
        case Call():
            return Call(*(_replace(part, change) for part in value))
        case tuple() | list():
            return type(value)(_replace(part, change) for part in value)
        case dict():
            return {k: _replace(part, change) for k, part in value.items()}
    return value


def legacy(value: Any, *storages: Storage) -> bytes:
    """A file of torch.save's older format, whose references end with a view or None."""
    value = _replace(value, lambda r: r if len(r.identity) == 6 else Reference((*r.identity, None)))
    machine = {"protocol_version": VERSION, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    pickles = [MAGIC, VERSION, machine, value, [run.key for run in storages]]
    runs = [struct.pack("<q", run.numbers.size) + run.numbers.tobytes() for run in storages]
    return b"".join([pickled(p, 2) for p in pickles] + runs)


def alone(run: Storage) -> Call:
    """A storage inside of a plain pickle, as EDM's have them."""
    return Call(Global("torch.storage", "_load_from_bytes"), (legacy(identity(run), run),))


def plain(value: Any, *storages: Storage) -> bytes:
    """A plain pickle, the storages within."""
    held = {run.key: alone(run) for run in storages}
    return pickled(_replace(value, lambda r: held.get(r.identity[2], r)))


def persistent(class_name: str, state: dict, source: str = "raise SystemExit") -> Call:
    """An object of EDM's with the source text of its class."""
    meta = {"type": "class", "version": 6, "module_src": source, "class_name": class_name, "state": state}
    return Call(Global("torch_utils.persistence", "_reconstruct_persistent_obj"), (meta,))
