"""A connection that sends the head of a response together with the first piece of its body.

uvicorn writes them one after the other, and uvloop sends every write at once: two system calls, two segments, and a
client that is woken twice. ASGI lets a server hold the head back until the body begins (HTTP specification,
"Response Start"), so one write carries both.
"""

import asyncio
from typing import Any

_INTERIM = b"HTTP/1.1 1"  # 100 Continue comes before the body it asks for


class JoiningTransport:
    """uvloop's or asyncio's transport as uvicorn uses it; ``response_ended`` tells it where a response ends."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self._in_body = False

    def write(self, data: bytes) -> None:
        """The head waits for what comes next; everything else goes out, with the head before it."""
        if self._in_body or data.startswith(_INTERIM):
            self._transport.write(data)
        elif self._head is None:
            self._head = data
        else:
            data, self._head, self._in_body = self._head + data, None, True
            self._transport.write(data)

    def response_ended(self) -> None:
        """A head without a body goes out too; what comes next is a head again."""
        if self._head is not None:
            self._transport.write(self._head)
            self._head = None
        self._in_body = False

    def close(self) -> None:
        """Close the connection once all is sent."""
        self.response_ended()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
