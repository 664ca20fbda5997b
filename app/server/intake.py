"""What has been read from the connections and not been looked at yet.

A turn of the event loop reads all connections that have something to say. Under overload they are a hundred at once,
and to refuse them takes ten milliseconds, in which nothing else is heard. So a turn looks at what fits in a slice of
time, and the rest waits for the next ones, in its order; what cannot wait goes past it.
"""

import asyncio
import time
from collections import deque
from typing import NamedTuple, Protocol

SLICE = 0.0015
"""Seconds of one turn; enough for what all connections send where nobody is refused."""


class Connection(Protocol):
    """Whose data it is."""

    unseen: int
    """How many pieces of it wait."""

    def look_at(self, data: bytes, since: float) -> None:
        """Take ``data``, which was read at ``since`` on the clock of ``time.perf_counter``."""


class _Read(NamedTuple):
    connection: Connection
    data: bytes
    since: float


class Intake:
    """Hands on what is read, at once or as soon as there is time; for one event loop."""

    def __init__(self) -> None:
        self._waiting: deque[_Read] = deque()
        self._until: float | None = None
        """When this turn's slice ends; None where the next one to read something begins it."""

    def take(self, connection: Connection, data: bytes) -> None:
        """Let the connection look at ``data``, now or later."""
        now = time.perf_counter()
        if self._until is None:
            self._until = now + SLICE
            asyncio.get_running_loop().call_soon(self._go_on)
        if self._waiting or now > self._until:
            connection.unseen += 1
            self._waiting.append(_Read(connection, data, now))
        else:
            connection.look_at(data, now)

    def _go_on(self) -> None:
        """Begin a turn with what waits, as far as it gets; with one piece at least."""
        self._until = time.perf_counter() + SLICE
        while self._waiting:
            connection, data, since = self._waiting.popleft()
            connection.unseen -= 1
            connection.look_at(data, since)
            if time.perf_counter() > self._until:
                break
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._go_on)
        else:
            self._until = None
