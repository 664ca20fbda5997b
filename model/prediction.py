"""From logits to an answer."""

import base64
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.config import JsonDict

from model.artifact import ModelCard
from model.data import CLASSES
from model.engines import Engine, EngineOutputs, Finding
from model.plots.style import encode_png
from model.preprocessing.pipeline import UNTOUCHED, Picture, Preprocessing

Item = TypeVar("Item")

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
    "model_version": "0123456789ab",
}


PHOTO_ALLOWANCE = 1.0
"""Taken off a photo's score: what was cut out of a background is never quite like the data set's images. It is as much
as lies between a typical one of those and the strangest that is accepted."""
STRANGE = "This picture does not resemble the training data; the prediction is unreliable."
PHOTO = "The confidence is not calibrated on photos: there it is too high by 11 points on average."
"""The gap is that of benchmarks/results/photos.json, which a test compares."""


# No model of pydantic's: to check what is made here would take longer than to make it and to write it.
@dataclass(kw_only=True)
class Prediction:
    """What a network says of one picture."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        protected_namespaces=(), json_schema_extra={"example": _EXAMPLE}
    )

    label: Annotated[str, Field(description="name of the most probable class")]
    class_id: Annotated[int, Field(ge=0, le=9, description="its number in the data set")]
    confidence: Annotated[
        float,
        Field(
            ge=0, le=1, description="its probability; calibrated on pictures like those of the data set, not on photos"
        ),
    ]
    in_distribution: Annotated[
        bool, Field(description="whether the picture looks like those that the network was trained on")
    ]
    ood_score: Annotated[
        float,
        Field(description="how strange it looks: 0 is typical, above 1 is out of the distribution; of a photo, less 1"),
    ]
    probabilities: Annotated[dict[str, float], Field(description="of every class, by name; they sum to 1")]
    warnings: Annotated[list[str], Field(description="what may be wrong with the picture or the answer, in words")]
    preprocessing: Annotated[Preprocessing, Field(description="what was done to the picture before the network saw it")]
    image: Annotated[
        str | None,
        Field(description="what the network saw, of a photo its first view: a 28x28 PNG as a data URL; if asked for"),
    ] = None
    model: Annotated[str, Field(description="name of the network")]
    model_version: Annotated[str, Field(description="the first digits of its weights' SHA-256")]


PREDICTION = TypeAdapter(Prediction)
"""Writes predictions as JSON: ``PREDICTION.dump_json(prediction, exclude_none=True)``."""


class ModelPair(NamedTuple, Generic[Item]):
    """The default model and the one for photos, or their names."""

    default: Item
    photos: Item

    def of(self, picture: Picture) -> Item:
        """Returns the model for the picture."""
        return self.photos if picture.is_photo else self.default


def infer(engine: Engine, pictures: Sequence[Picture]) -> Iterator[ImageOutput]:
    """What the engine says of each picture, all in one call: the mean of what it says of its views."""
    return image_outputs(engine.run(views(pictures)), pictures) if pictures else iter(())


def views(pictures: Sequence[Picture]) -> NDArray[np.uint8]:
    """Of each picture, uint8 ``[M, 28, 28]``; at least one picture."""
    return np.concatenate([picture.views for picture in pictures])


def image_outputs(outputs: EngineOutputs, pictures: Sequence[Picture]) -> Iterator[ImageOutput]:
    """What an engine said of the pictures' views -> what it says of each picture: the mean."""
    if len(outputs.logits) == len(pictures):
        return outputs.image_outputs()
    counts = np.array([len(picture.views) for picture in pictures])
    firsts = np.cumsum(counts) - counts
    logits = np.add.reduceat(outputs.logits, firsts) / counts[:, None].astype(np.float32)
    scores = np.add.reduceat(outputs.ood_scores, firsts) / counts.astype(np.float32)
    return map(ImageOutput, logits, np.where(counts > 1, scores - np.float32(PHOTO_ALLOWANCE), scores))


def classify(output: ImageOutput, card: ModelCard, picture: Picture, *, with_image: bool = False) -> Prediction:
    """What the engine of the network that ``card`` describes says of one picture -> the answer."""
    # Plain floats: for ten numbers NumPy's calls take longer than the arithmetic.
    values, score = output.logits.tolist(), float(output.ood_score)
    best = max(values)
    weights = [math.exp((value - best) / card.temperature) for value in values]
    total = sum(weights)
    probabilities = [weight / total for weight in weights]
    class_id = values.index(best)
    warnings = list(picture.warnings)
    if picture.is_photo:
        warnings.append(PHOTO)
    if score > 1:
        warnings.append(STRANGE)
    return Prediction(
        label=card.classes[class_id],
        class_id=class_id,
        confidence=probabilities[class_id],
        in_distribution=score <= 1,
        ood_score=score,
        probabilities=dict(zip(card.classes, probabilities, strict=True)),
        warnings=warnings,
        preprocessing=picture.preprocessing,
        image=data_url(picture) if with_image else None,
        model=card.name,
        model_version=card.version,
    )


def data_url(picture: Picture) -> str:
    """Returns the first view as a PNG in a data URL."""
    return "data:image/png;base64," + base64.b64encode(encode_png(Image.fromarray(picture.image))).decode()
