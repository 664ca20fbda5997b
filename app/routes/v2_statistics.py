"""The statistics extension of the Open Inference Protocol, from the service's metrics."""

from collections.abc import Iterable

from prometheus_client import Metric
from pydantic import BaseModel, Field

from app.metrics import BATCH_NAME, INFERENCE_NAME
from model import ModelCard


class Duration(BaseModel):
    """Requests, and their duration in all."""

    count: int
    ns: int


class InferenceStatistics(BaseModel):
    """Requests to infer, by outcome."""

    success: Duration
    fail: Duration


class ModelStatistics(BaseModel):
    """What a model has done since the service started."""

    name: str
    version: str
    inference_count: int = Field(description="images in calls of the engine for /predict, /v2 and gRPC")
    execution_count: int = Field(description="calls of the engine for /predict, /v2 and gRPC")
    inference_stats: InferenceStatistics


class Statistics(BaseModel):
    """The statistics of models."""

    model_stats: list[ModelStatistics]


def model_statistics(cards: Iterable[ModelCard], metrics: Iterable[Metric]) -> Statistics:
    """Returns the statistics of these models, given the metrics of all workers."""
    values = {
        (sample.name, sample.labels["model"], sample.labels.get("outcome")): sample.value
        for metric in metrics
        if metric.name in (BATCH_NAME, INFERENCE_NAME)
        for sample in metric.samples
        if "le" not in sample.labels
    }
    return Statistics(model_stats=[_of_model(card, values) for card in cards])


def _of_model(card: ModelCard, values: dict[tuple[str, str, str | None], float]) -> ModelStatistics:
    def value(name: str, outcome: str | None = None) -> float:
        return values.get((name, card.name, outcome), 0)

    def duration(outcome: str) -> Duration:
        seconds = value(f"{INFERENCE_NAME}_sum", outcome)
        return Duration(count=int(value(f"{INFERENCE_NAME}_count", outcome)), ns=round(seconds * 1e9))

    return ModelStatistics(
        name=card.name,
        version=card.version,
        inference_count=int(value(f"{BATCH_NAME}_sum")),
        execution_count=int(value(f"{BATCH_NAME}_count")),
        inference_stats=InferenceStatistics(success=duration("success"), fail=duration("fail")),
    )
