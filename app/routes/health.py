"""``GET /health/live``, ``/health/ready`` and ``/metrics``."""

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from app.dependencies import PredictorsDep, ReadinessDep
from app.inference.drift import drift_metric
from app.inference.predictor import Predictors
from app.lifecycle import update_metrics
from app.metrics import MetricsUnavailable, collect, exposition
from app.problems import NotReady, Responses, problem_responses
from app.schemas import Health

router = APIRouter()
_METRICS: Responses = {200: {"content": {"text/plain": {}}, "description": "Prometheus's text format"}}


@router.get(
    "/health/live", tags=["health"], summary="See whether the process runs", response_description="the process runs"
)
async def live() -> Health:
    """Responds as long as the process runs."""
    return Health(status="live")


@router.get(
    "/health/ready",
    tags=["health"],
    summary="See whether requests may be sent",
    response_description="requests may be sent",
    responses=problem_responses(NotReady),
)
async def ready(readiness: ReadinessDep) -> Health:
    """Responds with 200 once the self-test has passed and until the service stops, else with 503."""
    readiness.require()
    return Health(status="ready")


@router.get(
    "/metrics",
    tags=["metrics"],
    summary="Get the metrics",
    response_class=PlainTextResponse,
    responses=_METRICS | problem_responses(MetricsUnavailable),
)
async def metrics(request: Request, predictors: PredictorsDep) -> Response:
    """Returns the metrics of all workers for Prometheus."""
    update_metrics(request.app.state)
    return Response(await asyncio.to_thread(_expose, predictors), media_type=CONTENT_TYPE_LATEST)


def _expose(predictors: Predictors) -> bytes:
    found = collect()
    return exposition([*found, drift_metric([predictor.card for predictor in predictors.values()], found)])
