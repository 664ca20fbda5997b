"""What routes depend on, read from ``request.app.state``.

Not from the state that the lifespan yields: Ray Serve and httpx's ASGI transport do not copy that into a request.
"""

from typing import Annotated, Any

from fastapi import Depends, Query, Request

from app.inference.admission import Admission
from app.inference.evaluator import Evaluator
from app.inference.predictor import Classifier, Predictor, Predictors
from app.lifecycle import Readiness
from app.problems import InvalidQuery
from app.settings import Settings


def find_classifier(request: Request) -> Classifier:
    """Returns what classifies for this request: the query's ``model``, or the default; raises UnknownModel."""
    predictors: Predictors = request.app.state.predictors
    return predictors.classifier(request.query_params.get("model") if request.scope["query_string"] else None)


def wants_image(request: Request) -> bool:
    """Whether the query asks for the network's input by ``image=true``; raises InvalidQuery for other values."""
    value = request.query_params.get("image", "false") if request.scope["query_string"] else "false"
    if value not in ("true", "false"):
        raise InvalidQuery(f"image is true or false, not {value!r:.80}.")
    return value == "true"


def _state(name: str) -> Any:
    """Returns the dependency on an attribute of the application's state."""

    async def attribute(request: Request) -> Any:
        return getattr(request.app.state, name)

    return Depends(attribute)


async def classifier(
    request: Request,
    model: Annotated[str | None, Query(description="the model; by default the kind of picture decides")] = None,  # noqa: ARG001
) -> Classifier:
    """As ``find_classifier``; declares the parameter for FastAPI's documentation."""
    return find_classifier(request)


async def image_wanted(
    request: Request,
    image: Annotated[  # noqa: ARG001
        str, Query(description="whether to add the model's input", json_schema_extra={"enum": ["true", "false"]})
    ] = "false",
) -> bool:
    """As ``wants_image``; declares the parameter for FastAPI's documentation."""
    return wants_image(request)


ClassifierDep = Annotated[Classifier, Depends(classifier)]
SettingsDep = Annotated[Settings, _state("settings")]
PredictorsDep = Annotated[Predictors, _state("predictors")]
ReadinessDep = Annotated[Readiness, _state("readiness")]
AdmissionDep = Annotated[Admission, _state("admission")]
EvaluatorDep = Annotated[Evaluator, _state("evaluator")]


async def _predictor(
    request: Request,
    model: Annotated[str | None, Query(description="the model; by default the default model")] = None,  # noqa: ARG001
) -> Predictor:
    return find_classifier(request).default


PredictorDep = Annotated[Predictor, Depends(_predictor)]
