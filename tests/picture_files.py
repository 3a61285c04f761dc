"""Files of pictures that no library at hand writes: PNG and TIFF of 16 bits a colour, profiles of other colours."""

import struct
import zlib

import numpy as np

from cvsa_jax.pictures import profiles


def png16(values: np.ndarray, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of 16 bits, (H, W, 1 to 4), its lines unfiltered; extra: chunks before the pixels."""
    height, width, channels = values.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), values.astype(">u2").reshape(height, -1).view("u1")], 1)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = [(b"IHDR", head), *extra, (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b"")]
    body = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def lzw(data: bytes) -> bytes:
    """LZW as TIFF has it: each byte a code of 9 bits, the table cleared before it would grow."""
    codes = []
    for start in range(0, len(data), 200):
        codes += [256, *data[start : start + 200]]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def tiff_lzw(values: np.ndarray, order: str) -> bytes:
    """A TIFF of 16 bits a colour (H, W, 3), compressed by LZW; order: of its bytes, '<' or '>'."""
    height, width, channels = values.shape
    data = lzw(values.astype(f"{order}u2").tobytes())
    bits_at = 8 + 2 + 12 * 10 + 4
    strip_at = bits_at + 2 * channels
    entries = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, bits_at), (259, 3, 1, 5), (262, 3, 1, 2),
        (273, 4, 1, strip_at), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(data)), (284, 3, 1, 1),
    ]  # fmt: skip
    out = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        out += struct.pack(
            f"{order}HHI" + ("HH" if short else "I"), tag, kind, count, *((value, 0) if short else (value,))
        )
    return out + struct.pack(f"{order}I", 0) + struct.pack(f"{order}{channels}H", *[16] * channels) + data


def swapped_profile() -> bytes:
    """The profile of sRGB with red and blue exchanged."""
    profile = profiles.srgb()
    assert b"rXYZ" in profile and b"bXYZ" in profile
    return profile.replace(b"rXYZ", b"?XYZ", 1).replace(b"bXYZ", b"rXYZ", 1).replace(b"?XYZ", b"bXYZ", 1)


def gamma_profile(gamma: float, grey: bool = False) -> bytes:
    """A profile of the primaries of sRGB, or of grey, with light as a power of the values."""
    source = profiles.srgb()
    count = struct.unpack(">I", source[128:132])[0]
    tags = {}
    for i in range(count):
        name, start, length = struct.unpack(">4sII", source[132 + 12 * i : 144 + 12 * i])
        tags[name] = source[start : start + length]
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256)) + b"\0\0"
    if grey:
        tags = {n: tags[n] for n in (b"desc", b"cprt", b"wtpt")} | {b"kTRC": curve}
    else:
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    table, body, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, data in tags.items():
        data += b"\0" * (-len(data) % 4)
        table += struct.pack(">4sII", name, at + len(body), len(data))
        body += data
    head = bytearray(source[:128])
    head[16:20] = b"GRAY" if grey else b"RGB "
    whole = bytes(head) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]
