"""Expensive requests in an open loop at three times the rate that the service can answer."""

import asyncio
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.faults.cgroup import memory_group
from benchmarks.faults.figures import Figure
from benchmarks.serving import photo
from tests.fuzz.liveness import watch_liveness
from tests.fuzz.requests import batch, picture
from tests.fuzz.target import Target, start
from tests.fuzz.vitals import measure
from tests.pictures import encode, grey_png, scene
from tests.servers import wait_until

FACTOR = 3
CONNECTIONS = 512
"""Most requests on their way; more are counted as not sent."""
PATIENCE = 60
POD_BYTES = 800 << 20
"""The limit of a pod in deploy/kubernetes."""
BUDGET_MEGABYTES = 300
"""The default of FASHIONNET_MEMORY_BYTES."""


@dataclass
class Outcome:
    """What came of a load: the seconds of each status, and the requests without a response (status 0)."""

    seconds: dict[int, list[float]] = field(default_factory=dict)
    not_sent: int = 0
    duration: float = 0

    def add(self, status: int, seconds: float) -> None:
        """Counts one request."""
        self.seconds.setdefault(status, []).append(seconds)

    @property
    def counts(self) -> Counter[int]:
        """How many requests had each status."""
        return Counter({status: len(seconds) for status, seconds in self.seconds.items()})


def requests() -> dict[str, bytes]:
    """Returns the expensive requests by name, as bytes; none keeps its connection."""
    gallery = b"GET /gallery?rows=10&columns=10&seed=1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
    explained = picture("", encode(scene("wood")[0], "JPEG"), "/explain")
    made = {
        "photos of 12 megapixels": picture("", photo()).content,
        "forms of 256 pictures": batch("", [grey_png(seed) for seed in range(256)]).content,
        "/explain": explained.content,
        "galleries of 100 images": gallery,
    }
    return {name: content.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) for name, content in made.items()}


async def exchange(port: int, content: bytes) -> int:
    """Sends a request while its response is read; returns the status, or 0 if there is none."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0
    try:
        writer.write(content)
        answer = await asyncio.wait_for(reader.read(), PATIENCE)
        return int(answer[9:12] or 0)
    except (OSError, TimeoutError, ValueError):
        return 0
    finally:
        writer.close()


async def timed(port: int, content: bytes, outcome: Outcome) -> int:
    """Adds one request to the outcome."""
    start_ = time.perf_counter()
    status = await exchange(port, content)
    outcome.add(status, time.perf_counter() - start_)
    return status


async def capacity(port: int, content: bytes, seconds: float, callers: int = 4) -> float:
    """Returns the requests a second that a few callers get answered."""
    outcome, end = Outcome(), time.perf_counter() + seconds

    async def call() -> None:
        while time.perf_counter() < end:
            await timed(port, content, outcome)

    begin = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    return outcome.counts[200] / (time.perf_counter() - begin)


async def open_loop(port: int, content: bytes, rate: float, seconds: float) -> Outcome:
    """Sends ``rate`` requests a second, whatever becomes of them."""
    outcome, tasks, begin = Outcome(), set[asyncio.Task[int]](), time.perf_counter()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0, begin + number / rate - time.perf_counter()))
        if len(tasks) >= CONNECTIONS:
            outcome.not_sent += 1
            continue
        task = asyncio.create_task(timed(port, content, outcome))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    outcome.duration = time.perf_counter() - begin
    return outcome


def recovery(port: int, content: bytes) -> float:
    """Returns the seconds until a request is answered with 200."""
    begin = time.perf_counter()
    wait_until(lambda: asyncio.run(exchange(port, content)) == 200, PATIENCE)
    return time.perf_counter() - begin


class MemoryWatch(threading.Thread):
    """Measures the most memory that a service takes, while the context lasts."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target
        self.most = 0.0
        self._ended = threading.Event()

    def __enter__(self) -> "MemoryWatch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Measures five times a second."""
        while not self._ended.wait(0.2):
            self.most = max(self.most, measure(self.target.family, self.target.temporary).megabytes)


def measure_overload(seconds: float) -> Iterator[Figure]:
    """Overloads a fresh service with each kind of request, for so many seconds, in the memory of a pod."""
    for name, content in requests().items():
        part = f"{name}, {FACTOR} x capacity for {seconds:g} s"
        with tempfile.TemporaryDirectory() as folder, memory_group(POD_BYTES) as group:
            joined = group and group.processes
            with start(Path(folder), joined, workers=2) as target:
                yield from _overload(target, part, content, seconds)
                if group:
                    yield Figure(part, "processes killed by the memory limit of 800 MiB", group.kills(), most=0)


def _overload(target: Target, part: str, content: bytes, seconds: float) -> Iterator[Figure]:
    idle = measure(target.family, target.temporary).megabytes
    asyncio.run(capacity(target.port, content, 1))
    rate = asyncio.run(capacity(target.port, content, min(seconds, 5)))
    with MemoryWatch(target) as memory, watch_liveness(target.port) as liveness:
        outcome = asyncio.run(open_loop(target.port, content, FACTOR * rate, seconds))
    seconds_back = recovery(target.port, content)
    counts = outcome.counts
    total = counts.total()
    yield Figure(part, "capacity", rate, "requests/s")
    yield Figure(part, "answered", counts[200] / outcome.duration / rate * 100, "% of capacity")
    yield Figure(part, "429", counts[429] / total * 100, "%")
    yield Figure(
        part, "other statuses, lost, or not sent", total - counts[200] - counts[429] + outcome.not_sent, most=0
    )
    yield Figure(part, "p99 of the answered", float(np.quantile(outcome.seconds.get(200, [np.nan]), 0.99)), "s", 2)
    yield Figure(part, "memory before", idle, "MB")
    yield Figure(part, "most memory above that", memory.most - idle, "MB", BUDGET_MEGABYTES)
    yield Figure(part, "longest /health/live", liveness.worst, "s", 1)
    yield Figure(part, "recovery", seconds_back, "s", 2)
