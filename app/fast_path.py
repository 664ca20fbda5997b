"""A way past the framework for the routes that carry the load.

Routing, dependency resolution and its exit stacks are a good part of what a request costs. A POST whose
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
    """One fast route; stands in ``scope["route"]`` as a route does."""

    path: str
    """The route's pattern."""
    handler: Handler
    params: Mapping[str, str] = {}
    """What its path says in the pattern's places."""


class FastLane:
    """Pure ASGI: sends a POST to the path of one of ``lanes`` to its handler, everything else to the application."""

    def __init__(self, app: ASGIApp, lanes: Mapping[str, Lane]) -> None:
        self.app = app
        self.lanes = lanes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        lane = self.lanes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if lane is None:
            await self.app(scope, receive, send)
            return
        scope["route"], scope["path_params"] = lane, lane.params
        response = await lane.handler(Request(scope, receive, send))
        await response(scope, receive, send)
