"""What a process does when it starts and stops: self-test, readiness, gauges, drain."""

import asyncio
import gc
import logging
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import State

from app.inference.admission import Admission
from app.inference.decoding import Decoder
from app.inference.executors import Executors
from app.inference.predictor import Predictors
from app.metrics import IN_PROGRESS, UNREADY
from app.problems import NotReady, count_problems
from app.reload import reload_on_hangup
from model.cpu import release_freed_memory

logger = logging.getLogger("fashionnet")


class Readiness:
    """Ready from the passed self-test until the service stops."""

    def __init__(self) -> None:
        self.reason: str | None = "The service is starting: its self-test has not finished yet."
        self.closing_connections = False
        self.on_settled: Callable[[], None] = lambda: None

    async def settle(self, self_test: Awaitable[None]) -> None:
        """Waits for the self-test and becomes ready, or keeps the reason why not."""
        try:
            await self_test
        except Exception:
            logger.exception("the self-test failed")
            self.reason = "The self-test inference failed; the log says how."
        else:
            self.become_ready()
        self.on_settled()

    def become_ready(self) -> None:
        """Becomes ready, unless the service stops."""
        if not self.closing_connections:
            self.reason = None

    def stop(self) -> None:
        """Becomes unready because the service stops."""
        self.reason, self.closing_connections = "The service is stopping.", True

    def leave(self) -> None:
        """Makes clients connect anew, to another worker, by ``Connection: close``. The service stays ready."""
        self.closing_connections = True

    def require(self) -> None:
        """Raises NotReady with the reason if the service is not ready."""
        if self.reason:
            raise NotReady(self.reason)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Runs the self-test while the first health checks are answered already; drains at the end."""
    state, executors = app.state, Executors.create()
    readiness: Readiness = state.readiness
    release_freed_memory()
    gc.collect()
    gc.freeze()  # what exists now lives as long as the process, and the helper that decodes shares its memory
    state.admission = Admission(state.settings.queue_size, state.settings.max_wait_seconds, state.settings.body_memory)
    decoder = Decoder(state.settings, executors.decoding)
    state.predictors = Predictors(state.models, executors, state.settings, state.admission, decoder)
    state.predictors.show_in_metrics()
    self_test = asyncio.create_task(readiness.settle(state.predictors.self_test()))
    tasks = [asyncio.create_task(work(state)) for work in (_keep_gauges, reload_on_hangup)]
    with drain_on_signal(readiness, state.settings.drain_seconds):
        yield _server_state(state)
        readiness.stop()
        for task in tasks:
            task.cancel()
        await self_test
        executors.shut_down()
        decoder.sandbox.close()


def _server_state(state: State) -> dict[str, Any]:
    """Returns what ``app.server`` needs to reject predictions itself, which lacks the headers of CORS."""
    admission = None if state.settings.cors_origins else state.admission
    return {"admission": admission, "root_path": state.settings.root_path}


@contextmanager
def drain_on_signal(readiness: Readiness, seconds: float) -> Iterator[None]:
    """On SIGTERM or SIGINT the process is unready for ``seconds`` before it stops, so that load balancers remove it.

    Then the server's own handler is called; at once if another signal comes. Nothing happens if the application does
    not run in the main thread (tests, Ray Serve) or if nobody handles the signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Without a handler to call afterwards, ours would make the process deaf to the signal.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before: dict[int, Callable[..., Any]] = {
        number: handler for number, handler in handlers.items() if callable(handler)
    }
    loop = asyncio.get_running_loop()
    timers: list[asyncio.TimerHandle] = []

    def drain(number: int, frame: FrameType | None) -> None:
        delay = 0 if timers else seconds
        for timer in timers:  # else the server would take its end for one more signal
            timer.cancel()
        timers.append(loop.call_later(delay, before[number], number, frame))

    def stop(number: int, frame: FrameType | None) -> None:
        readiness.stop()
        loop.call_soon_threadsafe(drain, number, frame)

    for number in before:
        signal.signal(number, stop)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def update_metrics(state: State) -> None:
    """Sets the gauges and counts what was rejected before the application ran."""
    IN_PROGRESS.set(state.in_progress)
    UNREADY.set(state.readiness.reason is not None)
    for predictor in state.predictors.values():
        predictor.update_metrics()
    if rejected := state.admission.take_rejected():
        count_problems("overloaded", rejected)


async def _keep_gauges(state: State) -> None:
    """Updates the metrics once a second: a scrape that another worker answers finds them fresh enough."""
    while True:
        update_metrics(state)
        await asyncio.sleep(1)
