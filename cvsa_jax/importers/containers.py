"""Files that torch.save wrote, in either of its formats, read without PyTorch.

An archive (zip) has the values, a pickle, in `<prefix>/data.pkl`, and each storage raw in `<prefix>/data/<key>`. The
older format is a row of pickles (a magic number, a version, facts of the machine, the values, the keys of the
storages), then for each key how many numbers its storage has, in eight bytes, and the numbers.

References: torch/serialization.py writes both.
"""

import io
import re
import struct
import sys
import zipfile
import zlib
from typing import Any, BinaryIO

import numpy as np

from cvsa_jax.importers.pickles import Budget, load
from cvsa_jax.importers.tensors import BFLOAT16, as_dtype, tensor_names

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
HEAD = 64  # bytes that tell the formats apart
_FIRST_PICKLE = re.compile(rb"\x80.(\x95.{8})?\x8a\x0a" + re.escape(MAGIC.to_bytes(10, "little")) + rb"\.", re.DOTALL)
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member of an archive: its signature, the lengths of what follows


def is_archive(head: bytes) -> bool:
    """Whether a file that starts with this is a zip archive."""
    return head.startswith(b"PK\x03\x04")


def is_legacy(head: bytes) -> bool:
    """Whether a file that starts with this is of torch.save's older format."""
    return _FIRST_PICKLE.match(head) is not None


def read_archive(file: BinaryIO, budget: Budget) -> Any:
    """What an archive of torch.save holds: dictionaries, lists, tuples, plain values and arrays.

    Args:
      file: binary, of this one archive.
      budget: what reading may cost.

    Raises:
      ValueError: tells what it asks for and does not get.
      Exception: of any kind, if it is broken.
    """
    listed, size = zipfile.ZipFile(file).infolist(), _size(file)
    members = {info.filename: info for info in listed}
    if len(members) != len(listed) or sum(info.file_size for info in listed) > size:
        raise ValueError("its parts are larger than the file, or two have one name")
    prefixes = [n.removesuffix("data.pkl") for n in members if re.fullmatch(r"([^/]*/)?data\.pkl", n)]
    if len(prefixes) != 1:
        raise ValueError(f"torch.save's archives have one data.pkl, this one has {len(prefixes)}")
    (prefix,) = prefixes
    order = "little"  # of files older than the record
    if f"{prefix}byteorder" in members:
        order = bytes(_member(file, members[f"{prefix}byteorder"])).decode()
    if order not in ("little", "big"):
        raise ValueError("its byte order is neither little nor big")
    storages: dict[tuple[str, np.dtype], np.ndarray] = {}

    def find(identity: Any) -> np.ndarray:
        key, dtype, count, view = _storage(identity)
        if (key, dtype) not in storages:
            if f"{prefix}data/{key}" not in members or view is not None:
                raise ValueError(f"its storage {key} is missing")
            raw = _member(file, members[f"{prefix}data/{key}"])
            storages[key, dtype] = _numbers(raw, dtype, count, order)
        return storages[key, dtype]

    return load(io.BytesIO(_member(file, members[f"{prefix}data.pkl"]).data), tensor_names(budget), budget, find)


def read_legacy(file: BinaryIO, budget: Budget) -> Any:
    """What a file of torch.save's older format holds, as `read_archive`."""
    file.seek(0)
    magic, version, _ = (load(file, {}, budget) for _ in range(3))
    if (type(magic), magic, type(version), version) != (int, MAGIC, int, VERSION):
        raise ValueError("it is of another version of torch.save")
    start, types = file.tell(), {}

    # The storages come last: the values are read for the types of the storages first, then with their numbers.
    def note(identity: Any) -> np.ndarray:
        key, dtype, count, _ = _storage(identity)
        types.setdefault(key, (dtype, count))
        return np.empty(0, dtype)

    load(file, tensor_names(budget, lambda *_: None), budget, note)
    storages = _storages(file, load(file, {}, budget), types)

    def find(identity: Any) -> np.ndarray:
        key, dtype, count, view = _storage(identity)
        numbers = _numbers(storages[key], dtype, count, "little")
        if view is None:
            return numbers
        _, offset, length = view
        if type(offset) is not int or type(length) is not int or not 0 <= offset <= offset + length <= count:
            raise ValueError("a view does not lie within its storage")
        return numbers[offset : offset + length]

    file.seek(start)
    return load(file, tensor_names(budget), budget, find)


def _storages(file: BinaryIO, keys: Any, types: dict[str, tuple[np.dtype, int]]) -> dict[str, np.ndarray]:
    """The bytes of each storage, which stand where the file is."""
    found = {}
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(types):
        raise ValueError("its storages are not those of its tensors")
    for key in keys:
        dtype, count = types[key]
        (stated,) = struct.unpack("<q", file.read(8))
        if stated != count:
            raise ValueError(f"its storage {key} has {stated} numbers, not {count}")
        found[key] = _raw(file, count * dtype.itemsize)
    return found


def _storage(identity: Any) -> tuple[str, np.dtype, int, Any]:
    """(key, type, number of numbers, view) of a pickle's reference to a storage. Its device is left out."""
    if type(identity) is not tuple or len(identity) not in (5, 6) or identity[0] != "storage":
        raise ValueError("it refers to something that is no storage")
    _, dtype, key, _, count, *view = identity
    if type(key) is not str or type(count) is not int or not 0 <= count < 2**63:
        raise ValueError("it refers to a storage without a name or a size")
    return key, as_dtype(dtype), count, view[0] if view else None


def _numbers(raw: np.ndarray, dtype: np.dtype, count: int, order: str) -> np.ndarray:
    """Bytes as numbers, turned into the byte order of this machine."""
    if raw.size != count * dtype.itemsize:
        raise ValueError(f"a storage has {raw.size} bytes, not {count} numbers of {dtype}")
    words = raw.view(np.uint16 if dtype == BFLOAT16 else dtype)
    return (words if order == sys.byteorder else words.byteswap()).view(dtype)


def _member(file: BinaryIO, info: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of a member of an archive, which torch.save does not compress."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 or info.compress_size != info.file_size:
        raise ValueError(f"its part {info.filename} is compressed or encrypted, which torch.save does not do")
    file.seek(max(info.header_offset, 0))
    signature, *lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if signature != b"PK\x03\x04":
        raise ValueError(f"its part {info.filename} is not where it should be")
    file.seek(sum(lengths), io.SEEK_CUR)
    raw = _raw(file, info.file_size)
    if info.CRC and zlib.crc32(raw.data) != info.CRC:  # torch.save can be told to leave the sum 0
        raise ValueError(f"its part {info.filename} is damaged")
    return raw


def _raw(file: BinaryIO, count: int) -> np.ndarray:
    """The next bytes of a file; what it does not have is not reserved."""
    if count > _size(file) - file.tell():
        raise ValueError("it ends too early")
    raw = np.empty(count, np.uint8)
    if file.readinto(raw.data) != count:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError("it changed while it was read")
    return raw


def _size(file: BinaryIO) -> int:
    here = file.tell()
    size = file.seek(0, io.SEEK_END)
    file.seek(here)
    return size
