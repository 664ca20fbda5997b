"""A way past the framework for the route that carries the load.

Routing, dependency resolution and its exit stacks are a good part of what a request costs. A request whose
path is exactly that of a lane goes straight to the function that answers it; all else takes the framework's way,
which ends in the same function: the lane changes no answer (docs/decisions/0009-fast-lane.md).
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]


class Lane(NamedTuple):
    """One fast route: what answers ``POST path``; stands in ``scope["route"]`` as a route does."""

    path: str
    handler: Handler


class FastLane:
    """Pure ASGI: sends a POST to one of ``lanes`` to its handler, everything else to the application."""

    def __init__(self, app: ASGIApp, lanes: Mapping[str, Handler]) -> None:
        self.app = app
        self.lanes = {path: Lane(path, handler) for path, handler in lanes.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        lane = self.lanes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if lane is None:
            await self.app(scope, receive, send)
            return
        scope["route"] = lane
        response = await lane.handler(Request(scope, receive, send))
        await response(scope, receive, send)
