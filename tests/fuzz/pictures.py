"""Hostile pictures, made of the seeds by bytes and by what their format consists of."""

import random
import struct
from collections.abc import Iterator

from tests.fuzz.bombs import PNG_SIGNATURE, chunk
from tests.fuzz.mutators import Mutator, mutate_bytes, mutate_parts
from tests.fuzz.requests import Request, batch, picture
from tests.fuzz.seeds import pictures

PNG_KINDS = (b"tRNS", b"PLTE", b"gAMA", b"iCCP", b"zTXt", b"eXIf", b"acTL", b"fcTL", b"fdAT", b"IDAT", b"IHDR")
JPEG_MARKERS = (0xC0, 0xC2, 0xC4, 0xDB, 0xDD, 0xE1, 0xE2, 0xEE)
WEBP_KINDS = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"EXIF")


def mutate_png(rng: random.Random, content: bytes) -> bytes:
    """Returns a PNG of other chunks, whose CRCs are right."""
    chunks = list(_png_chunks(content))

    def invent() -> tuple[bytes, bytes]:
        return rng.choice(PNG_KINDS), mutate_bytes(rng, rng.choice(chunks)[1] or b"\0")

    return PNG_SIGNATURE + b"".join(chunk(kind, data) for kind, data in mutate_parts(rng, chunks, invent))


def _png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset = len(PNG_SIGNATURE)
    while offset < len(content):
        end = offset + 8 + int.from_bytes(content[offset : offset + 4], "big")
        yield content[offset + 4 : offset + 8], content[offset + 8 : end]
        offset = end + 4


def mutate_jpeg(rng: random.Random, content: bytes) -> bytes:
    """Returns a JPEG of other segments, whose lengths are right."""
    scan = content.index(b"\xff\xda")
    segments = list(_jpeg_segments(content, scan))

    def invent() -> tuple[int, bytes]:
        return rng.choice(JPEG_MARKERS), mutate_bytes(rng, rng.choice(segments)[1] or b"\0")

    made = mutate_parts(rng, segments, invent)
    head = (struct.pack(">BBH", 0xFF, marker, len(data) + 2 & 0xFFFF) + data for marker, data in made)
    return b"\xff\xd8" + b"".join(head) + content[scan:]


def _jpeg_segments(content: bytes, scan: int) -> Iterator[tuple[int, bytes]]:
    offset = 2
    while offset < scan:
        end = offset + 2 + int.from_bytes(content[offset + 2 : offset + 4], "big")
        yield content[offset + 1], content[offset + 4 : end]
        offset = end


def mutate_webp(rng: random.Random, content: bytes) -> bytes:
    """Returns a WebP of other chunks, whose lengths are right."""
    chunks = list(_riff_chunks(content))

    def invent() -> tuple[bytes, bytes]:
        return rng.choice(WEBP_KINDS), mutate_bytes(rng, rng.choice(chunks)[1] or b"\0")

    made = mutate_parts(rng, chunks, invent)
    body = b"".join(kind + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for kind, data in made)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def _riff_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    offset = 12
    while offset + 8 <= len(content):
        length = int.from_bytes(content[offset + 4 : offset + 8], "little")
        yield content[offset : offset + 4], content[offset + 8 : offset + 8 + length]
        offset += 8 + length + length % 2


PATHS = {"/predict": 12, "/predict?model=fashionnet": 4, "/predict?image=true": 2, "/explain": 1,
         "/explain?format=json": 1, "/explain?format=json&model=fashionnet": 1}  # fmt: skip
FORMATS: dict[str, Mutator] = {"png": mutate_png, "jpeg": mutate_jpeg, "webp": mutate_webp}


def mutate_picture(rng: random.Random) -> tuple[str, bytes]:
    """Returns the format and the content of a picture made of one of the seeds."""
    name, content = rng.choice(list(pictures().items()))
    format_ = name.split()[0]
    by_format = FORMATS.get(format_)
    if by_format and rng.random() < 0.5:
        content = by_format(rng, content)
        return format_, content if rng.random() < 0.7 else mutate_bytes(rng, content)
    return format_, mutate_bytes(rng, content)


def hostile_picture(rng: random.Random) -> Request:
    """Returns a request for the prediction or the explanation of a mutated picture."""
    format_, content = mutate_picture(rng)
    return picture(f"picture: {format_}", content, rng.choices(list(PATHS), list(PATHS.values()))[0])


def hostile_batch(rng: random.Random) -> Request:
    """Returns a request for up to 12 mutated pictures."""
    return batch("batch", [mutate_picture(rng)[1] for _ in range(rng.randrange(1, 13))])
