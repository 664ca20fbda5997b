"""Load shedding where it costs least: in the server's protocol, before anything of the application runs.

At three times the rate that can be served, two of three requests are refused. Through the application that alone
would fill the cores; here a refusal takes about half as long (docs/decisions/0012-load-shedding.md). Whether the
process lives is answered here too: whoever asks shall not wait for the predictions that are being made.
It builds on uvicorn 0.54's HttpToolsProtocol: a cycle whose response is complete has the rest of its request thrown
away.
"""

import asyncio
import time
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.logs import request_id
from app.middleware import Telemetry
from app.problems import refuse
from app.schemas import Health
from app.server.transport import JoiningTransport
from app.uploads import BODY_IS_HERE

if TYPE_CHECKING:
    from app.inference.predictor import Predictors
    from app.server.connections import OpenConnections

PREDICT = b"/predict"
LIVE = b"/health/live"
_LIVE_REQUEST = b"GET %s HTTP/1." % LIVE


class _Answered:
    """Stands where uvicorn keeps the request that it answers; this one is answered."""

    response_complete: ClassVar[bool] = True
    message_event: ClassVar[asyncio.Event] = asyncio.Event()  # set where the connection ends; nobody waits for it


class SheddingProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which itself refuses what would find the queue full, and tells that the process lives.

    Args:
        options: uvicorn's own.
        connections: is told of every connection that ends.
    """

    transport: JoiningTransport  # type: ignore[assignment]

    def __init__(self, *, connections: "OpenConnections | None" = None, **options: Any) -> None:
        super().__init__(**options)
        self._counted = connections
        self.unseen = 0
        self._since = 0.0
        """When the piece was read that is being looked at."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection whose answers go out in one piece each."""
        super().connection_made(JoiningTransport(transport))  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        super().connection_lost(exc)
        if self._counted is not None:
            self._counted.closed()

    def data_received(self, data: bytes) -> None:
        """Look at what was read, in its turn; at once what goes on with a body, or asks for life."""
        if not self.unseen and (not self._idle() or data.startswith(_LIVE_REQUEST)):
            super().data_received(data)
        else:
            self.app.state.intake.take(self, data)

    def look_at(self, data: bytes, since: float) -> None:
        """Take ``data``, which was read at ``since``, if the connection has not ended meanwhile."""
        self._since = since
        if self.parser is not None:
            super().data_received(data)

    def on_response_complete(self) -> None:
        """Send what is left of a response; go on with the next request."""
        self.transport.response_ended()
        super().on_response_complete()

    def on_message_complete(self) -> None:
        """Tell the application, where it has not begun to read yet, that all there is to read is here."""
        super().on_message_complete()
        self.scope["extensions"] = {BODY_IS_HERE: {}}

    def on_headers_complete(self) -> None:
        """Answer at once where that is possible, or let the application answer."""
        response = self._answer_at_once() if self._idle() else None
        if response is None:
            super().on_headers_complete()
        else:
            self._send(response)

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _answer_at_once(self) -> Response | None:
        if self.url == PREDICT:
            return refuse() if self.parser.get_method() == b"POST" and self._queue_is_full() else None
        return _alive() if self.url == LIVE and self.parser.get_method() == b"GET" else None

    def _queue_is_full(self) -> bool:
        """Whether a prediction by the default network would be refused."""
        predictors: Predictors = self.app.state.predictors
        return not predictors[predictors.default].batcher.expect(time.perf_counter() - self._since)

    def _send(self, response: Response) -> None:
        start = time.perf_counter()
        telemetry: Telemetry = self.app.state.telemetry
        identifier = telemetry.identifier(self.headers)
        keep = self.parser.get_http_version() != "1.0" and self.parser.should_keep_alive()
        own = [*self.server_state.default_headers, (b"x-request-id", identifier)]
        token = request_id.set(identifier.decode())
        self.cycle: Any = _Answered()
        self.transport.write(_on_the_wire(response) % _lines(own if keep else [*own, (b"connection", b"close")]))
        method, path = self.parser.get_method().decode(), self.url.decode()
        telemetry.count(method, path, response.status_code, time.perf_counter() - start, route=path)
        request_id.reset(token)
        if keep:
            self.on_response_complete()
        else:
            self.transport.close()


@cache
def _alive() -> Response:
    return Response(Health(status="live").model_dump_json(), media_type="application/json")


@cache
def _on_the_wire(response: Response) -> bytes:
    """All of a response as HTTP/1.1 has it, with a place for the headers that each request has its own of."""
    head = STATUS_LINE[response.status_code] + _lines(response.raw_headers)
    return head.replace(b"%", b"%%") + b"%s\r\n" + bytes(response.body).replace(b"%", b"%%")


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%s: %s\r\n" % header for header in headers])
