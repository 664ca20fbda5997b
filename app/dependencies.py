"""What routes ask for, read from ``request.app.state``.

Not from lifespan-yielded state: Ray Serve and httpx's ASGI transport do not copy that into a request.
"""

from typing import Annotated

from fastapi import Depends, Query, Request

from app.inference.evaluator import Evaluator
from app.inference.predictor import Predictor, Predictors
from app.problems import InvalidQuery
from app.readiness import Readiness
from app.settings import Settings


def find_predictor(request: Request) -> Predictor:
    """The network that the query names with ``model``, or what answers unnamed; raises UnknownModel."""
    predictors: Predictors = request.app.state.predictors
    name = request.query_params.get("model") if request.scope["query_string"] else None
    return predictors[name] if name else predictors.unnamed


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


async def _predictors(request: Request) -> Predictors:
    predictors: Predictors = request.app.state.predictors
    return predictors


async def _readiness(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


async def _evaluator(request: Request) -> Evaluator:
    evaluator: Evaluator = request.app.state.evaluator
    return evaluator


SettingsDep = Annotated[Settings, Depends(_settings)]
PredictorsDep = Annotated[Predictors, Depends(_predictors)]
ReadinessDep = Annotated[Readiness, Depends(_readiness)]
EvaluatorDep = Annotated[Evaluator, Depends(_evaluator)]


async def chosen_predictor(
    request: Request,
    model: Annotated[str | None, Query(description="a name from /models; default: as /models says")] = None,  # noqa: ARG001
) -> Predictor:
    """As ``find_predictor``, for the framework and its documentation."""
    return find_predictor(request)


PredictorDep = Annotated[Predictor, Depends(chosen_predictor)]


def wants_image(request: Request) -> bool:
    """Whether the query asks for what the network saw: ``image=true``; raises InvalidQuery where it says neither."""
    value = request.query_params.get("image", "false") if request.scope["query_string"] else "false"
    if value not in ("true", "false"):
        raise InvalidQuery(f"image is true or false, not {value!r:.80}.")
    return value == "true"


async def image_wanted(
    request: Request,
    image: Annotated[  # noqa: ARG001
        str, Query(description="whether to add what the network saw", json_schema_extra={"enum": ["true", "false"]})
    ] = "false",
) -> bool:
    """As ``wants_image``, for the framework and its documentation."""
    return wants_image(request)
