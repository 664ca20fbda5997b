"""Mutators of bytes and of lists: each takes the random numbers and something well-formed."""

import random
from collections.abc import Callable, Sequence
from typing import Any

from tests.fuzz.seeds import pictures

EDGES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
HEADER = 128
"""Bytes at the beginning that hold most of the sizes and offsets."""
Mutator = Callable[[random.Random, bytes], bytes]


def flip(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 32))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(1, len(content) + 1)]


def splice(rng: random.Random, content: bytes) -> bytes:
    other = rng.choice(list(pictures().values()))
    return content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]


def repeat(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content))
    piece = content[start : start + rng.choice((1, 4, 64, 1024))]
    return content[:start] + piece * rng.choice((0, 2, 2, 100)) + content[start + len(piece) :]


def insert(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + rng.randbytes(rng.choice((1, 4, 64))) + content[start:]


def put_edge(rng: random.Random, content: bytes) -> bytes:
    """Writes an integer at the edge of its range over some bytes, most often in the header."""
    changed = bytearray(content)
    size, order = rng.choice((1, 2, 4)), rng.choice(("little", "big"))
    offset = rng.randrange(min(len(content), HEADER) if rng.random() < 0.8 else len(content))
    value = rng.choice(EDGES) & (1 << 8 * size) - 1
    changed[offset : offset + size] = value.to_bytes(size, order)
    return bytes(changed)


BYTES: Sequence[Mutator] = (flip, truncate, splice, repeat, insert, put_edge, put_edge)


def mutate_bytes(rng: random.Random, content: bytes) -> bytes:
    """Returns ``content`` after one to four mutators that know no format."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        content = rng.choice(BYTES)(rng, content) or b"\0"
    return content


def mutate_parts(rng: random.Random, parts: list[Any], invent: Callable[[], Any]) -> list[Any]:
    """Returns the parts with some dropped, doubled, swapped, invented, or repeated many times."""
    changed = list(parts)
    for _ in range(rng.choice((1, 1, 2, 4))):
        here, there = rng.randrange(len(changed) + 1), rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0:
                changed[here : here + 1] = []
            case 1:
                changed[here:here] = changed[there : there + 1]
            case 2:
                changed[here:here], changed[there : there + 1] = changed[there : there + 1], []
            case 3:
                changed.insert(here, invent())
            case 4:
                changed[here:here] = changed[there : there + 1] * rng.choice((3, 300))
    return changed
