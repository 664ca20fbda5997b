"""Around every request: its identifier, its time, its line in the access log. Pure ASGI."""

import asyncio
import itertools
import logging
import re
import time
import uuid
from collections.abc import Iterable
from functools import cache

from prometheus_client import Histogram
from starlette.datastructures import State
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.logs import request_id
from app.metrics import IN_PROGRESS, QUEUE_DEPTH, REQUESTS

access = logging.getLogger("fashionnet.access")
_ACCEPTED_ID = re.compile(rb"[\w.:-]{1,64}")
_HEADER = b"x-request-id"


class Telemetry:
    """Gives each request an identifier, or takes the caller's, and sends it back; measures; logs where it shall."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app = app
        self.state = state
        self.state.telemetry = self
        self.state.in_progress = 0
        # Drawn here and not at the import, which forked workers share.
        self.prefix = uuid.uuid4().hex[:16].encode()
        self.numbers = itertools.count(1)
        self.log_requests = state.settings.access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application for one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, identifier = time.perf_counter(), 499, self.identifier(scope["headers"])

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (_HEADER, identifier)]
            await send(message)

        token = request_id.set(identifier.decode())
        self.state.in_progress += 1
        try:
            await self.app(scope, receive, watch)
        finally:
            self.state.in_progress -= 1
            self.count(scope["method"], scope["path"], status, time.perf_counter() - start, route=_route(scope))
            request_id.reset(token)

    def identifier(self, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The caller's X-Request-ID where that is fit to be logged, else a new one."""
        for name, value in headers:
            if name == _HEADER and _ACCEPTED_ID.fullmatch(value):
                return value
        return b"%s-%x" % (self.prefix, next(self.numbers))

    def count(self, method: str, path: str, status: int, seconds: float, *, route: str) -> None:
        """Count one answered request, and log it where that is wanted; ``request_id`` is set meanwhile."""
        _requests(route, status).observe(seconds)
        if self.log_requests:
            access.info(
                "%s %s %d in %.1f ms", method, path, status, seconds * 1000,
                extra={"status": status, "path": path, "method": method, "seconds": seconds},
            )  # fmt: skip


def set_gauges(state: State) -> None:
    """Write down how much is going on at this moment."""
    IN_PROGRESS.set(state.in_progress)
    for name, predictor in state.predictors.items():
        QUEUE_DEPTH.labels(name).set(predictor.batcher.depth)


async def keep_gauges(state: State) -> None:
    """Set the gauges once a second: a scrape that another worker answers finds them fresh enough."""
    while True:
        set_gauges(state)
        await asyncio.sleep(1)


@cache
def _requests(route: str, status: int) -> Histogram:
    """The child of a route and status; there are few of both."""
    return REQUESTS.labels(route, status)


def _route(scope: Scope) -> str:
    """The route's pattern, never the path: what callers make up must not become a metric of its own."""
    route = scope.get("route")
    return getattr(route, "path", "other")
