"""New connections go to the worker that has the fewest open.

All workers listen on one socket, and the kernel gives a connection to whichever asks for it first. An idle worker asks
at once and a busy one seldom, so of connections that stay open one may get most, and its core is then the limit. Here
the workers know of each other how many they have open, and one that has more than another lets that go first.
uvicorn takes an event loop of one's own (``uvicorn.run(loop=...)``), and with it the server that accepts.
"""

import asyncio
import fcntl
import mmap
import os
import socket
from collections.abc import Callable
from typing import Any

import uvloop

LOOK_AGAIN = 0.0005
LOOKS = 40
"""How often a worker that has enough looks again, after ``LOOK_AGAIN`` seconds each, whether another has taken a new
connection: the others may be busy, or stuck."""
RETRY = 1.0
"""Seconds until accepting is tried again where the system refuses it: too many open files, say; as asyncio waits."""
_FREE = 2**31 - 1


class OpenConnections:
    """How many connections each of several forked processes has open, in memory that they share.

    A process has a slot for as long as it holds the lock on one byte of the shared file, which ends with the process.

    Args:
        workers: how many processes there are; while one is replaced there may be another.
    """

    def __init__(self, workers: int) -> None:
        self._slots = 2 * (workers + 1)  # one to have and one to clear, each
        self._file = os.memfd_create("fashionnet-connections")
        os.ftruncate(self._file, 4 * self._slots)
        self._counts = memoryview(mmap.mmap(self._file, 4 * self._slots)).cast("i")
        for slot in range(self._slots):
            self._counts[slot] = _FREE
        self._own: int | None = None

    def join(self) -> None:
        """Have a slot; free those of processes that ended without ``leave``. Without a free one nothing is shared."""
        for slot in range(self._slots):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
            except OSError:
                continue
            if self._own is None:
                self._own = slot
                self._counts[slot] = 0
            else:
                self._counts[slot] = _FREE
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, slot)

    def leave(self) -> None:
        """Be waited for no longer."""
        if self._own is not None:
            self._counts[self._own] = _FREE
            self._own = None

    def opened(self) -> None:
        """Count one more of this process."""
        if self._own is not None:
            self._counts[self._own] += 1

    def closed(self) -> None:
        """Count one less."""
        if self._own is not None:
            self._counts[self._own] -= 1

    @property
    def enough(self) -> bool:
        """Whether this process has an eighth more open than that which has the fewest, or one more of a few.

        With less to spare busy workers would take turns, one connection each, and many callers at once would wait.
        """
        if self._own is None:
            return False
        own = self._counts[self._own]
        return own - min(self._counts) > own // 8


class EvenServer:
    """Accepts connections on a listening socket, but for those that are another worker's.

    It has as much of asyncio's Server as uvicorn uses.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: Callable[[], asyncio.BaseProtocol],
        listener: socket.socket,
        connections: OpenConnections,
    ) -> None:
        self._loop, self._protocol, self._listener, self._connections = loop, protocol, listener, connections
        self._connecting: set[asyncio.Task[None]] = set()
        self._descriptor = listener.fileno()
        connections.join()
        self._accepting = loop.create_task(self._accept())

    async def wait_closed(self) -> None:
        """Nothing is left to wait for."""

    def close(self) -> None:
        """Accept no more."""
        self._loop.remove_reader(self._descriptor)
        self._accepting.cancel()
        self._connections.leave()

    async def _accept(self) -> None:
        while True:
            await self._readable()
            await self._give_way()
            try:
                self._take()
            except OSError as error:
                self._loop.call_exception_handler({"message": "cannot accept a connection", "exception": error})
                await asyncio.sleep(RETRY)

    async def _readable(self) -> None:
        """Wait until somebody knocks."""
        knocked = self._loop.create_future()
        self._loop.add_reader(self._descriptor, self._open_up, knocked)
        await knocked

    def _open_up(self, knocked: "asyncio.Future[None]") -> None:
        self._loop.remove_reader(self._descriptor)  # else it would be called in every turn of the loop
        if not knocked.done():
            knocked.set_result(None)

    async def _give_way(self) -> None:
        for _ in range(LOOKS):
            if not self._connections.enough:
                return
            await asyncio.sleep(LOOK_AGAIN)

    def _take(self) -> None:
        """Accept one connection and those behind it, as far as they are this worker's."""
        while True:
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            self._connections.opened()
            task = self._loop.create_task(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)
            if self._connections.enough:
                return

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError:  # it is gone already
            self._connections.closed()


class EvenLoop(uvloop.Loop):
    """uvloop whose servers share the connections on a socket that is handed to them; the protocol tells of its end."""

    def __init__(self, connections: OpenConnections) -> None:
        super().__init__()
        self._connections = connections

    async def create_server(self, protocol_factory: Any, *args: Any, **options: Any) -> Any:
        """As asyncio's; connections on a given ``sock``, without TLS, are shared."""
        listener = options.get("sock")
        if listener is None or options.get("ssl") is not None:
            return await super().create_server(protocol_factory, *args, **options)
        listener.setblocking(False)
        listener.listen(options.get("backlog", 100))
        return EvenServer(self, protocol_factory, listener, self._connections)
