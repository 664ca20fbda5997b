"""Pictures of few bytes that take long, or much memory, to decode. Each is written by hand, field by field."""

import lzma
import struct
import zlib
from collections.abc import Callable
from functools import cache

from PIL import Image

from tests.pictures import encode

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGE = 9_900_000
"""Bytes just below the limit of one picture."""


def chunk(kind: bytes, data: bytes) -> bytes:
    """Returns a PNG chunk with its length and CRC."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def zeros(count: int) -> bytes:
    """Returns zlib data of ``count`` or some more zero bytes, without compressing them all."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 15)
    block = 1 << 20
    head = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    blocks = -(-count // block)
    adler = (blocks * block % 65521) << 16 | 1
    return head + again * (blocks - 1) + b"\x03\x00" + struct.pack(">I", adler)


def png(width: int, height: int, depth: int, colour: int, *extra: bytes) -> bytes:
    """Returns a PNG of zeros with ``extra`` chunks before its pixels."""
    samples = {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    row = 1 + -(-width * samples * depth // 8)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    palette = chunk(b"PLTE", bytes(768)) if colour == 3 else b""
    return b"".join([PNG_SIGNATURE, header, palette, *extra, chunk(b"IDAT", zeros(row * height)), chunk(b"IEND", b"")])


def many_chunks() -> bytes:
    return png(30, 30, 8, 0, chunk(b"tEsT", b"") * 100_000)


def large_text(kind: bytes, prefix: bytes) -> bytes:
    return png(30, 30, 8, 0, chunk(kind, prefix + zeros(1_500_000_000)))


def many_texts() -> bytes:
    return png(30, 30, 8, 0, chunk(b"zTXt", b"Comment\0\0" + zeros(1 << 20)) * 60)


def webp() -> bytes:
    """Returns a lossless WebP of one colour, to which any size may be given: a pixel takes no bits."""
    content = bytearray(encode(Image.new("RGB", (16, 16), "red"), "WEBP", lossless=True))
    fields = int.from_bytes(content[21:25], "little")
    content[21:25] = (fields >> 28 << 28 | (3050 - 1) << 14 | (16383 - 1)).to_bytes(4, "little")
    return bytes(content)


def run_length_bmp(width: int, height: int, runs: bytes) -> bytes:
    """Returns a BMP in run-length encoding; pixels without a run are of colour 0."""
    size = struct.pack("<IHHI", 62 + len(runs), 0, 0, 62)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 2, 0)
    return b"BM" + size + header + bytes(8) + runs


def jpeg_parts(size: tuple[int, int], *, progressive: bool) -> tuple[bytes, bytes]:
    """Returns a JPEG of one colour without its last marker, and its last scan."""
    content = encode(Image.new("L", size, "gray"), "JPEG", progressive=progressive, quality=20)
    start = content.rindex(b"\xff\xda")
    return content[:-2], content[start:-2]


def many_scans() -> bytes:
    body, scan = jpeg_parts((3000, 3000), progressive=True)
    return body + scan * 5000 + b"\xff\xd9"


def fill_bytes() -> bytes:
    body, _ = jpeg_parts((64, 64), progressive=False)
    return body + b"\xff" * LARGE + b"\xd9"


def many_segments() -> bytes:
    body, _ = jpeg_parts((64, 64), progressive=False)
    segment = b"\xff\xe1" + struct.pack(">H", 2400) + b"Exif\0\0" + bytes(2392)
    return body[:2] + segment * 4000 + body[2:] + b"\xff\xd9"


def tiff(entries: list[tuple[int, int, int, int]], *blobs: bytes) -> bytes:
    """Returns a TIFF: ``blobs`` from offset 8, then the directory of (tag, type, count, value)."""
    data = b"".join(blobs)
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + bytes(4)


def many_strips(count: int = 1_000_000) -> bytes:
    """Returns a TIFF of one pixel a strip; one array is both the offsets and the sizes of the strips."""
    values = struct.pack("<H", 8) * count
    entries = [(256, 3, 1, 1), (257, 4, 1, count), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
               (273, 3, count, 8), (277, 3, 1, 1), (278, 4, 1, 1), (279, 3, count, 8)]  # fmt: skip
    return tiff(entries, values)


def lzma_floats(size: int = 7000, strips: int = 70) -> bytes:
    """Returns a TIFF of floats, all of whose strips are the same bytes."""
    filters = [{"id": lzma.FILTER_DELTA, "dist": 4}, {"id": lzma.FILTER_LZMA2}]
    rows = size // strips
    strip = lzma.compress(bytes(4 * size * rows), check=lzma.CHECK_NONE, filters=filters)
    strip += bytes(-len(strip) % 4)
    offsets, sizes = struct.pack("<I", 8) * strips, struct.pack("<I", len(strip)) * strips
    entries = [(256, 4, 1, size), (257, 4, 1, size), (258, 3, 1, 32), (259, 3, 1, 34925), (262, 3, 1, 1),
               (273, 4, strips, 8 + len(strip)), (277, 3, 1, 1), (278, 4, 1, rows),
               (279, 4, strips, 8 + len(strip) + len(offsets)), (339, 3, 1, 3)]  # fmt: skip
    return tiff(entries, strip, offsets, sizes)


def gif(width: int, height: int, frames: int) -> bytes:
    """Returns a GIF of one-pixel frames on a large canvas."""
    frame = b"!\xf9\x04\x08\x00\x00\x00\x00" + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02D\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame * frames + b";"


def small_bombs() -> list[bytes]:
    """Returns the pictures of a form of some 740 bytes."""
    return [webp(), run_length_bmp(49_999_999, 1, b"\x01\x00\x00\x00\x00\x01"), webp()]


BOMBS: dict[str, Callable[[], bytes]] = {
    "webp of 38 bytes": webp,
    "bmp of 68 bytes": lambda: run_length_bmp(49_999_999, 1, b"\x01\x00\x00\x00\x00\x01"),
    "bmp of runs": lambda: run_length_bmp(1_048_604, 40, b"\x1c\x01\x00\x00" * 40 + b"\x00\x01"),
    "jpeg of 5,000 scans": many_scans,
    "jpeg of fill bytes": fill_bytes,
    "jpeg of 4,000 segments": many_segments,
    "png of 100,000 chunks": many_chunks,
    "png text": lambda: large_text(b"zTXt", b"Comment\0\0"),
    "png of many texts": many_texts,
    "png profile": lambda: large_text(b"iCCP", b"profile\0\0"),
    "png xmp": lambda: large_text(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0"),
    "png of one column": lambda: png(1, 50_000_000, 8, 0),
    "png of 16 bits": lambda: png(7000, 7000, 16, 6),
    "png of a palette": lambda: png(7000, 7000, 8, 3),
    "tiff of 1,000,000 strips": many_strips,
    "tiff of floats": lzma_floats,
    "gif of 20,000 frames": lambda: gif(7000, 7000, 20_000),
    "gif of a large canvas": lambda: gif(65_535, 762, 1),
}


@cache
def bombs() -> dict[str, bytes]:
    """Returns the bombs by name."""
    return {name: make() for name, make in BOMBS.items()}
