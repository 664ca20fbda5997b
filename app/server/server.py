"""uvicorn's server, with a limit on connections, deadlines, and a stop that loses no connection."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from typing import Any

import uvicorn

from app.server.connection import Connection

resource: Any
try:
    import resource
except ImportError:  # Windows
    resource = None

SWEEP_SECONDS = 1
METHODS = {"shutdown", "startup"}
ATTRIBUTES = {"config", "server_state"}
missing = (METHODS - set(dir(uvicorn.Server))) | (ATTRIBUTES - set(uvicorn.Server.__init__.__code__.co_names))
if missing:
    raise ImportError(f"uvicorn's Server has no {', '.join(sorted(missing))}")


RESERVED_FILES = 48
"""Open files of a process that are no connections: libraries, models, metrics, pipes."""
logger = logging.getLogger("fashionnet")


def affordable(max_connections: int) -> int:
    """Returns ``max_connections``, or fewer if the process may not open so many files."""
    if resource is None:
        return max_connections
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY or files - RESERVED_FILES >= max_connections:
        return max_connections
    count: int = max(files - RESERVED_FILES, 1)
    logger.warning(
        "A process may open %d files here, which allows %d connections instead of %d: raise the limit by ulimit -n, "
        "or set FASHIONNET_MAX_CONNECTIONS.", files, count, max_connections,
    )  # fmt: skip
    return count


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
    """Accepts at most ``max_connections`` at once; the others wait in the queue of the listening socket."""

    def __init__(self, config: uvicorn.Config, max_connections: int) -> None:
        super().__init__(config)
        self.max_connections = affordable(max_connections)
        self.server_state.connections = Connections(self._changed)
        self._listening: list[socket.socket] = []
        """Duplicates of the listening sockets, which stay open while nothing is accepted."""
        self._resuming: asyncio.Task[None] | None = None
        self._stopping = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen, and to look at the time of the connections."""
        await super().startup(sockets)
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
        waiting = [connection for one in self._listening for connection in accept_all(one)]
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)
        await super().shutdown(sockets)
        self._sweeping.cancel()

    async def _sweep(self) -> None:
        """Looks once a second whether clients keep connections waiting."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
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
        """Accepts connections again."""
        loop, backlog = asyncio.get_running_loop(), self.config.backlog
        try:
            self.servers = [
                await loop.create_server(self._protocol, sock=one.dup(), backlog=backlog) for one in self._listening
            ]
        finally:
            self._resuming = None

    def _protocol(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = kind(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return protocol


def accept_all(listening: socket.socket) -> Iterable[socket.socket]:
    """Yields the connections in the queue of a listening socket, and closes it."""
    with listening:
        listening.setblocking(False)
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # there is none left
                return
            connection.setblocking(False)
            yield connection
