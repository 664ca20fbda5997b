"""Load on an HTTP server: closed loop by wrk, open loop at a fixed rate by ourselves.

In the open loop a request is due at a fixed time whatever happened to those before it, and its latency counts from
then: a server that stalls cannot hide it by being asked less ("coordinated omission"). As in wrk2 the connections are a
fixed number, opened before; a request that finds none idle waits for one, and its latency runs.
"""

import math
import re
import select
import socket
import subprocess
import tempfile
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_LUA = """
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
file:close()
wrk.method = "POST"
{headers}
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("@ %d %d %d %d %d %d %d\\n", summary.requests, summary.duration, e.status,
    e.connect + e.read + e.write + e.timeout, latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
"""


_LENGTH = re.compile(rb"(?i)content-length: (\d+)")
PATIENCE = 15
"""Seconds that the last answers of an open loop are waited for."""


@dataclass(frozen=True)
class Request:
    """One request, sent again and again."""

    path: str
    content_type: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    """What it needs beside its content type."""

    def encode(self, port: int) -> bytes:
        """As it goes over the wire."""
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {self.content_type}\r\n"
            f"Content-Length: {len(self.body)}\r\n\r\n"
        )
        return head.encode() + self.body


@dataclass
class Outcome:
    """What came of a load; latencies in ms."""

    answered: int
    refused: int
    errors: int
    seconds: float
    p50: float
    p95: float
    p99: float
    statuses: dict[int, int] = field(default_factory=dict)
    late_p99: float = 0
    """How late an open loop sent its requests, in ms: large where the machine has no time for the load itself."""
    connections: int = 0

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.answered / self.seconds


def closed_loop(request: Request, port: int, connections: int, seconds: float) -> Outcome:
    """So many connections, each with its next request as soon as the last is answered; wrk, one thread."""
    with tempfile.TemporaryDirectory() as folder:
        body, script = Path(folder, "body"), Path(folder, "post.lua")
        body.write_bytes(request.body)
        headers = {"Content-Type": request.content_type} | request.headers
        lines = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in headers.items())
        script.write_text(_LUA.format(body=body, headers=lines))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{math.ceil(seconds)}s", "--timeout", "10s", "-s", str(script)]
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{port}{request.path}"], capture_output=True, text=True, check=True
        )
    found = re.search(r"@ (\d+) (\d+) (\d+) (\d+) (\d+) (\d+) (\d+)", done.stdout)
    if not found:
        raise RuntimeError(done.stdout + done.stderr)
    total, microseconds, bad, errors, p50, p95, p99 = map(int, found.groups())
    return Outcome(total - bad, bad, errors, microseconds / 1e6, p50 / 1e3, p95 / 1e3, p99 / 1e3)


def open_loop(request: Request, port: int, rate: float, seconds: float, connections: int = 256) -> Outcome:
    """So many requests a second, evenly spaced; latencies of the good answers from the time each was due.

    One thread over epoll, about 30 us a request: at the rates at hand a fraction of a core.
    """
    load = _OpenLoop(request.encode(port), port, connections)
    try:
        return load.run(rate, int(rate * seconds))
    finally:
        load.close()


class _Connection:
    """One keep-alive connection with at most one request on its way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self.buffer = b""

    def answer(self) -> int | None:
        """The status of the answer once all of it is there; None before; ConnectionError where it broke off."""
        received = self.socket.recv(65536)
        if not received:
            raise ConnectionError
        self.buffer += received
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not found or len(body) < (int(length[1]) if length else 0):
            return None
        status = int(self.buffer[9:12])
        self.buffer = b""
        return status


class _OpenLoop:
    def __init__(self, content: bytes, port: int, connections: int) -> None:
        self.content, self.port = content, port
        self.poll = select.epoll()
        self.all: dict[int, _Connection] = {}
        self.idle: deque[_Connection] = deque()
        self.waiting: deque[float] = deque()
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.lateness: list[float] = []
        self.errors = 0
        for _ in range(connections):
            self.connect()

    def run(self, rate: float, total: int) -> Outcome:
        """Send ``total`` requests at ``rate`` a second, and wait for what is still on its way."""
        start = time.perf_counter()
        for number in range(total):
            due = start + number / rate
            while (wait := due - time.perf_counter()) > 0:
                self.receive(wait)
            self.lateness.append(-wait)
            self.waiting.append(due)
            self.send()
            if number % 8 == 7:
                self.receive(0)  # late: answers must come in all the same
        sent = time.perf_counter()
        while self.on_their_way() and time.perf_counter() < sent + PATIENCE:
            self.receive(0.05)
        return self.outcome(time.perf_counter() - start)

    def on_their_way(self) -> int:
        """Requests that have no answer yet."""
        return len(self.waiting) + len(self.all) - len(self.idle)

    def send(self) -> None:
        """As many of the requests that are due as there are idle connections, on those that are idle longest.

        On the one that was answered last they would all go to a worker that refuses, because that answers soonest.
        """
        while self.waiting and self.idle:
            connection = self.idle.popleft()
            connection.due = self.waiting.popleft()
            try:
                connection.socket.send(self.content)
            except OSError:
                self.replace(connection)

    def connect(self) -> None:
        """One more connection."""
        connection = _Connection(self.port)
        self.poll.register(connection.socket, select.EPOLLIN)
        self.all[connection.socket.fileno()] = connection
        self.idle.append(connection)

    def replace(self, connection: _Connection) -> None:
        """A connection broke off with a request on its way."""
        self.errors += 1
        del self.all[connection.socket.fileno()]
        self.poll.unregister(connection.socket)
        connection.socket.close()
        self.connect()

    def receive(self, wait: float) -> None:
        """Take what has come, or comes within ``wait`` seconds; send what waited for a connection."""
        for descriptor, _ in self.poll.poll(wait):
            connection = self.all[descriptor]
            try:
                status = connection.answer()
            except OSError:
                self.replace(connection)
                continue
            if status is not None:
                self.count(connection, status)
        self.send()

    def count(self, connection: _Connection, status: int) -> None:
        """One answer."""
        self.statuses[status] += 1
        if status == 200:
            self.latencies.append(time.perf_counter() - connection.due)
        self.idle.append(connection)

    def outcome(self, seconds: float) -> Outcome:
        """What it came to; what is still on its way counts as an error."""
        good, waits = self.statuses[200], self.latencies or [math.nan]
        p50, p95, p99 = (float(np.quantile(waits, q)) * 1000 for q in (0.5, 0.95, 0.99))
        refused = sum(self.statuses.values()) - good
        errors = self.errors + self.on_their_way()
        late = float(np.quantile(self.lateness, 0.99)) * 1000
        return Outcome(good, refused, errors, seconds, p50, p95, p99, dict(self.statuses), late, len(self.all))

    def close(self) -> None:
        """Close every connection."""
        for connection in self.all.values():
            connection.socket.close()
        self.poll.close()
