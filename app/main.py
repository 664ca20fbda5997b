"""The assembly of the service."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from fastapi_offline import FastAPIOffline
from starlette.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app import VERSION
from app.fast_path import FastPathMiddleware
from app.inference.evaluator import Evaluator
from app.inference.models import ServedModel, load_models, log_models
from app.keys import KeyFileError, KeyMiddleware, Keys
from app.lifecycle import Readiness, lifespan
from app.logs import configure, logger
from app.middleware import CatchAllMiddleware, RequestMiddleware, RootPathMiddleware
from app.openapi import TAGS, offer_models
from app.problems import add_exception_handlers
from app.routes import evaluate, explain, gallery, health, models, page, predict, v2, v2_metadata
from app.settings import Settings, SettingsError, environment_warnings, read_settings
from app.uploads import Limits
from model import FashionMnist
from model.errors import ArtifactError


def create_app(settings: Settings | None = None) -> FastAPI:
    """Returns the service for ``settings``; the default is those of the environment.

    Ends the process with one sentence and status 1 if a setting or an artefact is wrong: servers call this function
    and cannot do better than show the sentence.
    """
    try:
        settings = settings or read_settings()
        configure(settings)
        for sentence in environment_warnings():
            logger.warning(sentence)
        loaded = load_models(settings)
        log_models(f"FashionNet {VERSION} serves", loaded, settings)
        return assemble(settings, loaded)
    except (SettingsError, ArtifactError, KeyFileError) as error:
        sys.exit(f"fashionnet: {error}")


def assemble(settings: Settings, loaded: Sequence[ServedModel]) -> FastAPI:
    """Returns the application that serves the ``loaded`` models."""
    app = FastAPIOffline(
        title="FashionNet",
        version=VERSION,
        summary="Classifies pictures of clothes into the ten classes of Fashion-MNIST.",
        lifespan=_lifespan(settings),
        docs_url=None,  # app/routes/page.py has it
        redoc_url=None,
        redirect_slashes=False,  # behind a proxy the redirect would lead to another scheme and path
        telemetry=_telemetry(settings),
        openapi_tags=TAGS,
        license_info={"name": "MIT", "identifier": "MIT"},
    )
    app.state.settings = settings
    app.state.keys = Keys(settings.api_keys_file) if settings.api_keys_file else None
    app.state.models = loaded
    app.state.readiness = Readiness()
    app.state.evaluator = Evaluator(FashionMnist(settings.data_dir))
    app.state.upload_limits = Limits.of_one(settings)
    add_exception_handlers(app)
    for routes in (predict, explain, evaluate, gallery, health, models, page, v2_metadata, v2):
        app.include_router(routes.router)
    page.mount(app)
    offer_models(app)
    _add_middleware(app, settings, [model.card.name for model in loaded])
    return app


def _add_middleware(app: FastAPI, settings: Settings, names: Sequence[str]) -> None:
    """Adds the innermost first."""
    if not settings.tracing:  # FastAPI traces only the requests that it routes
        routes = predict.direct_routes() | v2.direct_routes(names)
        app.add_middleware(FastPathMiddleware, routes={settings.root_path + path: at for path, at in routes.items()})
    if app.state.keys:
        app.add_middleware(KeyMiddleware, keys=app.state.keys)
    app.add_middleware(CatchAllMiddleware, state=app.state)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST"],
            allow_headers=["*"],
            expose_headers=["Retry-After", "X-Request-ID", "Inference-Header-Content-Length"],
        )
    if settings.root_path:
        app.add_middleware(RootPathMiddleware, root_path=settings.root_path)
    app.add_middleware(RequestMiddleware, state=app.state)
    if settings.forwarded_allow_ips:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.forwarded_allow_ips))


def _lifespan(settings: Settings) -> Callable[[FastAPI], AbstractAsyncContextManager[dict[str, Any]]]:
    if settings.grpc_port is None:
        return lifespan
    from app.grpc.server import lifespan_with_grpc  # needs the extra grpc

    return lifespan_with_grpc


def _telemetry(settings: Settings) -> TelemetryConfig:
    """FastAPI's own OpenTelemetry: off, or configured by the standard variables ``OTEL_*``."""
    if settings.tracing:
        return {"auto_configure": True, "metrics": False, "logs": False}
    return {"tracing": False, "metrics": False, "logs": False}
