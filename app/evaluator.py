"""The test set as the service uses it: loaded when first needed, and what each network says of it, measured once."""

import asyncio
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from app.predictor import Predictor
from app.schemas import Evaluation
from model import CLASSES, FashionMnist, Split, chunks, draw_gallery, report

CHUNK = 32
"""Images in one engine call of a measurement."""

Label = StrEnum("Label", [(name, name) for name in CLASSES])  # type: ignore[misc]


@dataclass(frozen=True)
class Measurement:
    """What a network says of every test image."""

    logits: NDArray[np.float32]
    """``[10000, 10]``"""
    seconds: float


class Selection(BaseModel):
    """Which test images a gallery shows."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    rows: int = Field(5, ge=1, le=20)
    columns: int = Field(8, ge=1, le=20)
    seed: int = Field(0, ge=0, le=2**63 - 1, description="another seed, other images")
    only: Literal["all", "wrong", "right"] = Field("all", description="which predictions")
    label: Label | None = Field(None, description="only images that truly are of this class")

    def choose(self, labels: NDArray[np.uint8], right: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Indices of the chosen images among those with ``labels`` ``[N]``, whose predictions are ``right`` ``[N]``."""
        eligible = np.ones(len(labels), np.bool_) if self.label is None else labels == CLASSES.index(self.label)
        if right is not None:
            eligible &= right if self.only == "right" else ~right
        shuffled = np.random.default_rng(self.seed).permutation(np.flatnonzero(eligible))
        return shuffled[: self.rows * self.columns]


class Evaluator:
    """Measures networks on the test images under a data folder, each once."""

    def __init__(self, data_set: FashionMnist) -> None:
        self.data_set = data_set
        self._load = lru_cache(maxsize=1)(self._load_version)
        self._measurements: dict[tuple[str, str, str], asyncio.Task[Measurement]] = {}

    @property
    def fingerprint(self) -> str:
        """Changes when the test files do."""
        return self.data_set.fingerprint("test")

    def key(self, predictor: Predictor) -> tuple[str, str, str]:
        """What a measurement depends on: the weights, their precision and the data."""
        return predictor.card.version, predictor.engine.name, self.fingerprint

    async def load(self) -> Split:
        """The 10,000 test images and labels; raises DataError where they cannot be had."""
        return await asyncio.to_thread(self._load, self.fingerprint)

    async def measure(self, predictor: Predictor) -> Measurement:
        """Run the network over the whole set, or return what that came to before.

        The result is kept by weights and data; concurrent callers share one run, which goes on when one leaves.
        """
        key = self.key(predictor)
        task = self._measurements.get(key)
        if task is None or _failed(task):
            task = self._measurements[key] = asyncio.create_task(self._measure(predictor))
        return await asyncio.shield(task)

    async def evaluate(self, predictor: Predictor) -> Evaluation:
        """Accuracy, loss, per-class figures and confusion matrix of the network on the test set."""
        measurement, split = await self.measure(predictor), await self.load()
        card = predictor.card
        figures = report(measurement.logits, split.labels, card.classes, card.temperature)
        return Evaluation(
            **figures.model_dump(), model=card.name, model_version=card.version, seconds=measurement.seconds
        )

    async def draw_gallery(self, predictor: Predictor, selection: "Selection") -> bytes:
        """A PNG grid of the test images that ``selection`` picks, captioned predicted and true."""
        split = await self.load()
        if selection.only == "all":
            chosen = selection.choose(split.labels)
            predicted = (await _infer(predictor, split.images[chosen])).argmax(1) if chosen.size else chosen
        else:
            everywhere = (await self.measure(predictor)).logits.argmax(1)
            chosen = selection.choose(split.labels, everywhere == split.labels)
            predicted = everywhere[chosen]
        return await asyncio.to_thread(
            draw_gallery, split.images[chosen], split.labels[chosen], predicted, columns=selection.columns
        )

    async def _measure(self, predictor: Predictor) -> Measurement:
        split = await self.load()
        start = time.perf_counter()
        logits = await _infer(predictor, split.images)
        return Measurement(logits, time.perf_counter() - start)

    def _load_version(self, _fingerprint: str) -> Split:
        return self.data_set.load("test")


async def _infer(predictor: Predictor, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits ``[N, 10]`` of images ``[N, 28, 28]``, in chunks, so that galleries and evaluations take turns."""
    return np.concatenate([await predictor.infer_in_background(chunk) for chunk in chunks(images, CHUNK)])


def _failed(task: "asyncio.Task[Measurement]") -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
