"""Ends the work for a client that has disconnected."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

CLIENT_CLOSED_REQUEST = 499
"""The status of a request whose client has disconnected (nginx's). Nobody reads it; logs and metrics have it."""

Result = TypeVar("Result")


async def cancel_on_disconnect(
    request: Request, work: Coroutine[Any, Any, Result], arrived: asyncio.Event | None = None
) -> Result:
    """Returns the result of ``work``; raises ClientDisconnect after cancelling it if the client disconnected.

    The server cancels nothing by itself. Watching takes some 20 us, so only slow work is worth it.

    Args:
        request: of the client.
        work: what it waits for.
        arrived: is set once the body is complete, if ``work`` reads it; until then ``work`` notices by itself.
    """
    working = asyncio.ensure_future(work)
    disconnected = asyncio.ensure_future(_wait_for_disconnect(request, arrived))
    try:
        await asyncio.wait((working, disconnected), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return await working
    finally:
        working.cancel()
        disconnected.cancel()


async def _wait_for_disconnect(request: Request, arrived: asyncio.Event | None) -> None:
    if arrived:
        await arrived.wait()
    await request.receive()
