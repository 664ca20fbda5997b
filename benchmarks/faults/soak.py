"""Mixed traffic for a long time: every response is compared with the first one to the same request."""

import json
import math
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.faults.figures import Figure
from tests.fuzz.requests import encoded, form
from tests.fuzz.target import Target, start
from tests.fuzz.vitals import measure
from tests.pictures import encode, grey_png, scene, trousers

CALLERS = 6
PERIOD = 2.0
"""Seconds between two measurements of the memory."""
WARM = 0.2
"""Part of the requests before which the memory may still grow."""


@dataclass(frozen=True)
class Mixed:
    """One kind of request."""

    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    def send(self, client: httpx.Client) -> tuple[int, bytes]:
        """Returns the status and the body of the response."""
        method = "POST" if self.body else "GET"
        response = client.request(method, self.path, content=self.body, headers=self.headers)
        return response.status_code, response.content


def kinds() -> list[Mixed]:
    """Returns the kinds of requests: formats, models, forms, tensors, explanations, galleries and errors."""
    png, json_type = {"Content-Type": "image/png"}, {"Content-Type": "application/json"}
    photo = scene("wood", size=600)[0]
    formats = [Mixed("/predict", encode(trousers(), format_), png) for format_ in ("PNG", "WEBP", "GIF", "BMP", "TIFF")]
    bodies = [form([grey_png(seed) for seed in range(count)]) for count in (1, 8, 40)]
    return [
        *(Mixed("/predict", grey_png(seed), png) for seed in range(8)),
        *formats,
        Mixed("/predict", encode(photo, "JPEG"), png),
        Mixed("/predict?model=fashionnet-deep", grey_png(9), png),
        Mixed("/predict?image=true", encode(trousers()), png),
        *(Mixed("/predict/batch", body, headers) for body, headers in bodies),
        Mixed("/explain?format=json", grey_png(), png),
        Mixed("/explain", encode(trousers(), "JPEG"), png),
        Mixed("/v2/models/fashionnet/infer", encoded(), json_type),
        Mixed("/v2/models/fashionnet/infer", encoded(shape=[64, 28, 28], data=[3] * 50_176), json_type),
        Mixed("/v2/models/fashionnet/infer", b"nonsense", json_type),
        Mixed("/gallery?rows=3&columns=4"),
        Mixed("/models"),
        Mixed("/predict", encode(trousers())[:500], png),
        Mixed("/predict", b"nonsense", png),
        Mixed("/predict?model=unknown", grey_png(), png),
        Mixed("/predict", b"x" * 10_000_001, png),
    ]


def alike(first: Any, second: Any) -> bool:
    """Whether two JSON values are the same but for the rounding of numbers: a batch adds in another order."""
    if isinstance(first, float) and isinstance(second, float):
        return math.isclose(first, second, rel_tol=1e-3, abs_tol=1e-3)
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(alike(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(alike, first, second))
    return bool(first == second)


def is_same(first: tuple[int, bytes], second: tuple[int, bytes]) -> bool:
    """Whether two responses say the same."""
    if first == second:
        return True
    try:
        return first[0] == second[0] and alike(json.loads(first[1]), json.loads(second[1]))
    except ValueError:
        return False


class Soak:
    """Mixed traffic on one service."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.kinds = kinds()
        self.references = [kind.send(target.client) for kind in self.kinds]
        self.done = self.different = self.rejected = 0
        self.memory: list[tuple[int, float]] = []
        self._lock = threading.Lock()

    def run(self, seconds: float) -> None:
        """Sends requests over several connections, and measures the memory meanwhile."""
        end = time.monotonic() + seconds
        with ThreadPoolExecutor(CALLERS) as pool:
            callers = [pool.submit(self._call, number, end) for number in range(CALLERS)]
            while time.monotonic() < end:
                time.sleep(PERIOD)
                vitals = measure(self.target.family, self.target.temporary)
                self.memory.append((self.done, vitals.megabytes))
        for caller in callers:
            caller.result()

    def _call(self, number: int, end: float) -> None:
        rng = np.random.default_rng(number)
        with httpx.Client(base_url=self.target.client.base_url, timeout=60) as client:
            while time.monotonic() < end:
                index = int(rng.integers(len(self.kinds)))
                found = self.kinds[index].send(client)
                with self._lock:
                    self.done += 1
                    self.rejected += found[0] == 429
                    self.different += found[0] != 429 and not is_same(self.references[index], found)

    def growth(self) -> float:
        """Returns the MB by which the memory grows in 100,000 requests, by a line through the measurements."""
        warm = [(done, megabytes) for done, megabytes in self.memory if done >= WARM * self.done]
        if len(warm) < 3:
            return float("nan")
        slope, _ = np.polyfit(*zip(*warm, strict=True), 1)
        return float(slope) * 1e5


def measure_soak(minutes: float) -> Iterator[Figure]:
    """Runs mixed traffic for so many minutes."""
    with tempfile.TemporaryDirectory() as folder, start(Path(folder), workers=2) as target:
        soak = Soak(target)
        before = measure(target.family, target.temporary)
        soak.run(minutes * 60)
        after = measure(target.family, target.temporary)
    part = f"mixed traffic for {minutes:g} minutes"
    yield Figure(part, "requests", soak.done)
    yield Figure(part, "responses other than the first to that request", soak.different, most=0)
    yield Figure(part, "429", soak.rejected, most=0)
    yield Figure(part, "workers replaced", len(before.workers - after.workers), most=0)
    yield Figure(part, "memory before, after the first of each request", before.megabytes, "MB")
    yield Figure(part, "memory at the end", after.megabytes, "MB")
    yield Figure(part, "growth in 100,000 requests", soak.growth(), "MB", 1)
    yield Figure(part, "open descriptors more than before", after.descriptors - before.descriptors, most=40)
