"""``GET /models``, the card of a model, and its drift."""

import asyncio

from fastapi import APIRouter, Request

from app.dependencies import PredictorsDep
from app.inference.drift import Drift, measure_drift
from app.inference.errors import UnknownModel
from app.lifecycle import update_metrics
from app.metrics import MetricsUnavailable, collect
from app.problems import InvalidQuery, ProblemType, ServiceError, problem_responses
from app.schemas import ModelDetails, ModelList, ModelSummary

router = APIRouter(tags=["models"])


class DriftUnavailable(ServiceError):
    """A model whose card has no histograms of validation images."""

    problem_type = ProblemType(404, "drift-unavailable", "Drift unavailable")


@router.get("/models", summary="List the models", response_description="the served models and their figures")
async def models(predictors: PredictorsDep) -> ModelList:
    """Lists the served models."""
    default, photos = predictors.default_name, predictors.photos_name
    return ModelList(models=[ModelSummary.of(p.card, p.engine.name, default, photos) for p in predictors.values()])


@router.get(
    "/models/{name}",
    summary="Get the card of a model",
    response_description="the card",
    responses=problem_responses(UnknownModel, InvalidQuery),
)
async def model_card(name: str, predictors: PredictorsDep) -> ModelDetails:
    """Returns the card of one model: recipe, data, figures, checksums."""
    card, engine = predictors[name].card, predictors[name].engine.name
    default, for_photos = name == predictors.default_name, name == predictors.photos_name
    return ModelDetails(version=card.version, default=default, default_for_photos=for_photos, engine=engine, card=card)


@router.get(
    "/models/{name}/drift",
    summary="Compare predictions with validation images",
    response_description="the drift",
    responses=problem_responses(UnknownModel, DriftUnavailable, InvalidQuery, MetricsUnavailable),
)
async def drift(name: str, request: Request, predictors: PredictorsDep) -> Drift:
    """Compares the last predictions of one model, in all workers, with those for its validation images."""
    card = predictors[name].card
    if not card.histograms:
        raise DriftUnavailable(
            f"The card of {name} has no histograms of validation images: add them by "
            f"`fashionnet export {name} --figures`, which for a photo model also needs `--held-out`."
        )
    update_metrics(request.app.state)
    return measure_drift(card, await asyncio.to_thread(collect))
