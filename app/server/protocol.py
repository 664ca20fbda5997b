"""Rejects predictions under overload before their requests are parsed.

At three times the rate that the service can answer, two of three requests are rejected. If the application did that,
rejections alone would fill the cores. Here a rejection is one write of prepared bytes
(docs/decisions/0012-load-shedding.md).

This module builds on uvicorn's ``HttpToolsProtocol``, which is not documented. What it needs of that is checked at
import; if something is missing, ``app.server.processes`` serves by plain uvicorn, where the application rejects.
"""

import os
import re
import time
from email.utils import formatdate
from functools import lru_cache

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.inference.admission import Admission
from app.inference.errors import Overloaded
from app.problems import MEDIA_TYPE, RETRY_AFTER, problem_of

METHODS = {"data_received", "on_message_begin", "on_message_complete", "on_response_complete"}
ATTRIBUTES = {"app_state", "cycle", "transport", "response_complete"}
"""Set by the constructors of the protocol and of its request cycle."""
_set_attributes = {*HttpToolsProtocol.__init__.__code__.co_names, *RequestResponseCycle.__init__.__code__.co_names}
missing = (METHODS - set(dir(HttpToolsProtocol))) | (ATTRIBUTES - _set_attributes)
if missing:
    raise ImportError(f"uvicorn's HttpToolsProtocol has no {', '.join(sorted(missing))}")

PREDICT = re.compile(rb"POST /predict(?:\?[!-~]*)? HTTP/1\.1\r\n")
LENGTH = re.compile(rb"\ncontent-length[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
SPECIAL = re.compile(
    rb"\n(?:(?:transfer-encoding|expect|upgrade)[ \t]*:|connection[ \t]*:[^\n]*(?:close|upgrade))", re.IGNORECASE
)
"""Headers that decide how a request goes on; requests with one of them are left to uvicorn."""
MAX_DIGITS = 8
IDENTIFIER = re.compile(rb"\r\nx-request-id:[ \t]*([\w.:-]{1,64})[ \t]*(?=\r\n|$)", re.IGNORECASE)


class LoadSheddingProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 protocol, which also rejects ``POST /predict`` while the admission is full."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._admission: Admission | None = self.app_state.get("admission")
        self._between_requests = True
        self._unread = 0
        """Bytes of a rejected request's body that have not arrived yet."""

    def data_received(self, data: bytes) -> None:
        """Rejects the request that ``data`` begins, or gives ``data`` to uvicorn."""
        if self._unread:
            self._unread, data = max(0, self._unread - len(data)), data[self._unread :]
        if data and not self._rejects(data):
            super().data_received(data)

    def on_message_begin(self) -> None:
        """A callback of the parser."""
        self._between_requests = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """A callback of the parser."""
        super().on_message_complete()
        self._between_requests = True

    def _rejects(self, data: bytes) -> bool:
        """Rejects a request whose head is in ``data`` in one piece, if it may not wait."""
        if not (self._between_requests and self._admission and PREDICT.match(data)):
            return False
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        head, found, body = data.partition(b"\r\n\r\n")
        length = _content_length(head)
        if not found or length is None or len(body) > length or self._admission.announce():
            return False
        self._unread = length - len(body)
        self.transport.write(rejection(int(time.time())) % _identifier(head))
        self.on_response_complete()  # starts the keep-alive timeout again
        return True


def _content_length(head: bytes) -> int | None:
    """Returns the length of the body that follows ``head``; None if that is not all that decides about the body."""
    lengths = LENGTH.findall(head)
    if len(lengths) != 1 or SPECIAL.search(head) or not lengths[0].isdigit() or len(lengths[0]) > MAX_DIGITS:
        return None
    return int(lengths[0])


def _identifier(head: bytes) -> bytes:
    given = IDENTIFIER.search(head)
    return given[1] if given else os.urandom(8).hex().encode()


@lru_cache(maxsize=1)
def rejection(now: int) -> bytes:
    """Returns the response with a place for the request's identifier; ``now`` in seconds since 1970."""
    body = problem_of(Overloaded()).model_dump_json().encode()
    fields = {
        "date": formatdate(now, usegmt=True),
        "retry-after": RETRY_AFTER["Retry-After"],
        "content-length": str(len(body)),
        "content-type": MEDIA_TYPE,
        "x-request-id": "%s",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return b"HTTP/1.1 429 Too Many Requests\r\n" + lines.encode() + b"\r\n" + body
