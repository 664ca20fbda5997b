"""The assembly of the service, on one screen."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from app import VERSION, problems
from app.drain import drain_on_signal
from app.fast_path import FastLane
from app.inference.evaluator import Evaluator
from app.inference.models import Served, require_served
from app.inference.predictor import Executors, Predictors
from app.logs import configure, log_ignored_variables
from app.metrics import worker_metrics
from app.middleware import Telemetry, keep_gauges
from app.readiness import Readiness
from app.routes import evaluate, explain, gallery, health, page, predict, v2
from app.server.intake import Intake
from app.settings import Settings, SettingsError, read_settings
from app.uploads import Limits
from model import FashionMnist

handed_down: dict[Settings, list[Served]] = {}
"""What ``python -m app`` has read and made for its workers: all, also one that takes a dead one's place, answer with
the same weights, whatever lies in the folder by then."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service over ``settings``, which default to the environment's.

    Ends the process with one sentence and status 1 where a setting or an artefact is wrong: it is what uvicorn,
    Ray Serve and ``python -m app`` call, and none of them can do better than show it.
    """
    try:
        settings = settings or read_settings()
    except SettingsError as error:
        sys.exit(f"fashionnet: {error}")
    configure(settings)
    served = handed_down.get(settings)
    if served is None:  # else the parent process has warned already
        log_ignored_variables()
    return assemble(settings, served or require_served(settings))


def assemble(settings: Settings, served: list[Served]) -> FastAPI:
    """The application over what is ``served``."""
    app = FastAPIOffline(
        title="FashionNet",
        version=VERSION,
        summary="Classifies pictures of clothes into the ten classes of Fashion-MNIST.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,  # behind a proxy the redirect would lead to another scheme and path
        telemetry=telemetry(settings),
        license_info={"name": "MIT", "identifier": "MIT"},
    )
    app.state.settings = settings
    app.state.served = served
    app.state.readiness = Readiness()
    app.state.intake = Intake()
    app.state.evaluator = Evaluator(FashionMnist(settings.data_dir))
    app.state.upload_limits = Limits.of_one(settings)
    problems.install(app)
    for routes in (predict, explain, evaluate, gallery, health, page, v2):
        app.include_router(routes.router)
    page.mount(app)
    app.middleware_stack = surround(app, settings)
    return app


def surround(app: FastAPI, settings: Settings) -> ASGIApp:
    """What is ours around what is the framework's; the first to see a request is the outermost, written first."""
    inner = app.build_middleware_stack()
    # The framework traces only what takes its own way.
    if settings.tracing:
        return Telemetry(inner, app.state)
    lanes = predict.LANES | v2.lanes(one.card.name for one in app.state.served)
    return Telemetry(problems.LastResort(FastLane(inner, lanes)), app.state)


def telemetry(settings: Settings) -> TelemetryConfig:
    """FastAPI's own OpenTelemetry: off, or configured by the standard variables ``OTEL_*``."""
    if settings.tracing:
        return {"auto_configure": True, "metrics": False, "logs": False}
    return {"tracing": False, "metrics": False, "logs": False}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Let the self-test of the engines run while the first health checks are answered already."""
    executors = Executors.create()
    readiness: Readiness = app.state.readiness
    app.state.predictors = Predictors(app.state.served, executors, app.state.settings)
    self_test = asyncio.create_task(readiness.settle(app.state.predictors.self_test()))
    gauges = asyncio.create_task(keep_gauges(app.state))
    gc.collect()
    gc.freeze()
    with worker_metrics(), drain_on_signal(readiness, app.state.settings.drain_seconds):
        yield
        readiness.stop()
        gauges.cancel()
        await self_test
        executors.shut_down()
