"""The OpenAPI document: the groups of operations, and what only the running service knows."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import State

from app.keys import InvalidKey, is_keyless
from app.problems import problem_responses

TAGS = [
    {"name": "prediction", "description": "Classify your own pictures."},
    {"name": "evaluation", "description": "How good a model is on the test set, and the images of that set."},
    {"name": "models", "description": "The served models and how they were made."},
    {"name": "health", "description": "For the probes of an orchestrator."},
    {"name": "metrics", "description": "For Prometheus."},
    {"name": "open inference protocol", "description": "For the clients of Triton, KServe and MLServer."},
]
SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
"""The two ways to send an API key."""


def offer_models(app: FastAPI) -> None:
    """Makes the document offer the served models as a menu, with examples that work: those of the default model."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document, known = generate(), _known(app.state)
        for parameter in _parameters(document):
            if alternatives := parameter["schema"].get("anyOf"):  # the other one is null, which no URL can hold
                parameter["schema"] = alternatives[0]
            parameter.update(known.get((parameter["in"], parameter["name"]), {}))
        if app.state.settings.api_keys_file:
            _require_keys(document)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it, "Extending OpenAPI"


def _known(state: State) -> dict[tuple[str, str], dict[str, Any]]:
    """Returns what the models say of the parameters in a place and with a name."""
    cards = {model.card.name: model.card for model in state.models}
    names, default = {"type": "string", "enum": list(cards)}, cards[state.settings.models_among(cards).default]
    return {
        ("query", "model"): {"schema": names},
        ("path", "name"): {"schema": names, "example": default.name, "description": "the model"},
        ("path", "version"): {"example": default.version},
        ("path", "index"): {"example": 0},
    }


def _require_keys(document: dict[str, Any]) -> None:
    document["components"]["securitySchemes"] = SECURITY_SCHEMES
    for path, operations in document["paths"].items():
        for operation in operations.values() if not is_keyless(path) else ():
            operation["security"] = [{name: []} for name in SECURITY_SCHEMES]
            operation["responses"] |= {"401": problem_responses(InvalidKey)[401]}


def _parameters(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        for operation in path.values():
            yield from operation.get("parameters", ())
