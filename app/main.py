"""The assembly of the service, on one screen."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from app import VERSION, errors
from app.evaluator import Evaluator
from app.predictor import Executors, Predictors, load_artifacts
from app.readiness import Readiness
from app.routes import evaluate, gallery, open_inference, ops, predict
from app.settings import Settings, SettingsError, read_settings
from model import Artifact, ArtifactError, FashionMnist


def create_app(settings: Settings | None = None) -> FastAPI:
    """The service over ``settings``, which default to the environment's.

    Ends the process with one sentence and status 1 where a setting or an artefact is wrong: it is what uvicorn,
    Ray Serve and ``python -m app`` call, and none of them can do better than show it.
    """
    try:
        settings = settings or read_settings()
        artifacts = load_artifacts(settings)
    except (SettingsError, ArtifactError) as error:
        sys.exit(f"fashionnet: {error}")
    return assemble(settings, artifacts)


def assemble(settings: Settings, artifacts: list[Artifact]) -> FastAPI:
    """The application that serves ``artifacts``."""
    app = FastAPIOffline(
        title="FashionNet",
        version=VERSION,
        summary="Classifies pictures of clothes into the ten classes of Fashion-MNIST.",
        lifespan=lifespan,
        redoc_url=None,
        license_info={"name": "MIT", "identifier": "MIT"},
    )
    app.state.settings = settings
    app.state.artifacts = artifacts
    app.state.readiness = Readiness()
    app.state.evaluator = Evaluator(FashionMnist(settings.data_dir))
    errors.install(app)
    for routes in (predict, evaluate, gallery, ops, open_inference):
        app.include_router(routes.router)
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Make the engines; let the self-test run while the first health checks are answered already."""
    executors = Executors.create()
    app.state.predictors = Predictors(app.state.artifacts, executors, app.state.settings)
    self_test = asyncio.create_task(app.state.readiness.settle(app.state.predictors.self_test()))
    yield
    app.state.readiness.stop()
    await self_test
    executors.shut_down()
