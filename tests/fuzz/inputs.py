"""The hostile requests of one run, the same for the same seed."""

import random
from collections.abc import Callable, Iterator

from tests.fuzz.forms import hostile_form, large_forms
from tests.fuzz.heads import REFUSED, hostile_head, refused
from tests.fuzz.inference import hostile_encoding, hostile_json, hostile_tensor, large_inferences
from tests.fuzz.pictures import hostile_batch, hostile_picture
from tests.fuzz.requests import Request

KINDS: dict[Callable[[random.Random], Request], int] = {
    hostile_picture: 45, hostile_batch: 5, hostile_form: 12, hostile_json: 14, hostile_tensor: 12, hostile_encoding: 4,
    hostile_head: 8,
}  # fmt: skip
"""Kinds of requests, and how many of a hundred are of each."""


def mutated(count: int, seed: int = 0) -> Iterator[Request]:
    """Yields ``count`` requests; the n-th depends on the seed and on n alone."""
    for number in range(count):
        rng = random.Random(f"{seed} {number}")  # noqa: S311 - not for secrets
        (make,) = rng.choices(list(KINDS), list(KINDS.values()))
        yield make(rng)


def bombs() -> list[Request]:
    """Returns the requests that are made by hand."""
    return [*map(refused, REFUSED), *large_inferences(), *large_forms()]
