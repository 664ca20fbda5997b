"""``GET /models``."""

from fastapi import APIRouter

from app.dependencies import PredictorsDep
from app.inference.errors import UnknownModel
from app.problems import InvalidQuery, problem_responses
from app.schemas import ModelDetails, ModelList, ModelSummary

router = APIRouter(tags=["models"])


@router.get("/models", summary="List the models", response_description="the served models and their figures")
async def models(predictors: PredictorsDep) -> ModelList:
    """Lists the served models."""
    default, photos = predictors.default, predictors.photos
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
    default, for_photos = name == predictors.default, name == predictors.photos
    return ModelDetails(version=card.version, default=default, default_for_photos=for_photos, engine=engine, card=card)
