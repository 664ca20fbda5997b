"""A shorter way for the routes that carry the load.

FastAPI's routing and dependency resolution are a good part of what a small prediction costs. A POST whose path is
exactly that of a direct route goes straight to its handler. Everything else goes through FastAPI, which calls the
same handlers (docs/decisions/0009-fast-path.md).
"""

from collections.abc import Mapping
from typing import NamedTuple

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send


class DirectRoute(NamedTuple):
    """A route and the parameters of one path of it."""

    route: Route
    path_params: Mapping[str, str] = {}


class FastPathMiddleware:
    """Pure ASGI: sends a POST to the path of a direct route to its handler."""

    def __init__(self, app: ASGIApp, routes: Mapping[str, DirectRoute]) -> None:
        self.app = app
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        direct = self.routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if direct is None:
            await self.app(scope, receive, send)
            return
        scope["route"], scope["path_params"] = direct
        response = await direct.route.endpoint(Request(scope, receive, send))
        await response(scope, receive, send)
