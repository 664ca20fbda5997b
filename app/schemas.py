"""The bodies of our own API. The Open Inference Protocol has its own, beside its routes."""

from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny
from pydantic_core import to_json

from app.inference.predictor import Explanation
from app.problems import Problem, problem_of
from model import ModelCard, Prediction, Report
from model.evaluation import Metrics


class PredictionError(BaseModel):
    """Why one picture of a batch has no prediction."""

    error: Problem


_HEAD, _TAIL = b'{"predictions":[', b"]}"


class BatchAnswer(BaseModel):
    """One answer a picture, in the order of the pictures."""

    predictions: list[SerializeAsAny[Prediction | PredictionError]]  # else a union is written in twice the time

    @classmethod
    def of(cls, outcomes: Iterable[Prediction | BaseException]) -> Self:
        """The answer that tells each outcome."""
        return cls(
            predictions=[
                outcome if isinstance(outcome, Prediction) else PredictionError(error=problem_of(outcome))
                for outcome in outcomes
            ]
        )

    def part(self) -> bytes:
        """It as JSON, to be joined with others: the last of many predictions need not wait for the writing of all."""
        return to_json(self, exclude_none=True).removeprefix(_HEAD).removesuffix(_TAIL)

    @staticmethod
    def joined(parts: Iterable[bytes]) -> bytes:
        """The JSON of one answer that holds the predictions of all ``parts``."""
        return _HEAD + b",".join(parts) + _TAIL


class ExplanationAnswer(BaseModel):
    """An answer and what it rests on."""

    prediction: Prediction
    heat: list[list[float]] = Field(
        description="28 rows of 28: by how many nats the class's log-probability falls where the pixel is hidden"
    )

    @classmethod
    def of(cls, explanation: Explanation) -> Self:
        """The explanation as it is sent."""
        return cls(prediction=explanation.prediction, heat=explanation.heat.round(4).tolist())


class Evaluation(Report):
    """The report of a network on the 10,000 test images."""

    model_config = ConfigDict(protected_namespaces=(), frozen=True)

    model: str
    model_version: str
    seconds: float = Field(description="how long the measurement took when it was made")


class GalleryItem(BaseModel):
    """One test image."""

    index: int = Field(description="its place in the test set")
    label: str
    predicted: str
    right: bool


class GalleryItems(BaseModel):
    """Test images."""

    items: list[GalleryItem]


class Progress(BaseModel):
    """How far a measurement has come; without one that was begun here, 0."""

    measured: int
    count: int


class ModelSummary(BaseModel):
    """A served network in short."""

    name: str
    version: str
    default: bool = Field(description="whether it answers where a request names none")
    default_for_photos: bool = Field(description="whether it answers where the picture is no 28x28 PNG in grey")
    architecture: str
    description: str
    parameters: int
    engine: str = Field(description="what runs it")
    metrics: dict[str, Metrics] = Field(description="what was measured with that engine, by split")

    @classmethod
    def of(cls, card: ModelCard, engine: str, default: str, photos: str) -> Self:
        """The summary of ``card``, run by ``engine``, where ``default`` and ``photos`` name what answers by itself."""
        fields = card.model_dump(include=set(cls.model_fields) - {"metrics"})
        fields |= {"default": card.name == default, "default_for_photos": card.name == photos}
        return cls(**fields, version=card.version, engine=engine, metrics=card.measured_with(engine))


class ModelList(BaseModel):
    """The served networks."""

    models: list[ModelSummary]


class ModelDetails(BaseModel):
    """A served network with its whole card."""

    version: str
    default: bool
    default_for_photos: bool
    engine: str
    card: ModelCard


class Health(BaseModel):
    """The state of this process."""

    status: Annotated[str, Field(examples=["ready"])]
