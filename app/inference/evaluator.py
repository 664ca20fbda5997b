"""Evaluates models on the test set: loads it when first needed and runs each model on it once."""

import asyncio
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from app.inference.errors import UnknownImage
from app.inference.predictor import Predictor
from model import CLASSES, FashionMnist, Report, Split, draw_gallery
from model.engines import batches
from model.evaluation import report
from model.preprocessing import fit_data_set

TEST_IMAGES = 10_000

Key = tuple[tuple[str, ...], str, str]
"""What a measurement depends on: see ``Evaluator.key``."""
Label = StrEnum("Label", [(name, name) for name in CLASSES])  # type: ignore[misc]


@dataclass(frozen=True)
class Measurement:
    """A model's outputs for all test images."""

    logits: NDArray[np.float32]
    """``[10000, 10]``"""
    seconds: float


class Evaluation(Report):
    """The report of a model on the 10,000 test images."""

    model_config = ConfigDict(protected_namespaces=(), frozen=True)

    model: str
    model_version: str
    seconds: float = Field(description="duration of the measurement when it was made")


class GalleryItem(BaseModel):
    """One test image."""

    index: int = Field(description="index in the test set")
    label: str
    predicted: str
    correct: bool


class GalleryItems(BaseModel):
    """Test images."""

    items: list[GalleryItem]
    count: int = Field(description="number of test images that the query selects, on all pages")


class Progress(BaseModel):
    """The progress of a measurement; 0 if none was started in this process."""

    completed: int
    total: int


