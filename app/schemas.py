"""Response bodies. Those of the Open Inference Protocol are in app/routes/v2_metadata.py."""

from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import BaseModel, Field

from app.inference.predictor import Explanation
from app.problems import Problem, problem_of
from model import ModelCard, Prediction
from model.evaluation import Metrics


class PredictionError(BaseModel):
    """Why one picture of a batch has no prediction."""

    error: Problem


class BatchPrediction(BaseModel):
    """One prediction or error for each picture, in the order of the pictures."""

    predictions: list[Prediction | PredictionError]

    @classmethod
    def of(cls, outcomes: Iterable[Prediction | BaseException]) -> Self:
        """Returns the body for these outcomes."""
        return cls(
            predictions=[
                outcome if isinstance(outcome, Prediction) else PredictionError(error=problem_of(outcome))
                for outcome in outcomes
            ]
        )


class ExplainedPrediction(BaseModel):
    """A prediction and its attribution to the pixels."""

    prediction: Prediction
    attribution: list[list[float]] = Field(
        description="28 rows of 28, in nats: how much each part of the input supports the class; below 0 it opposes it"
    )

    @classmethod
    def of(cls, explanation: Explanation) -> Self:
        """Returns the body for this explanation."""
        attribution = explanation.attribution.astype(float)  # what is rounded as float32 has seventeen digits again
        return cls(prediction=explanation.prediction, attribution=attribution.round(4).tolist())


class ModelSummary(BaseModel):
    """A served model in short."""

    name: str
    version: str
    default: bool = Field(description="whether it classifies if the request names no model")
    default_for_photos: bool = Field(description="whether it classifies photos if the request names no model")
    architecture: str
    description: str
    parameters: int
    engine: str = Field(description="name of the engine that runs it")
    metrics: dict[str, Metrics] = Field(description="figures measured with that engine, by split")

    @classmethod
    def of(cls, card: ModelCard, engine: str, default: str, photos: str) -> Self:
        """Returns the summary of a card; ``default`` and ``photos`` are the names of the default models."""
        fields = card.model_dump(include=set(cls.model_fields) - {"metrics"})
        fields |= {"default": card.name == default, "default_for_photos": card.name == photos}
        return cls(**fields, version=card.version, engine=engine, metrics=card.measured_with(engine))


class ModelList(BaseModel):
    """The served models."""

    models: list[ModelSummary]


class ModelDetails(BaseModel):
    """A served model with its whole card."""

    version: str
    default: bool
    default_for_photos: bool
    engine: str
    card: ModelCard


class Health(BaseModel):
    """The state of this process."""

    status: Annotated[str, Field(examples=["ready"])]
