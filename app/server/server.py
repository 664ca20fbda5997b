"""uvicorn's server, with a limit on connections, deadlines, and a stop that loses no connection."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from app.metrics import MAX_CONNECTIONS, OPEN_CONNECTIONS
from app.server.connection import Connection
from app.server.members import require_members
from app.server.sockets import accept_all, ignore_new_connections

SWEEP_SECONDS = 1
RETRY_SECONDS = 1
"""Until a process that could not listen again, such as for want of files, tries it once more."""
HANDSHAKE_SECONDS = 0.05
"""For connections that are being established when the service stops to listen."""
require_members(uvicorn.Server, {"capture_signals", "shutdown", "startup"}, {"config", "server_state"})
logger = logging.getLogger("fashionnet")


class Connections(set[Any]):
    """The open connections; calls ``changed`` when one comes or goes."""

    def __init__(self, changed: Callable[[object], None]) -> None:
        super().__init__()
        self._changed = changed

    def add(self, connection: Connection) -> None:
        """Called by uvicorn when a connection was accepted."""
        super().add(connection)
        self._changed(connection)

    def discard(self, connection: object) -> None:
        """Called by uvicorn when a connection was lost."""
        super().discard(connection)
        self._changed(connection)


class Server(uvicorn.Server):
    """Accepts at most ``max_connections`` at once; the others wait in the queue of the listening socket.

    Args:
        config: uvicorn's.
        max_connections: of this process.
        others_listen: returns whether other processes keep the listening sockets when this server stops.
    """

    def __init__(
        self, config: uvicorn.Config, max_connections: int, others_listen: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(config)
        self._others_listen = others_listen
        self.max_connections = max_connections
        self.server_state.connections = Connections(self._changed)
        self._listening: list[socket.socket] = []
        """Duplicates of the listening sockets, which stay open while nothing is accepted."""
        self._resuming: asyncio.Task[None] | None = None
        self._stopping = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves SIGINT, which a terminal sends to all processes, to gunicorn's master, which tells its workers."""
        with super().capture_signals():
            if self.config.callback_notify:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen, and to look at the time of the connections."""
        await super().startup(sockets)
        MAX_CONNECTIONS.set(self.max_connections)
        bound = [one for server in self.servers for one in server.sockets]
        self._listening = [socket.fromfd(one.fileno(), one.family, one.type) for one in bound]
        self._sweeping = asyncio.create_task(self._sweep())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accepts what waits in the queue, stops to listen, and ends the connections after their responses."""
        self._stopping = True
        if self._resuming:
            await self._resuming
        for server in self.servers:
            server.close()
        for one in sockets or []:
            one.close()
        if not self._others_listen():
            for one in self._listening:
                ignore_new_connections(one)
            await asyncio.sleep(HANDSHAKE_SECONDS)
        waiting = [connection for one in self._listening for connection in accept_all(one)]
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)
        await super().shutdown(sockets)
        self._sweeping.cancel()

    async def _sweep(self) -> None:
        """Counts the connections once a second, and looks whether clients keep them waiting."""
        loop, report = asyncio.get_running_loop(), self.config.callback_notify
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            OPEN_CONNECTIONS.set(len(self.server_state.connections))
            if self._stopping and report:  # before that, uvicorn's main loop tells gunicorn that the worker lives
                await report()
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check_time(loop.time())

    def _changed(self, connection: Any) -> None:
        if self._stopping:
            if connection in self.server_state.connections:  # accepted while the server stops
                asyncio.get_running_loop().call_soon(connection.shutdown)
        elif len(self.server_state.connections) >= self.max_connections:
            for server in self.servers:
                server.close()
        elif not self._resuming and not any(server.is_serving() for server in self.servers):
            self._resuming = asyncio.create_task(self._resume())

    async def _resume(self) -> None:
        """Accepts connections again; tries until that works, unless the server stops."""
        try:
            while not self._stopping:
                if await self._listens():
                    break
                await asyncio.sleep(RETRY_SECONDS)
        finally:
            self._resuming = None

    async def _listens(self) -> bool:
        """Opens the sockets that are closed; returns whether all are open."""
        loop, backlog = asyncio.get_running_loop(), self.config.backlog
        self.servers = []
        try:
            for one in self._listening:
                self.servers.append(await loop.create_server(self._protocol, sock=one.dup(), backlog=backlog))
        except OSError as error:
            logger.warning("No connections are accepted (%s); the next attempt is in %d s.", error, RETRY_SECONDS)
            for server in self.servers:
                server.close()
        return len(self.servers) == len(self._listening)

    def _protocol(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = kind(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol
