"""A connection that sends bytes as they are and reads one response."""

import contextlib
import http.client
import socket
import time
from dataclasses import dataclass

from tests.fuzz.requests import Request

SILENCE = 0.3
"""Seconds after which a request that may be incomplete has no response."""


@dataclass(frozen=True)
class Response:
    """What came back; ``closed`` if the service ended the connection."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float
    closed: bool


class Connection:
    """Sends requests one after the other; keeps the connection as long as the service does.

    Args:
        port: of the service on this machine.
        patience: seconds to wait for a response.
    """

    def __init__(self, port: int, patience: float) -> None:
        self.port = port
        self.patience = patience
        self._socket: socket.socket | None = None

    def exchange(self, request: Request) -> Response | None:
        """Returns the response, or None if an incomplete request has none.

        Raises:
            OSError: a request that needs a response has none.
            http.client.HTTPException: what came is no response.
        """
        if request.is_raw:
            self.close()
        reused = self._socket is not None
        try:
            return self._exchange(request)
        except (OSError, http.client.HTTPException):
            self.close()
            if not reused:
                raise
            return self._exchange(request)  # the service may close a connection that waits for its next request
        finally:
            if request.is_raw:
                self.close()

    def close(self) -> None:
        if self._socket:
            self._socket.close()
        self._socket = None

    def _exchange(self, request: Request) -> Response | None:
        start = time.perf_counter()
        connection = self._open()
        with contextlib.suppress(ConnectionError):  # the service may refuse before it has read everything
            connection.sendall(request.content)
        connection.settimeout(self.patience if request.must_answer else SILENCE)
        try:
            answer = http.client.HTTPResponse(connection, method=request.method)
            answer.begin()
            body = answer.read()
        except (TimeoutError, ConnectionError, http.client.BadStatusLine):
            if request.must_answer:
                raise
            self.close()
            return None
        seconds = time.perf_counter() - start
        closed = is_closed(connection) if request.must_refuse else answer.will_close
        if closed:
            self.close()
        return Response(answer.status, answer.headers, body, seconds, closed)

    def _open(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self.port), self.patience)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket


def is_closed(connection: socket.socket) -> bool:
    """Whether the service ends a connection before the time-out; what it still sends is discarded."""
    try:
        while connection.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True
