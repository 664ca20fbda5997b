"""Callers that send the same request at a fixed rate and log what became of every one."""

import contextlib
import http.client
import select
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

CALLERS = 16
TIMEOUT = 60


@dataclass(frozen=True)
class Call:
    """One request: when it was sent and answered, from what port, and the status.

    Status 0 stands for a request that was sent and lost, -1 for a connection that was refused: nothing was sent.
    """

    sent: float
    answered: float
    port: int
    status: int

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.answered - self.sent


@dataclass
class Callers:
    """Callers of one service.

    Attributes:
        port: of the service on this machine.
        body: a picture.
        rate: requests a second of all callers; 0 for as many as are answered.
        reconnecting: whether each request has a connection of its own.
    """

    port: int
    body: bytes
    rate: float = 0
    reconnecting: bool = False
    calls: list[Call] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Calls while the context lasts."""
        threads = [threading.Thread(target=self._call_on, args=(number,)) for number in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._ended.set()
            for thread in threads:
                thread.join()

    def with_status(self, *statuses: int) -> list[Call]:
        """Returns the calls with one of these statuses."""
        return [call for call in self.calls if call.status in statuses]

    def p99(self, start: float = 0, end: float = float("inf")) -> float:
        """Returns the 99th percentile of the answered calls sent in a span, in ms."""
        seconds = [call.seconds for call in self.calls if call.status == 200 and start <= call.sent <= end]
        return float(np.quantile(seconds, 0.99)) * 1000 if seconds else float("nan")

    def _call_on(self, number: int) -> None:
        period = CALLERS / self.rate if self.rate else 0
        due = time.perf_counter() + period * number / CALLERS
        connection: http.client.HTTPConnection | None = None
        while not self._ended.wait(max(0, due - time.perf_counter())):
            due = max(due + period, time.perf_counter() - 1)  # what a stop has delayed is not sent all at once
            connection = self._call(connection)
        if connection:
            connection.close()

    def _call(self, connection: http.client.HTTPConnection | None) -> http.client.HTTPConnection | None:
        if connection and (self.reconnecting or is_dropped(connection.sock)):
            connection.close()
            connection = None
        sent = time.perf_counter()
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
            try:
                connection.connect()
            except OSError:
                self.calls.append(Call(sent, time.perf_counter(), 0, -1))
                time.sleep(0.05)
                return None
        port = connection.sock.getsockname()[1]
        status = _status(connection, self.body)
        self.calls.append(Call(sent, time.perf_counter(), port, status))
        if status == 0 or connection.sock is None:
            connection.close()
            return None
        return connection


def _status(connection: http.client.HTTPConnection, body: bytes) -> int:
    try:
        connection.request("POST", "/predict", body, {"Content-Type": "image/png"})
        response = connection.getresponse()
        response.read()
    except (OSError, http.client.HTTPException):
        return 0
    return response.status


def is_dropped(connection: socket.socket | None) -> bool:
    """Whether the service has closed an idle connection, as every pool of connections asks before it uses one."""
    return connection is None or bool(select.select([connection], [], [], 0)[0])


def saturation(port: int, body: bytes, seconds: float = 3) -> float:
    """Returns the requests a second that the callers get answered."""
    callers = Callers(port, body)
    with callers.running():
        time.sleep(seconds)
    return len(callers.with_status(200)) / seconds
