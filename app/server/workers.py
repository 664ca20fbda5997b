"""Several workers under gunicorn, each of which runs uvicorn (uvicorn-worker)."""

import asyncio
import gc
import logging
import os
import signal
import sys
from functools import partial
from math import inf
from types import FrameType
from typing import Any, ClassVar

import uvicorn
from fastapi import FastAPI
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker
from uvicorn_worker import UvicornWorker

from app.hangup import Hangup, current_hangup
from app.server.crash_loop import CrashLoop
from app.server.ended_workers import merge_ended
from app.server.processes import STOP_SECONDS, make_server, uvicorn_options
from app.server.sockets import bind
from app.server.worker_state import REPLACED, WorkerState
from app.settings import GRPC_STOP_SECONDS, Settings, metrics_folder

try:
    from app.server.master import Master

    MASTER: Any = Master
    INCOMPATIBILITY = ""
except (ImportError, AttributeError) as error:  # another gunicorn: SIGHUP replaces the workers, but not their models
    MASTER, INCOMPATIBILITY = Arbiter, str(error)

logger = logging.getLogger("fashionnet")


class ServiceWorker(UvicornWorker):  # type: ignore[misc]
    """uvicorn with the service's options. Stops when gunicorn's master has died; else it would keep the port open."""

    CONFIG_KWARGS: ClassVar = {
        "loop": "auto",
        "timeout_notify": -inf,  # uvicorn compares wall-clock times: a positive value fails if the clock is set back
        **uvicorn_options(),
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.models = self.app.wsgi().state.models
        self.state = WorkerState()

    def init_signals(self) -> None:
        """Leaves SIGHUP, which a terminal sends to all processes when it closes, to the master."""
        super().init_signals()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def handle_exit(self, _signal: int, _frame: FrameType | None) -> None:
        """Begins to stop, or hurries a stop that has begun. Called on SIGQUIT, which gunicorn's master sends."""
        signal.raise_signal(signal.SIGTERM)

    def run(self) -> None:
        """Serves; exits with status 1 if that fails. On uvicorn's status 3 gunicorn would end the whole service."""
        self.notify()  # without a first report, gunicorn waits for ever for a worker that hangs while it starts
        try:
            super().run()
        except SystemExit as end:
            sys.exit(1 if end.code else 0)
        except Exception:
            logger.exception("a worker failed")
            sys.exit(1)

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = make_server(self.config, self.wsgi.state.settings, others_listen=lambda: not self.state.service_ends)
        self._install_sigquit_handler()
        self._take_part_in_replacement(server)
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def _take_part_in_replacement(self, server: uvicorn.Server) -> None:
        """Reports when this worker is ready, and stops without a drain when another one takes its place."""
        readiness = self.wsgi.state.readiness
        readiness.on_settled = lambda: self.state.report(ready=not readiness.reason)

        def leave() -> None:
            readiness.leave()
            server.should_exit = True

        asyncio.get_running_loop().add_signal_handler(REPLACED, leave)

    async def callback_notify(self) -> None:
        """Tells the master that this worker lives; called every second."""
        await super().callback_notify()
        if os.getppid() != self.ppid:
            signal.raise_signal(signal.SIGTERM)


class Service(BaseApplication):  # type: ignore[misc]
    """gunicorn with an application that is loaded before the workers fork.

    Args:
        app: the application.
        options: gunicorn's settings.
    """

    def __init__(self, app: FastAPI, options: dict[str, Any]) -> None:
        self.app = app
        self.options = options
        super().__init__()

    def load_config(self) -> None:
        """Gives the options to gunicorn, which calls this method."""
        for name, value in self.options.items():
            self.cfg.set(name, value)

    def load(self) -> FastAPI:
        """Returns the application to gunicorn, which calls this method."""
        return self.app

    def run(self) -> None:
        """Runs until the master is told to stop."""
        MASTER(self).run()


def serve_by_workers(app: FastAPI, settings: Settings) -> None:
    """Runs the application in ``settings.workers`` processes until the master is told to stop."""
    if INCOMPATIBILITY:
        logger.warning(
            "This version of gunicorn is not supported (%s), so models cannot be reloaded: install the versions of "
            "requirements/serve.txt.",
            INCOMPATIBILITY,
        )
    crash_loop = CrashLoop()
    grpc_seconds = GRPC_STOP_SECONDS if settings.grpc_port else 0
    options = {
        "bind": _address(settings),
        "workers": settings.workers,
        "worker_class": ServiceWorker,
        "preload_app": True,
        "timeout": settings.worker_timeout_seconds,
        "keepalive": settings.keep_alive_seconds,
        "graceful_timeout": STOP_SECONDS + int(settings.drain_seconds) + 1 + grpc_seconds,
        "loglevel": settings.log_level,
        "errorlog": None,  # app/logs.py configures gunicorn's logger
        "control_socket_disable": True,
        "when_ready": partial(_handle_signals, current_hangup()),
        "pre_fork": crash_loop.before_start,
        "post_fork": _end_if_told_already,
        "child_exit": partial(_after_end, crash_loop),
    }
    gc.collect()
    gc.freeze()  # else each worker's first collection writes to all objects, and so copies the memory that they share
    Service(app, options).run()


def _address(settings: Settings) -> str:
    """Returns what gunicorn listens on if systemd passes no sockets."""
    if settings.uds:
        return f"fd://{bind(settings.uds).detach()}"
    return f"{settings.url_host}:{settings.port}"


def _handle_signals(hangup: Hangup | None, arbiter: Arbiter) -> None:
    """Makes SIGINT stop the service as SIGTERM does, and SIGHUP too if the terminal has closed.

    By default gunicorn drops open requests on SIGINT. Here only a second SIGINT does.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, arbiter.signal)
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGINT, stop)
    if hangup:
        hangup.reload = partial(arbiter.signal, signal.SIGHUP, None)
        signal.signal(signal.SIGHUP, hangup)


def _end_if_told_already(arbiter: Arbiter, _worker: Worker) -> None:
    """Ends a new worker that got SIGTERM when it still had the master's handler, which only queues signals."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while not arbiter.SIG_QUEUE.empty():
        if arbiter.SIG_QUEUE.get() == signal.SIGTERM:
            sys.exit()


def _after_end(crash_loop: CrashLoop, _arbiter: Arbiter, worker: Worker) -> None:
    crash_loop.after_end(worker)
    if folder := metrics_folder():
        merge_ended(folder, worker.pid)
