"""One process under uvicorn, or several workers under gunicorn.

gunicorn's master loads the application once and forks the workers, which share its memory; it replaces a worker that
ends or hangs, and stops all of them on SIGTERM (docs/decisions/0021-processes.md).
"""

import contextlib
import logging
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from fastapi import FastAPI

from app.connections import affordable_connections
from app.instance import advertised
from app.server.sockets import open_sockets
from app.settings import Settings, inherited_descriptors

try:
    from app.server.protocol import LoadSheddingProtocol
    from app.server.server import Server

    HTTP: Any = LoadSheddingProtocol
    INCOMPATIBILITY = ""
except (ImportError, AttributeError) as error:  # another uvicorn, or no httptools
    HTTP, INCOMPATIBILITY = "auto", str(error)

logger = logging.getLogger("fashionnet")

STOP_SECONDS = 30
"""Seconds that open requests get after the service was told to stop."""
STARTUP_FAILURE = 3


def serve(app: FastAPI, settings: Settings) -> None:
    """Runs the application until the process is told to stop."""
    if INCOMPATIBILITY:
        logger.warning(
            "This version of uvicorn is not supported (%s), so connections and heads of requests have no limits: "
            "install the versions of requirements/serve.txt.",
            INCOMPATIBILITY,
        )
    if settings.processes < settings.workers:
        logger.warning("This system cannot fork: one worker runs instead of %d.", settings.workers)
    with advertised(settings):
        if settings.processes == 1:
            serve_by_one_process(app, settings)
        else:
            from app.server.workers import serve_by_workers  # gunicorn runs on Unix alone

            serve_by_workers(app, settings)


def serve_by_one_process(app: FastAPI, settings: Settings) -> None:
    """Runs the application in this process; exits with 3, as uvicorn does, if it cannot start."""
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,  # app/logs.py configures uvicorn's loggers
        timeout_keep_alive=settings.keep_alive_seconds,
        **uvicorn_options(),
    )
    server = make_server(config, settings, others_listen=lambda: bool(inherited_descriptors()))
    with contextlib.suppress(KeyboardInterrupt):
        server.run(open_sockets(settings))
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def make_server(config: uvicorn.Config, settings: Settings, others_listen: Callable[[], bool]) -> uvicorn.Server:
    """Returns the server of one process; uvicorn's own if that is not the one that ours builds on."""
    return uvicorn.Server(config) if HTTP == "auto" else Server(config, affordable_connections(settings), others_listen)


def uvicorn_options() -> dict[str, Any]:
    """Returns the options of uvicorn that both ways of serving have in common."""
    return {
        "http": HTTP,
        "ws": "none",
        "access_log": False,  # the service has its own
        "server_header": False,
        "proxy_headers": False,  # app/main.py has a setting for it
        "timeout_graceful_shutdown": STOP_SECONDS,
    }
