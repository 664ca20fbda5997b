"""Clients that send nothing, half a head, or a head without end."""

import contextlib
import select
import selectors
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.callers import Callers, saturation
from benchmarks.faults.figures import Figure
from tests.fuzz.target import Target, start
from tests.fuzz.vitals import measure
from tests.pictures import grey_png

HALF_HEAD = b"GET /health/live HTTP/1.1\r\nHo"
DEADLINE, PATIENCE = 25.0, 40.0
"""Seconds: the service waits 10 s for a head, and accepts those beyond its most connections only then."""
HEAD = 64_000_000


def measure_connections(count: int) -> Iterator[Figure]:
    """Opens so many silent connections, and as many with half a head, beside callers at half load."""
    body = grey_png()
    with tempfile.TemporaryDirectory() as folder, start(Path(folder), workers=2) as target:
        before = measure(target.family, target.temporary)
        callers = Callers(target.port, body, saturation(target.port, body) / 2)
        with callers.running():
            time.sleep(5)
            opened = time.perf_counter()
            closed = _hold(target, count)
            ended = time.perf_counter()
            time.sleep(1)
        after = measure(target.family, target.temporary)
    part = f"{count} silent connections and {count} half heads"
    still = 2 * count - len(closed)
    yield Figure(part, f"still open after {PATIENCE:g} s", still, most=0)
    yield Figure(part, "last closed", max(closed, default=float("nan")), "s", DEADLINE)
    yield Figure(part, "p99 of others before", callers.p99(end=opened), "ms")
    yield Figure(part, "p99 of others meanwhile", callers.p99(opened, ended), "ms", 2 * callers.p99(end=opened))
    yield Figure(part, "others without an answer", len(callers.with_status(0, -1)), most=0)
    yield Figure(part, "open descriptors more than before", after.descriptors - before.descriptors, most=40)
    yield Figure(part, "memory more than before", after.megabytes - before.megabytes, "MB", 50)


def _hold(target: Target, count: int) -> list[float]:
    """Returns the seconds after which each connection was closed by the service."""
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        start_ = time.perf_counter()
        for number in range(2 * count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", target.port), 60))
            if number % 2:
                connection.sendall(HALF_HEAD)
            selector.register(connection, selectors.EVENT_READ)
        closed: list[float] = []
        while selector.get_map() and time.perf_counter() - start_ < PATIENCE:
            for key, _ in selector.select(1):
                if _has_ended(key.fileobj):  # type: ignore[arg-type]
                    selector.unregister(key.fileobj)
                    closed.append(time.perf_counter() - start_)
        return closed


def _has_ended(connection: socket.socket) -> bool:
    try:
        return not connection.recv(65536)
    except OSError:
        return True


def measure_head() -> Iterator[Figure]:
    """Sends one header field of 64 MB."""
    with tempfile.TemporaryDirectory() as folder, start(Path(folder), workers=1) as target:
        before = measure(target.family, target.temporary)
        status, sent, largest = _send_head(target)
        after = measure(target.family, target.temporary)
    part = "head of 64 MB"
    yield Figure(part, "status other than 431", 0 if status == 431 else status, most=0)
    yield Figure(part, "sent until the response came", sent / 1e6, "MB")
    yield Figure(part, "memory more, at most", max(largest, after.megabytes) - before.megabytes, "MB", 5)


def _send_head(target: Target) -> tuple[int, int, float]:
    """Returns the status, the bytes that were sent, and the most memory of the service."""
    sent, answer, largest, block = 0, b"", 0.0, b"x" * 100_000
    with socket.create_connection(("127.0.0.1", target.port), 10) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: ")
        with contextlib.suppress(OSError):
            while sent < HEAD and not select.select([connection], [], [], 0)[0]:
                sent += connection.send(block)
                if sent % 5_000_000 < len(block):
                    largest = max(largest, measure(target.family, target.temporary).megabytes)
            connection.sendall(b"\r\n\r\n")
        with contextlib.suppress(OSError):
            answer = connection.recv(65536)
    return int(answer[9:12] or 0), sent, largest