class Selection(BaseModel):
    """The test images that a gallery shows."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    rows: int = Field(5, ge=1, le=20, description="images below each other")
    columns: int = Field(8, ge=1, le=20, description="images beside each other")
    page: int = Field(0, ge=0, le=TEST_IMAGES, description="which `rows` x `columns` of the selected images, from 0")
    seed: int = Field(0, ge=0, le=2**63 - 1, description="seed of the random choice")
    only: Literal["all", "correct", "incorrect"] = Field("all", description="which predictions")
    label: Label | None = Field(None, description="only images whose true class this is")
    predicted: Label | None = Field(None, description="only images whose predicted class this is")

    @property
    def needs_predictions(self) -> bool:
        """Whether the selection depends on the predictions for all images."""
        return self.only != "all" or self.predicted is not None

    def order(self, labels: NDArray[np.uint8], predicted: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Returns the indices of all selected images, given the labels ``[N]`` and predicted classes ``[N]``.

        The predicted classes are required if ``needs_predictions``.
        """
        eligible = np.ones(len(labels), np.bool_) if self.label is None else labels == CLASSES.index(self.label)
        if predicted is not None and self.only != "all":
            eligible &= (predicted == labels) == (self.only == "correct")
        if predicted is not None and self.predicted is not None:
            eligible &= predicted == CLASSES.index(self.predicted)
        return np.random.default_rng(self.seed).permutation(np.flatnonzero(eligible))

    @property
    def page_size(self) -> int:
        """The number of images on a page."""
        return self.rows * self.columns

    def on_page(self, found: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns those of ``found`` that are on the page."""
        return found[self.page * self.page_size :][: self.page_size]


class Chosen(NamedTuple):
    """The test images on a page of a selection."""

    indices: NDArray[np.int64]
    predicted: NDArray[np.int64]
    total: int
    """Number of images on all pages."""


class Evaluator:
    """Evaluates models on the test images of a data folder, each model once."""

    def __init__(self, data_set: FashionMnist) -> None:
        self.data_set = data_set
        self._load = lru_cache(maxsize=1)(self._load_version)
        self._measurements: dict[Key, asyncio.Task[Measurement]] = {}
        self._progress: dict[Key, Progress] = {}

    def key(self, predictor: Predictor) -> Key:
        """Returns what a measurement depends on: the checksums of the model's files, the engine and the data.

        The version is that of the weights alone, whose graphs may be exported anew.
        """
        sums = tuple(file.sha256 for file in predictor.card.files.values())
        return sums, predictor.engine.name, self.data_set.fingerprint("test")

    async def load(self) -> Split:
        """Returns the 10,000 test images and labels; raises DataError if they cannot be loaded."""
        return await asyncio.to_thread(self._load, self.data_set.fingerprint("test"))

    async def measure(self, predictor: Predictor) -> Measurement:
        """Runs the model on the whole test set, or returns the earlier result.

        The result is kept by ``key``. Concurrent callers share one run, which continues if one is cancelled.
        """
        key = self.key(predictor)
        task = self._measurements.get(key)
        if task is None or _failed(task):
            task = self._measurements[key] = asyncio.create_task(self._measure(predictor))
        return await asyncio.shield(task)

    async def evaluate(self, predictor: Predictor) -> Evaluation:
        """Returns accuracy, loss, per-class figures and confusion matrix of the model on the test set."""
        measurement, split = await self.measure(predictor), await self.load()
        card = predictor.card
        figures = report(measurement.logits, split.labels, card.temperature)
        return Evaluation(
            **figures.model_dump(), model=card.name, model_version=card.version, seconds=measurement.seconds
        )

    async def prepare(self, predictor: Predictor, selection: Selection) -> None:
        """Loads and measures what the selection needs; that takes seconds, but only once."""
        await (self.measure(predictor) if selection.needs_predictions else self.load())

    async def draw_gallery(self, predictor: Predictor, selection: Selection) -> bytes:
        """Draws a PNG grid of the selected test images with their predicted and true labels."""
        split, (chosen, predicted, _) = await self.load(), await self.choose(predictor, selection)
        draw = partial(draw_gallery, columns=selection.columns)
        return await predictor.draw(draw, split.images[chosen], split.labels[chosen], predicted)

    async def choose(self, predictor: Predictor, selection: Selection) -> Chosen:
        """Returns the selected test images and their predicted classes."""
        split = await self.load()
        everywhere = (await self.measure(predictor)).logits.argmax(1) if selection.needs_predictions else None
        found = selection.order(split.labels, everywhere)
        chosen = selection.on_page(found)
        if everywhere is not None:
            return Chosen(chosen, everywhere[chosen], len(found))
        return Chosen(chosen, (await _infer(predictor, split.images[chosen])).argmax(1), len(found))

    async def gallery(self, predictor: Predictor, selection: Selection) -> GalleryItems:
        """Returns the selected test images as a list."""
        split, (chosen, predicted, count) = await self.load(), await self.choose(predictor, selection)
        return GalleryItems(
            count=count,
            items=[
                GalleryItem(index=index, label=CLASSES[label], predicted=CLASSES[found], correct=bool(label == found))
                for index, label, found in zip(chosen.tolist(), split.labels[chosen], predicted, strict=True)
            ],
        )

    async def image(self, index: int) -> NDArray[np.uint8]:
        """Returns the test image at ``index``, uint8 ``[28, 28]``; raises UnknownImage if there is none."""
        images = (await self.load()).images
        if not 0 <= index < len(images):
            raise UnknownImage(f"The test set has no image {index}: choose a number from 0 to {len(images) - 1:,}.")
        image: NDArray[np.uint8] = images[index]
        return image

    def progress(self, predictor: Predictor) -> Progress:
        """Returns the progress of a model's measurement in this process."""
        return self._progress.get(self.key(predictor)) or Progress(completed=0, total=TEST_IMAGES)

    async def _measure(self, predictor: Predictor) -> Measurement:
        split = await self.load()
        key, count, start, logits = self.key(predictor), len(split.labels), time.perf_counter(), []
        for batch in batches(split.images):
            logits.append(await _infer(predictor, batch))
            self._progress[key] = Progress(completed=sum(map(len, logits)), total=count)
        return Measurement(np.concatenate(logits), time.perf_counter() - start)

    def _load_version(self, _fingerprint: str) -> Split:
        return self.data_set.load("test")


async def _infer(predictor: Predictor, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns the logits ``[N, 10]`` of test images ``[N, 28, 28]``, N from 0; predictions go first."""
    fitted = await predictor.run_in_background(partial(fit_data_set, images, predictor.card.input))
    return (await predictor.run(fitted, background=True)).logits


def _failed(task: asyncio.Task[Measurement]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
