"""Pictures in, predictions out: chooses the model, runs it, and turns logits into a prediction."""

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.config import JsonDict

from model.artifact import ModelCard
from model.data import CLASSES
from model.engines import Engine, EngineName, ImageOutput, create_engine, load_for_engine, run_batches
from model.inputs import ModelInput
from model.plots.style import encode_png
from model.preprocessing.pipeline import IDENTITY, Picture, PictureKind, Preprocessing

Item = TypeVar("Item")
Other = TypeVar("Other")

_PROBABILITIES: JsonDict = {label: 0.991 if label == "Shirt" else 0.001 for label in CLASSES}
_EXAMPLE: JsonDict = {
    "label": "Shirt",
    "class_id": 6,
    "confidence": 0.991,
    "in_distribution": True,
    "ood_score": 0.12,
    "probabilities": _PROBABILITIES,
    "warnings": [],
    "preprocessing": IDENTITY.model_dump(mode="json", exclude_none=True),
    "model": "fashionnet",
    "model_choice": "28x28 grey picture",
    "model_version": "0123456789ab",
}


OUT_OF_DISTRIBUTION = "This picture does not resemble the training data; the prediction is unreliable."
SINGLE_MODEL = "the request names this model, or one model answers all pictures"


# A dataclass: validating the fields of a pydantic model would take longer than computing and writing them.
@dataclass(kw_only=True)
class Prediction:
    """The prediction for one picture."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        protected_namespaces=(), json_schema_extra={"example": _EXAMPLE}
    )

    label: Annotated[str, Field(description="name of the most probable class")]
    class_id: Annotated[int, Field(ge=0, le=9, description="number of the class in the data set")]
    confidence: Annotated[
        float,
        Field(ge=0, le=1, description="probability of the class, calibrated on images like those the model is for"),
    ]
    in_distribution: Annotated[bool, Field(description="whether the picture resembles the training data")]
    ood_score: Annotated[
        float,
        Field(description="distance from the training data: 0 is typical, above 1 is out of distribution"),
    ]
    probabilities: Annotated[dict[str, float], Field(description="probability of each class by name; the sum is 1")]
    warnings: Annotated[list[str], Field(description="sentences on why the prediction may be unreliable")]
    preprocessing: Annotated[Preprocessing, Field(description="how the picture became the model's input")]
    image: Annotated[
        str | None,
        Field(description="the model's input as a PNG in a data URL, on request"),
    ] = None
    model: Annotated[str, Field(description="name of the model")]
    model_choice: Annotated[str, Field(description="why this model: the kind of picture, or that there is no choice")]
    model_version: Annotated[str, Field(description="first 12 digits of the SHA-256 of the weights")]


PREDICTION = TypeAdapter(Prediction)
"""Writes predictions as JSON: ``PREDICTION.dump_json(prediction, exclude_none=True)``."""


class LoadedModel(NamedTuple):
    """An engine and the card of the model that it runs."""

    engine: Engine
    card: ModelCard


class ModelPair(NamedTuple, Generic[Item]):
    """The default model and the one for photos, or their names; the same twice if there is no choice."""

    default: Item
    photos: Item

    def choose(self, kind: PictureKind) -> Item:
        """Returns the model for a kind of picture.

        Pictures with a plain background go to the default model, which is more accurate on product pictures
        (benchmarks/results/pictures.md).
        """
        return self.photos if kind is PictureKind.PHOTO else self.default


def choice_reason(models: ModelPair[Item], kind: PictureKind) -> str:
    """Says why ``models.choose`` returned its model."""
    return SINGLE_MODEL if models.default is models.photos else str(kind)


def load_model_pair(
    engine: EngineName, folder: Path, names: ModelPair[str], threads: int = 1
) -> ModelPair[LoadedModel]:
    """Loads the named models from ``folder``; once if both names are the same.

    Raises the same errors as ``load_artifact`` and ``create_engine``.
    """
    artifacts = {name: load_for_engine(engine, folder, name) for name in names}
    loaded = {name: LoadedModel(create_engine(engine, one, threads), one.card) for name, one in artifacts.items()}
    return ModelPair(*(loaded[name] for name in names))


def input_of(models: ModelPair[LoadedModel], kind: PictureKind) -> ModelInput:
    """Returns the input of the model for a kind of picture."""
    return models.choose(kind).card.input


def classify_pictures(
    models: ModelPair[LoadedModel], pictures: Sequence[Picture | Other], *, with_image: bool = False
) -> list[Prediction | Other]:
    """Classifies each picture with its model, in order. Each model gets all its pictures together.

    Items that are not a ``Picture``, such as errors, are returned unchanged.
    """
    shares: dict[Engine, list[Picture]] = {}
    for picture in pictures:
        if isinstance(picture, Picture):
            shares.setdefault(models.choose(picture.kind).engine, []).append(picture)
    outputs = {engine: run_pictures(engine, share) for engine, share in shares.items()}

    def classify_next(picture: Picture) -> Prediction:
        engine, card = models.choose(picture.kind)
        reason = choice_reason(models, picture.kind)
        return classify(next(outputs[engine]), card, picture, reason, with_image=with_image)

    return [classify_next(picture) if isinstance(picture, Picture) else picture for picture in pictures]


def run_pictures(engine: Engine, pictures: Sequence[Picture]) -> Iterator[ImageOutput]:
    """Runs the engine on the pictures, at least one, in batches. Yields the output of each."""
    return run_batches(engine, stack(pictures)).image_outputs()


def stack(pictures: Sequence[Picture]) -> NDArray[np.uint8]:
    """Returns the inputs of pictures for one model, at least one: uint8 ``[N, *shape]``."""
    return np.stack([picture.image for picture in pictures])


def classify(
    output: ImageOutput, card: ModelCard, picture: Picture, choice: str = SINGLE_MODEL, *, with_image: bool = False
) -> Prediction:
    """Turns the output for one picture into a prediction of the model that ``card`` describes.

    ``choice`` says why this model was chosen.
    """
    # Plain floats: for ten numbers NumPy's calls take longer than the arithmetic.
    values, score = output.logits.tolist(), float(output.ood_score)
    best = max(values)
    weights = [math.exp((value - best) / card.temperature) for value in values]
    total = sum(weights)
    probabilities = [weight / total for weight in weights]
    class_id = values.index(best)
    return Prediction(
        label=card.classes[class_id],
        class_id=class_id,
        confidence=probabilities[class_id],
        in_distribution=score <= 1,
        ood_score=score,
        probabilities=dict(zip(card.classes, probabilities, strict=True)),
        warnings=[*picture.warnings, OUT_OF_DISTRIBUTION] if score > 1 else list(picture.warnings),
        preprocessing=picture.preprocessing,
        image=data_url(picture) if with_image else None,
        model=card.name,
        model_choice=choice,
        model_version=card.version,
    )


def data_url(picture: Picture) -> str:
    """Returns the model's input as a PNG in a data URL."""
    return "data:image/png;base64," + base64.b64encode(encode_png(Image.fromarray(picture.image))).decode()
