"""Health, and what is served."""

from fastapi import APIRouter
from fastapi.responses import RedirectResponse

from app.deps import PredictorsDep, ReadinessDep, SettingsDep
from app.errors import InvalidQuery, NotReady, UnknownModel, declare
from app.schemas import Health, ModelDetails, ModelList, ModelSummary

router = APIRouter()


@router.get("/", include_in_schema=False)
async def index() -> RedirectResponse:
    """The interactive documentation."""
    return RedirectResponse("docs")


@router.get("/health/live", tags=["health"])
async def live() -> Health:
    """Whether the process answers at all."""
    return Health(status="live")


@router.get("/health/ready", tags=["health"], responses=declare(NotReady))
async def ready(readiness: ReadinessDep) -> Health:
    """Whether predictions may be sent: a self-test inference has passed, and the service is not stopping."""
    readiness.require()
    return Health(status="ready")


@router.get("/models", tags=["models"])
async def models(predictors: PredictorsDep) -> ModelList:
    """The served networks."""
    return ModelList(models=[ModelSummary.of(p.card, predictors.default) for p in predictors.values()])


@router.get("/models/{name}", tags=["models"], responses=declare(UnknownModel, InvalidQuery))
async def model_card(name: str, predictors: PredictorsDep, settings: SettingsDep) -> ModelDetails:
    """The card of one network: recipe, data, figures, checksums."""
    card = predictors[name].card
    return ModelDetails(version=card.version, default=name == predictors.default, engine=settings.engine, card=card)
