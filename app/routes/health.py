"""Health, and what is served."""

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from app.dependencies import PredictorsDep, ReadinessDep
from app.metrics import exposition
from app.middleware import set_gauges
from app.problems import InvalidQuery, NotReady, UnknownModel, declare
from app.schemas import Health, ModelDetails, ModelList, ModelSummary

router = APIRouter()


@router.get("/health/live", tags=["health"])
async def live() -> Health:
    """Whether the process answers at all."""
    return Health(status="live")


@router.get("/health/ready", tags=["health"], responses=declare(NotReady))
async def ready(readiness: ReadinessDep) -> Health:
    """Whether predictions may be sent: a self-test inference has passed, and the service is not stopping."""
    readiness.require()
    return Health(status="ready")


@router.get(
    "/metrics",
    tags=["metrics"],
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus's text format"}},
)
async def metrics(request: Request) -> Response:
    """What Prometheus collects: requests, durations, queue, batches, stages, problems, predictions; of all workers."""
    set_gauges(request.app.state)
    return Response(await asyncio.to_thread(exposition), media_type=CONTENT_TYPE_LATEST)


@router.get("/models", tags=["models"])
async def models(predictors: PredictorsDep) -> ModelList:
    """The served networks."""
    default, photos = predictors.default, predictors.photos
    return ModelList(models=[ModelSummary.of(p.card, p.engine.name, default, photos) for p in predictors.values()])


@router.get("/models/{name}", tags=["models"], responses=declare(UnknownModel, InvalidQuery))
async def model_card(name: str, predictors: PredictorsDep) -> ModelDetails:
    """The card of one network: recipe, data, figures, checksums."""
    card, engine = predictors[name].card, predictors[name].engine.name
    default, for_photos = name == predictors.default, name == predictors.photos
    return ModelDetails(version=card.version, default=default, default_for_photos=for_photos, engine=engine, card=card)
