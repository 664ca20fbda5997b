"""Load shedding where it costs least: in the server's protocol, before anything of the application runs.

At three times the rate that can be served, two of three requests are refused. Through the application that alone
would fill the cores; here a refusal takes about half as long (docs/decisions/0012-load-shedding.md). It builds on
uvicorn 0.54's HttpToolsProtocol: a cycle whose response is complete has the rest of its request thrown away.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.errors import MEDIA_TYPE, Overloaded, refusal
from app.telemetry import Telemetry, record
from app.transport import JoiningTransport

if TYPE_CHECKING:
    from app.connections import OpenConnections

PATH = b"/predict"


class _Refused:
    """Stands where uvicorn keeps the request that it answers; this one is answered."""

    response_complete: ClassVar[bool] = True


class SheddingProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which answers 429 itself to a prediction that would find the queue full.

    Args:
        options: uvicorn's own.
        connections: is told of every connection that ends.
    """

    transport: JoiningTransport  # type: ignore[assignment]

    def __init__(self, *, connections: "OpenConnections | None" = None, **options: Any) -> None:
        super().__init__(**options)
        self._counted = connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin a connection whose answers go out in one piece each."""
        super().connection_made(JoiningTransport(transport))  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        super().connection_lost(exc)
        if self._counted is not None:
            self._counted.closed()

    def on_response_complete(self) -> None:
        """Send what is left of a response; go on with the next request."""
        self.transport.response_ended()
        super().on_response_complete()

    def on_headers_complete(self) -> None:
        """Refuse, or let the application answer."""
        if self.url.startswith(PATH) and self._idle() and self._would_be_refused():
            self._refuse()
        else:
            super().on_headers_complete()

    def _idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _would_be_refused(self) -> bool:
        """Whether this is a prediction by the default network, and that one's queue is full."""
        predictors = getattr(getattr(self.app, "state", None), "predictors", None)
        if predictors is None or self.url != PATH or self.parser.get_method() != b"POST":
            return False
        expected: bool = predictors[predictors.default].batcher.expect()
        return not expected

    def _refuse(self) -> None:
        start = time.perf_counter()
        keep = bool(self.parser.should_keep_alive())
        self.cycle: Any = _Refused()
        self.transport.write(_response(self._identifier(), keep=keep))
        record(PATH.decode(), Overloaded.kind.status, time.perf_counter() - start)
        if keep:
            self.on_response_complete()
        else:
            self.transport.close()

    def _identifier(self) -> bytes:
        telemetry: Telemetry = self.app.state.telemetry
        return telemetry.identifier(self.headers)


def _response(identifier: bytes, *, keep: bool) -> bytes:
    """The whole answer as it goes over the wire."""
    body = refusal()
    return (
        b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: %s\r\ncontent-length: %d\r\nretry-after: %s\r\n"
        b"x-request-id: %s\r\n%s\r\n%s"
        % (
            MEDIA_TYPE.encode(),
            len(body),
            Overloaded.headers["Retry-After"].encode(),
            identifier,
            b"" if keep else b"connection: close\r\n",
            body,
        )
    )
