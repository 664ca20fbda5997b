"""Several workers under gunicorn, each of which runs uvicorn (uvicorn-worker)."""

import os
import signal
from math import inf
from typing import Any, ClassVar

from fastapi import FastAPI
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.workers.base import Worker
from prometheus_client.multiprocess import mark_process_dead
from uvicorn_worker import UvicornWorker

from app.server.processes import STOP_SECONDS, uvicorn_options
from app.settings import Settings


class ServiceWorker(UvicornWorker):  # type: ignore[misc]
    """uvicorn with the service's options; stops if gunicorn's master has died, which would leave the port taken."""

    CONFIG_KWARGS: ClassVar = {
        "loop": "auto",
        "timeout_keep_alive": 5,
        "timeout_notify": -inf,  # uvicorn compares wall-clock times: a positive value fails if the clock is set back
        **uvicorn_options(),
    }

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


def serve_by_workers(app: FastAPI, settings: Settings) -> None:
    """Runs the application in ``settings.workers`` processes until the master is told to stop."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    options = {
        "bind": f"{host}:{settings.port}",
        "workers": settings.workers,
        "worker_class": ServiceWorker,
        "preload_app": True,
        "timeout": settings.worker_timeout_seconds,
        "graceful_timeout": STOP_SECONDS + int(settings.drain_seconds) + 1,
        "loglevel": settings.log_level,
        "errorlog": None,  # app/logs.py configures gunicorn's logger
        "control_socket_disable": True,
        "child_exit": _forget_metrics,
    }
    Service(app, options).run()


def _forget_metrics(_arbiter: Arbiter, worker: Worker) -> None:
    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
