"""One HTTP/1.1 connection of uvicorn's, with bounds on what a client can make the server keep and wait for.

uvicorn bounds neither the head of a request nor the time that it takes, and closes a connection although the client
still sends (docs/decisions/0025-connections.md).
"""

import asyncio
from collections.abc import Callable, Sized
from itertools import chain
from math import inf
from typing import ClassVar

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.middleware import identify
from app.problems import ServiceError, render
from app.server.members import require_members
from app.server.rejection import HeadTooLarge, InvalidHost, MalformedRequest, SlowHead, serialise

METHODS = {
    "_start_asgi_task", "connection_made", "data_received", "on_headers_complete", "on_message_begin",
    "on_message_complete", "on_response_complete", "shutdown",
}  # fmt: skip
ATTRIBUTES = {
    "app_state", "connections", "cycle", "disconnected", "flow", "headers", "keep_alive", "message_event", "parser",
    "pipeline", "response_complete", "response_started", "server_state", "timeout_keep_alive", "transport",
    "write_paused",
}  # fmt: skip
"""Set by the constructors of the protocol, of its request cycle and of its flow control."""
require_members(HttpToolsProtocol, METHODS, ATTRIBUTES, RequestResponseCycle, FlowControl)

MAX_HEAD = 64 * 1024
"""Most bytes of a request line with its header fields, of trailers, and of what frames a chunk."""
MAX_FIELDS = 100
"""Most header fields of a request, and most trailers."""
HEAD_PIECE = 4096
"""Bytes that are parsed at once where heads are expected: so many requests may be pipelined."""
MAX_UNREAD = 100_000_000
"""Bytes that are read and discarded after an early response."""
VERSIONS = {"1.0", "1.1"}

NOTHING, HEAD, BODY = range(3)
"""What of a request is being received."""


