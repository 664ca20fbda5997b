"""The OpenAPI document: the groups of operations, and what only the running service knows."""

from collections.abc import Iterator, Sequence
from typing import Any

from fastapi import FastAPI

from model import ModelCard

TAGS = [
    {"name": "prediction", "description": "Classify your own pictures."},
    {"name": "evaluation", "description": "How good a model is on the test set, and the images of that set."},
    {"name": "models", "description": "The served models and how they were made."},
    {"name": "health", "description": "For the probes of an orchestrator."},
    {"name": "metrics", "description": "For Prometheus."},
    {"name": "open inference protocol", "description": "For the clients of Triton, KServe and MLServer."},
]


def offer_models(app: FastAPI, cards: Sequence[ModelCard], default: ModelCard) -> None:
    """Makes the document offer the served models as a menu, with examples that work: those of ``default``."""
    names = {"type": "string", "enum": [card.name for card in cards]}
    known: dict[tuple[str, str], dict[str, Any]] = {
        ("query", "model"): {"schema": names},
        ("path", "name"): {"schema": names, "example": default.name},
        ("path", "version"): {"example": default.version},
        ("path", "index"): {"example": 0},
    }
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        for parameter in _parameters(document):
            if alternatives := parameter["schema"].get("anyOf"):  # the other one is null, which no URL can hold
                parameter["schema"] = alternatives[0]
            parameter.update(known.get((parameter["in"], parameter["name"]), {}))
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it, "Extending OpenAPI"


def _parameters(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        for operation in path.values():
            yield from operation.get("parameters", ())
