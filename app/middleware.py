"""Around every request: its identifier, its duration, its line in the access log, and the catch-all. Pure ASGI."""

import asyncio
import logging
import os
import re
import time
from collections.abc import Iterable

from starlette.datastructures import State
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.disconnection import CLIENT_CLOSED_REQUEST
from app.logs import request_id
from app.metrics import REQUESTS
from app.problems import NotReady, render, route_path

access = logging.getLogger("fashionnet.access")
ACCEPTED_ID = re.compile(rb"[\w.:-]{1,64}")
_HEADER = b"x-request-id"
PROBES = {
    "/health/live", "/health/ready", "/metrics", "/v2/health/live", "/v2/health/ready", "/v2/models/{name}/ready",
    "/grpc.health.v1.Health/Check", "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady", "/inference.GRPCInferenceService/ModelReady",
}  # fmt: skip
"""Routes that machines ask again and again; their successes are in the log of level debug alone."""


class RequestMiddleware:
    """Gives each request an identifier, measures it and logs it.

    The identifier is the client's ``X-Request-ID`` if that is fit to be logged, else a random one. The response
    has it too.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app = app
        self.head = HeadMiddleware(app)
        self.readiness = state.readiness
        self.state = state
        self.state.in_progress = 0
        self.log_requests = state.settings.access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, identifier = time.perf_counter(), CLIENT_CLOSED_REQUEST, identify(scope["headers"])

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (_HEADER, identifier)]
                if self.readiness.closing_connections:  # has clients connect anew, to a server that stays
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        token = request_id.set(identifier.decode())
        self.state.in_progress += 1
        try:
            await (self.head if scope["method"] == "HEAD" else self.app)(scope, receive, watch)
        finally:
            self.state.in_progress -= 1
            self._count(scope, status, time.perf_counter() - start)
            request_id.reset(token)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        client = scope["client"][0] if scope.get("client") else "-"  # as of a Unix socket
        record_request(
            _pattern(scope),
            status,
            seconds,
            scope["path"],
            method=scope["method"],
            client=client,
            log=self.log_requests,
        )


class HeadMiddleware:
    """Answers a HEAD request as GET without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        get = {**scope, "method": "GET"}

        async def send_head(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        try:
            await self.app(get, receive, send_head)
        finally:
            scope["route"] = get.get("route")  # for the metrics


class CatchAllMiddleware:
    """Responds with 500 to an unforeseen error and keeps the connection usable; with 503 if the server stops.

    Starlette's own catch-all raises the error again after its response. uvicorn then closes the connection
    unannounced, and a client that sends its next request at that moment loses it.
    """

    def __init__(self, app: ASGIApp, state: State) -> None:
        self.app = app
        self.readiness = state.readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as error:
            if started:  # half a response cannot be repaired; the server closes the connection
                raise
            await render(error, route_path(scope))(scope, receive, send)
        except asyncio.CancelledError:
            if started or not self.readiness.closing_connections:
                raise
            # The server has waited long enough for the open requests.
            stopped = NotReady("The service stopped before this response was ready: send the request again.")
            await render(stopped, route_path(scope))(scope, receive, send)


class RootPathMiddleware:
    """Puts the root path before a path from which a proxy has stripped it.

    Routes, mounted files and links then work behind both kinds of proxies, and without one.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self.app = app
        self.root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        root, path = self.root_path, scope["path"]
        if path == root:  # the links of the page are relative to the slash at its end
            await RedirectResponse(f"{root}/")(scope, receive, send)
            return
        scope["root_path"], scope["path"] = root, path if path.startswith(f"{root}/") else root + path
        await self.app(scope, receive, send)


def record_request(route: str, status: int, seconds: float, path: str, *, method: str, client: str, log: bool) -> None:
    """Counts a request, and logs it if ``log``."""
    REQUESTS.labels(route, status).observe(seconds)
    if log:
        level = logging.DEBUG if status < 300 and route in PROBES else logging.INFO
        access.log(
            level, "%s %s %d in %.1f ms for %s", method, path, status, seconds * 1000, client,
            extra={"status": status, "path": path, "method": method, "seconds": seconds, "client": client},
        )  # fmt: skip


def identify(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Returns the client's request identifier if it is fit to be logged, else a random one."""
    for name, value in headers:
        if name == _HEADER and ACCEPTED_ID.fullmatch(value):
            return value
    return os.urandom(8).hex().encode()


def _pattern(scope: Scope) -> str:
    """Returns the route's pattern, never the path: paths that clients make up must not become metrics."""
    return getattr(scope.get("route"), "path", "other")
