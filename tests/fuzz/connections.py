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
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self.port), self.patience)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = time.perf_counter()
        with contextlib.suppress(ConnectionError):  # the service may refuse before it has read everything
            self._socket.sendall(request.content)
        self._socket.settimeout(self.patience if request.must_answer else SILENCE)
        try:
            answer = http.client.HTTPResponse(self._socket)
            answer.begin()
            body = answer.read()
        except (TimeoutError, ConnectionError, http.client.BadStatusLine):
            if request.must_answer:
                raise
            self.close()
            return None
        seconds = time.perf_counter() - start
        closed = answer.will_close
        if request.must_refuse:
            closed = self._is_closed()
        if closed:
            self.close()
        return Response(answer.status, answer.headers, body, seconds, closed)

    def _is_closed(self) -> bool:
        """Whether the service ends the connection within the patience."""
        try:
            while self._socket and self._socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True