class ClosingTransport:
    """The transport as uvicorn uses it; the connection decides how it closes."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.close = close
        self.closing = False
        self._transport = transport

    def is_closing(self) -> bool:
        """Returns whether nothing more may be written."""
        return self.closing or self._transport.is_closing()


class PipelineFlow(FlowControl):
    """Flow control that reads nothing while a request waits for the response to an earlier one.

    uvicorn reads on after each response. A long pipeline then lets in the body of its last request without a limit.
    """

    def __init__(self, transport: asyncio.Transport, pipeline: Sized) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        """Reads on unless a request waits."""
        if not self._pipeline:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with limits and deadlines. ``app.server.server`` calls ``check_time`` once a second."""

    idle_seconds: ClassVar[float] = 10
    """Maximum time to the first byte of the first request."""
    head_seconds: ClassVar[float] = 10
    """Maximum time to receive a request's head, from its first byte."""
    write_seconds: ClassVar[float] = 60
    """Maximum time without progress while a response is sent."""
    unread_idle_seconds: ClassVar[float] = 5
    unread_seconds: ClassVar[float] = 30
    """Maximum time for the rest of a request that has its response already: between two reads, and in all."""
    idle_close_delay: ClassVar[float] = 0.5
    """How long an idle connection stays open for a request that is on its way when the server stops."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.receiving = NOTHING
        self._deadline = inf
        """When the client has kept the server waiting for too long; infinite while the server is at work."""
        self._head_bytes = 0
        """Bytes received since the last piece that contained a part of a body or the end of a request."""
        self._uncounted = 0
        """Bytes of that piece. A head may begin in it."""
        self._piece = 0
        """Bytes of the latest piece."""
        self._upgrading = False
        """Whether the head requests another protocol. It is then parsed again without the field Upgrade."""
        self._unread = 0
        """Bytes discarded after an early response."""
        self._unread_deadline: float | None = None
        self.ended = False
        """Whether nothing more of what the client sends is parsed."""
        self._unparsed = b""
        """Bytes that were received while a request waits for the response to an earlier one."""
        self._last_response = b""
        """A rejection that ends the connection, to be sent after the responses that are due."""
        self.stopping = False
        self._unsent = 0
        self._unsent_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A callback of the transport."""
        super().connection_made(transport)
        self._socket = transport
        self._facade = ClosingTransport(transport, self._close)
        self.transport = self._facade  # type: ignore[assignment]
        self.flow = PipelineFlow(transport, self.pipeline)
        self._deadline = self.loop.time() + self.idle_seconds

    def data_received(self, data: bytes) -> None:
        """Parses ``data`` in pieces that do not exceed the limit of a head."""
        if self._unread_deadline is not None:
            self.discard(len(data))
        if self.ended:
            return
        if self.pipeline:
            self._unparsed += data
        else:
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Parses until a request has to wait for the response to an earlier one; keeps the rest."""
        before = self.receiving
        while data and not self.pipeline:
            room = min(MAX_HEAD - self._head_bytes, MAX_HEAD if self.receiving is BODY else HEAD_PIECE)
            piece, data = data[:room], data[room:]
            self._piece = len(piece)
            self._head_bytes += self._piece
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._head_without_upgrade() + piece[upgrade.args[0] :] + data
            except httptools.HttpParserError as error:
                self._reject(error.__context__ if isinstance(error.__context__, ServiceError) else MalformedRequest())
                return
            if self._head_bytes >= MAX_HEAD:
                self._reject(HeadTooLarge(MAX_HEAD, MAX_FIELDS))
                return
        self._unparsed = data
        if self.receiving is HEAD:
            self._wait_for_head(before, piece)

    def on_message_begin(self) -> None:
        """A callback of the parser."""
        self.receiving = HEAD
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A callback of the parser: checks the head and starts the application."""
        self._check_head()
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise MalformedRequest
            self._upgrading = True
            return
        super().on_headers_complete()  # raises for some targets
        self.receiving, self._deadline = BODY, inf
        self._head_bytes, self._uncounted = 0, self._piece
        self.headers = []  # for the trailers, which nobody reads
        if self.stopping:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A callback of the parser."""
        self._head_bytes, self._uncounted = 0, self._piece
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A callback of the parser."""
        if self._upgrading:
            return
        if self.headers:
            self._check_size()
        super().on_message_complete()
        self.receiving = NOTHING
        self._head_bytes, self._uncounted = 0, self._piece
        if self.cycle.response_complete:
            self.wait_for_request()

    def on_response_complete(self) -> None:
        """Called by uvicorn after each response: continues with the next request, or waits for one.

        uvicorn starts a timer here, and cancels it with the next request. A deadline costs less.
        """
        self.server_state.total_requests += 1
        if self._facade.closing or self._socket.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._last_response:
            self._write_last_response()
        elif self.receiving is BODY:
            self.wait_for_rest()
        elif self.receiving is NOTHING:
            self.wait_for_request()
        if not self.pipeline:
            self._read_on()

    def _read_on(self) -> None:
        """Continues with what comes after the latest request, now that the application has got that."""
        self.flow.resume_reading()
        data, self._unparsed = self._unparsed, b""
        if data and not self.ended:
            self._parse(data)
        elif self.receiving is HEAD and self._deadline == inf:
            self._deadline = self.loop.time() + self.head_seconds

    def shutdown(self) -> None:
        """Called by the server when it stops: closes the connection after the response that is due.

        A client may have sent its next request on an idle connection already, so that closes a moment later.
        """
        self.stopping = True
        if self.is_due:
            super().shutdown()
        else:
            self.loop.call_later(self.idle_close_delay, self._close_if_idle)

    def check_time(self, now: float) -> None:
        """Ends the connection if the client has kept it waiting for too long."""
        if now >= self._deadline:
            self._deadline = inf
            if self.receiving is HEAD and not self.transport.is_closing():
                self._reject(SlowHead())
            else:
                self._socket.close()
        self._check_writing(now)

    def _check_writing(self, now: float) -> None:
        before, self._unsent = self._unsent, self._socket.get_write_buffer_size()
        if not before or self._unsent < before:
            self._unsent_since = now
        elif now - self._unsent_since >= self.write_seconds:
            self._socket.abort()

    def _check_head(self) -> None:
        """Raises the error of a head that was parsed, if it has one."""
        self._check_size(len(self.url))
        version, hosts = self.parser.get_http_version(), [name for name, _ in self.headers].count(b"host")
        if version not in VERSIONS:
            raise MalformedRequest
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            raise InvalidHost

    def _check_size(self, size: int = 0) -> None:
        """Raises HeadTooLarge if there are too many fields, or too many bytes in them and the ``size`` beside them."""
        if self._head_bytes + self._uncounted > MAX_HEAD:
            size += sum(map(len, chain.from_iterable(self.headers)))
        if len(self.headers) > MAX_FIELDS or size > MAX_HEAD:
            raise HeadTooLarge(MAX_HEAD, MAX_FIELDS)

    def _wait_for_head(self, before: int, piece: bytes) -> None:
        """Sets the deadline of a head that began with the latest data, and rejects HTTP/0.9, which has no head."""
        if before is not HEAD or self._deadline == inf:
            self._deadline = inf if self.pipeline else self.loop.time() + self.head_seconds
        if piece.endswith(b"\n") and self.parser.get_http_version() == "0.0":  # a request line without a version
            self._reject(MalformedRequest())

    def _head_without_upgrade(self) -> bytes:
        """Returns the head that was parsed without ``Upgrade``, which this server ignores."""
        self._upgrading, self._head_bytes = False, 0
        line = b"%s %s HTTP/%s\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = (b"%s: %s\r\n" % field for field in self.headers if field[0] != b"upgrade")
        return line + b"".join(fields) + b"\r\n"

    def wait_for_request(self) -> None:
        """Begins to wait for the next request; closes instead if the server stops."""
        if self.stopping:
            self._socket.close()
        self._unread_deadline, self._deadline = None, self.loop.time() + self.timeout_keep_alive

    def wait_for_rest(self) -> None:
        """Begins to discard the rest of a request, so that its client, which still sends, gets the response."""
        now = self.loop.time()
        self._unread, self._unread_deadline = 0, now + self.unread_seconds
        self._deadline = now + self.unread_idle_seconds
        self.flow.resume_reading()

    def discard(self, size: int) -> None:
        """Counts discarded bytes, and closes past the limit."""
        self._unread += size
        self._deadline = min(self.loop.time() + self.unread_idle_seconds, self._unread_deadline or inf)
        if self._unread > MAX_UNREAD:
            self.ended = True
            self._socket.close()

    @property
    def is_due(self) -> bool:
        """Returns whether a response is due."""
        return self.cycle is not None and not self.cycle.response_complete

    def _reject(self, error: Exception) -> None:
        """Ends the connection with a problem, in the place of the response to the request that is being received."""
        if self.receiving is BODY and not self._withdraw():
            self.transport.close()
            return
        self.ended = True
        known = self.receiving is not NOTHING
        path, fields = (self._path(), self.headers) if known else ("", [])
        self._last_response = serialise(
            render(error, path),
            *self.server_state.default_headers,
            (b"x-request-id", identify(fields)),
            (b"connection", b"close"),
        )
        self.receiving, self._deadline = BODY, inf  # as if a body came: `_close` discards what the client still sends
        if not self.is_due:
            self._write_last_response()

    def _path(self) -> str:
        return self.url.decode("latin-1").removeprefix(self.app_state.get("root_path", ""))

    def _withdraw(self) -> bool:
        """Takes the request that is being received from the application; returns False if that has begun to respond."""
        if self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()  # the application has not got it yet
            return True
        started = self.cycle.response_started
        self.cycle.disconnected = self.cycle.response_complete = True
        self.cycle.message_event.set()
        return not started

    def _write_last_response(self) -> None:
        self._socket.write(self._last_response)
        self._close()

    def _close(self) -> None:
        """Closes; if the client still sends, discards that for a while first: a reset would destroy the response."""
        still_sends = self.receiving is not NOTHING or self.pipeline or self._unparsed
        self.pipeline.clear()
        self._unparsed = b""
        if self.transport.is_closing() or not still_sends or not self._socket.can_write_eof():
            self._socket.close()
            return
        self.ended = self._facade.closing = True
        self._socket.write_eof()
        self.wait_for_rest()

    def _close_if_idle(self) -> None:
        if self.is_due or self.ended:
            return
        if self.receiving is HEAD:
            self._reject(SlowHead())
        elif self.receiving is NOTHING:
            self._socket.close()
