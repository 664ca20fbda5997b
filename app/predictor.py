"""From pictures to predictions: artefact, engine and batcher. Knows no HTTP; every route and protocol calls it."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from app.batcher import MicroBatcher, QueueFull
from app.errors import Overloaded, UnknownModel
from app.settings import Settings
from model import (
    ENGINE_FORMATS,
    Artifact,
    ArtifactMissing,
    Engine,
    ModelCard,
    Prediction,
    chunks,
    classify,
    create_engine,
    list_artifacts,
    load_artifact,
    preprocess,
)

INLINE_BYTES = 64 * 1024
"""Encoded pictures up to this size are decoded on the event loop: that takes less than handing them to a thread."""


class Executors(NamedTuple):
    """Where work runs beside the event loop."""

    inference: Executor
    """One thread: engines have threads of their own, and two batches at once would only share the caches."""
    decoding: Executor
    """Large pictures; few threads, because each may hold a decoded picture of ``max_pixels``."""

    @classmethod
    def create(cls) -> "Executors":
        """Fresh threads, started when first needed."""
        return cls(ThreadPoolExecutor(1, "inference"), ThreadPoolExecutor(2, "decoding"))

    def shut_down(self) -> None:
        """Let what runs finish, and drop what waits."""
        for executor in self:
            executor.shutdown(cancel_futures=True)


class Predictor:
    """One served network."""

    def __init__(self, card: ModelCard, engine: Engine, executors: Executors, settings: Settings) -> None:
        self.card = card
        self.engine = engine
        self.executors = executors
        self.max_pixels = settings.max_pixels
        self.batch_size = settings.batch_size
        self.batcher = MicroBatcher(
            engine.run, executors.inference, max_batch=settings.batch_size, max_queue=settings.queue_size
        )

    async def predict(self, content: bytes) -> Prediction:
        """Classify one encoded picture.

        Raises:
            ImageError: the picture cannot be used.
            Overloaded: too many pictures wait for the engine.
        """
        return classify(await self.infer(await self.preprocess(content)), self.card)

    async def predict_many(self, contents: Sequence[bytes | Exception]) -> list[Prediction | BaseException]:
        """Classify many encoded pictures; each gets its own answer, in their order: a prediction or what went wrong.

        What is an exception already is passed through.
        """
        answers: list[Prediction | BaseException] = []
        for start in range(0, len(contents), self.batch_size):
            chunk = contents[start : start + self.batch_size]
            answers += await asyncio.gather(*map(self._predict_or_raise, chunk), return_exceptions=True)
        return answers

    async def infer(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Image uint8 ``[28, 28]`` in the data set's convention -> logits float32 ``[10]``."""
        try:
            logits, _ = await self.batcher.submit(image)
        except QueueFull:
            raise Overloaded("As many pictures wait here as may: try again in a second.") from None
        return logits

    async def infer_many(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Images uint8 ``[N, 28, 28]`` -> logits float32 ``[N, 10]``; many go in whole batches, past the queue."""
        if len(images) == 1:
            return (await self.infer(images[0]))[None]
        batches = [await self.infer_chunk(chunk) for chunk in chunks(images, self.batch_size)]
        return np.concatenate(batches) if batches else np.zeros((0, len(self.card.classes)), np.float32)

    async def infer_chunk(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Images uint8 ``[N, 28, 28]`` -> logits ``[N, 10]``, as one call of the engine; for work that can wait.

        The caller keeps N small: predictions that arrive meanwhile wait for one chunk.
        """
        loop = asyncio.get_running_loop()
        outputs = await loop.run_in_executor(self.executors.inference, self.engine.run, images)
        return outputs.logits

    async def self_test(self) -> None:
        """One inference through everything that a prediction goes through; raises what goes wrong."""
        logits = await self.infer(np.zeros((28, 28), np.uint8))
        if logits.shape != (len(self.card.classes),) or not np.isfinite(logits).all():
            raise ValueError(f"{self.card.name} answered {logits}")

    async def preprocess(self, content: bytes) -> NDArray[np.uint8]:
        """An encoded picture -> uint8 ``[28, 28]``; raises ImageError where it cannot be used."""
        if len(content) <= INLINE_BYTES:
            return preprocess(content, self.max_pixels)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executors.decoding, preprocess, content, self.max_pixels)

    async def _predict_or_raise(self, content: bytes | Exception) -> Prediction:
        if isinstance(content, Exception):
            raise content
        return await self.predict(content)


class Predictors(Mapping[str, Predictor]):
    """The served networks by name."""

    def __init__(self, artifacts: list[Artifact], executors: Executors, settings: Settings) -> None:
        self.default = settings.default_model
        self._by_name = {
            artifact.card.name: Predictor(
                artifact.card, create_engine(settings.engine, artifact, settings.threads), executors, settings
            )
            for artifact in artifacts
        }

    def __getitem__(self, name: str) -> Predictor:
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownModel(f"There is no model {name!r:.80} here; there are: {', '.join(self)}.") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    async def self_test(self) -> None:
        """Test every network."""
        for predictor in self.values():
            await predictor.self_test()


def load_artifacts(settings: Settings) -> list[Artifact]:
    """Every artefact of the model folder, with the file that the engine needs, checked.

    Raises:
        ArtifactError: one is missing, truncated or altered, or the default is not there.
    """
    names = list_artifacts(settings.model_dir)
    if settings.default_model not in names:
        there = ", ".join(names) or "none at all"
        raise ArtifactMissing(
            f"The model folder {settings.model_dir} holds no {settings.default_model}.json (there is {there}): "
            "set FASHIONNET_MODEL_DIR or FASHIONNET_DEFAULT_MODEL, or train one with scripts/train.py."
        )
    return [load_artifact(settings.model_dir, name, (ENGINE_FORMATS[settings.engine],)) for name in names]
