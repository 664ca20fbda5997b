"""Stopping without losing a request: unready first, then the server's own graceful stop."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from app.readiness import Readiness


@contextmanager
def drain_on_signal(readiness: Readiness, seconds: float) -> Iterator[None]:
    """On SIGTERM be unready for ``seconds``, in which load balancers turn away, before the server stops.

    The server's own handler, which ends the accepting and waits for open requests, is called after that. Where the
    application does not run in the main thread (tests, Ray Serve), or nobody handles it, it is not its business.
    """
    before = signal.getsignal(signal.SIGTERM)
    # Without a handler to hand on to, ours would make the process deaf to SIGTERM.
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    loop = asyncio.get_running_loop()

    def stop(signum: int, frame: FrameType | None) -> None:
        readiness.stop()
        loop.call_soon_threadsafe(loop.call_later, seconds, before, signum, frame)

    signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)
