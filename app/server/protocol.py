"""Rejects predictions under overload before their requests are parsed.

At three times the rate that the service can answer, two of three requests are rejected. If the application did that,
rejections alone would fill the cores. Here a rejection is one write of prepared bytes
(docs/decisions/0012-load-shedding.md).
"""

import os
import re
import time
from email.utils import formatdate
from functools import cache, lru_cache

from starlette.responses import Response

from app.inference.admission import Admission
from app.inference.errors import Overloaded
from app.middleware import ACCEPTED_ID
from app.problems import MEDIA_TYPE, RETRY_AFTER, problem_of
from app.server.connection import NOTHING, Connection
from app.server.rejection import serialise

LENGTH = re.compile(rb"\ncontent-length[ \t]*:[ \t]*([^\r\n]*)", re.IGNORECASE)
SPECIAL = re.compile(
    rb"\n(?:(?:transfer-encoding|expect|upgrade)[ \t]*:|connection[ \t]*:[^\n]*(?:close|upgrade))", re.IGNORECASE
)
"""Headers that decide how a request goes on; requests with one of them are left to uvicorn."""
MAX_DIGITS = 8
IDENTIFIER = re.compile(rb"\r\nx-request-id:[ \t]*(%s)[ \t]*(?=\r\n|$)" % ACCEPTED_ID.pattern, re.IGNORECASE)


class LoadSheddingProtocol(Connection):
    """A connection that rejects ``POST /predict`` while the admission is full."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)
        self._admission: Admission | None = self.app_state.get("admission")
        self._predict = request_line(self.app_state.get("root_path", ""))
        self._skip = 0
        """Bytes of a rejected request's body that have not arrived yet."""

    def data_received(self, data: bytes) -> None:
        """Rejects the request that ``data`` begins, or gives ``data`` to the parser."""
        if self._skip:
            data = self._skip_body(data)
        if data and not self._rejects(data):
            super().data_received(data)

    def _skip_body(self, data: bytes) -> bytes:
        """Returns what of ``data`` follows the body of the rejected request."""
        self.discard(min(self._skip, len(data)))
        self._skip, data = max(0, self._skip - len(data)), data[self._skip :]
        if not self._skip:
            self.wait_for_request()
        return data

    def _rejects(self, data: bytes) -> bool:
        """Rejects a request whose head is in ``data`` in one piece, if it may not wait."""
        if self.receiving is not NOTHING or self.is_due or self.ended or self.flow.write_paused:
            return False  # the application waits for a client that does not read
        if self._admission is None or not self._predict.match(data):
            return False
        head, found, body = data.partition(b"\r\n\r\n")
        length = _content_length(head)
        if not found or length is None or len(body) > length or self._admission.announce(length):
            return False
        self.transport.write(rejection(int(time.time())) % _identifier(head))
        self.server_state.total_requests += 1
        self._skip = length - len(body)
        if self._skip:
            self.wait_for_rest()
        else:
            self.wait_for_request()
        return True


@cache
def request_line(root_path: str) -> re.Pattern[bytes]:
    """Returns the pattern of the request line of ``POST /predict``, with or without the root path."""
    return re.compile(rb"POST (?:%s)?/predict(?:\?[!-~]*)? HTTP/1\.1\r\n" % re.escape(root_path.encode()))


def _content_length(head: bytes) -> int | None:
    """Returns the length of the body after ``head``; None unless one valid Content-Length determines it."""
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
    response = Response(problem_of(Overloaded()).model_dump_json(), 429, RETRY_AFTER, MEDIA_TYPE)
    return serialise(response, (b"date", formatdate(now, usegmt=True).encode()), (b"x-request-id", b"%s"))
