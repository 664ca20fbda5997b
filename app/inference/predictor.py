"""From pictures to predictions: artefact, engine and batcher. Handles no requests.

Raises Overloaded and UnknownModel of ``app.problems``, which become responses with status 429 and 404.
"""

import asyncio
import copy
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.inference.batcher import MicroBatcher, QueueFull
from app.inference.models import Served
from app.metrics import CONFIDENCE, MODEL_INFO, BatchObserver, StageTimer
from app.problems import Overloaded, UnknownModel
from app.settings import Settings
from model import (
    Engine,
    ModelCard,
    Picture,
    Prediction,
    classify,
    preprocess,
)
from model.engines import EngineOutputs, Finding
from model.errors import ImageError
from model.evaluation import chunks
from model.explanation import heat_map, occlusions
from model.prediction import examine, findings, views
from model.preprocessing import UNTOUCHED, Choice, is_in_form

SMALL_BYTES = 4096
"""Encoded pictures up to this size are decoded with their batch: that takes less than handing them to a thread."""
SMALL_SECONDS = 0.0001
"""About what the decoding of one takes."""
LOOP_SECONDS = 0.004
"""How long an engine may hold the event loop; health and new requests wait meanwhile."""
BACKGROUND_NICENESS = 10
NO_TIMER = StageTimer(on=False)

Item = TypeVar("Item")


class Seen(NamedTuple):
    """A picture and what the engine says of it."""

    picture: Picture
    finding: Finding


class Explanation(NamedTuple):
    """An answer and what it rests on."""

    prediction: Prediction
    heat: NDArray[np.float32]
    """``[28, 28]``, see ``model.heat_map``."""


class Executors(NamedTuple):
    """Where work runs beside the event loop."""

    inference: Executor
    """One thread: engines have threads of their own, and two batches at once would only share the caches."""
    background: Executor
    """One thread of low priority, for inference that predictions must not wait for."""
    decoding: Executor
    """Large pictures; few threads, because each may hold a decoded picture of ``max_pixels``."""

    @classmethod
    def create(cls) -> "Executors":
        """Fresh threads, started when first needed."""
        return cls(
            ThreadPoolExecutor(1, "inference"),
            ThreadPoolExecutor(1, "background", yield_to_others),
            ThreadPoolExecutor(2, "decoding"),
        )

    def shut_down(self) -> None:
        """Let what runs finish, and drop what waits."""
        for executor in self:
            executor.shutdown(cancel_futures=True)


class Predictor:
    """One served network."""

    def __init__(self, card: ModelCard, engine: Engine, executors: Executors, settings: Settings) -> None:
        self.card = card
        self.engine = engine
        self.choice = Choice(self, self)
        self.executors = executors
        self.max_pixels = settings.max_pixels
        self.batch_size = settings.batch_size
        self.batcher = MicroBatcher(
            self._compute,
            executors.inference,
            max_batch=settings.batch_size,
            max_queue=settings.queue_size,
            weigh=_views,
            observe=BatchObserver(card.name),
        )
        self.bulk: set[asyncio.Task[Any]] = set()
        """What the engine has still to do of requests with many pictures (``app.inference.batch_request``)."""
        self._confidence = {label: CONFIDENCE.labels(card.name, label) for label in card.classes}
        MODEL_INFO.labels(card.name, card.version, card.architecture, engine.name).set(1)

    def leaving_photos_to(self, other: "Predictor") -> Self:
        """The same network, queue and all, in whose place ``other`` answers photos."""
        same = copy.copy(self)
        same.choice = Choice(self, other)
        return same

    def is_slow(self, content: bytes) -> bool:
        """Whether an answer takes so long that the caller may leave meanwhile: decoding or the engine has a thread."""
        return self.batcher.executor is not None or not _decodes_at_once(content)

    async def predict(self, content: bytes, timer: StageTimer = NO_TIMER, *, with_image: bool = False) -> Prediction:
        """Classify one encoded picture; ``with_image`` adds what the network saw of it.

        Raises:
            ImageError: the picture cannot be used.
            Overloaded: too many pictures wait for the engine.
        """
        if _decodes_at_once(content):
            network, seen = self, await self._submit(content)
        else:
            picture = await self.preprocess(content)
            network = self.choice.of(picture)
            seen = await network._submit(picture)
        timer.end("wait")
        return network.answer(seen, with_image=with_image)

    async def explain(self, content: bytes) -> Explanation:
        """Classify one encoded picture and say which of its parts the answer rests on; raises as ``predict``."""
        if any(network.batcher.full for network in self.choice):
            raise Overloaded
        picture = await self.preprocess(content)
        return await self.choice.of(picture)._explain(picture)

    async def _explain(self, picture: Picture) -> Explanation:
        finding = next(await self.examine([picture]))
        loop, inference = asyncio.get_running_loop(), self.executors.inference
        outputs = await loop.run_in_executor(inference, self.engine.run, occlusions(picture.image))
        prediction = self.answer(Seen(picture, finding))
        return Explanation(prediction, heat_map(outputs.logits / self.card.temperature, prediction.class_id))

    def answer(self, seen: Seen, *, with_image: bool = False) -> Prediction:
        """What the engine says of one picture -> the prediction, counted."""
        prediction = classify(seen.finding, self.card, seen.picture, with_image=with_image)
        self._confidence[prediction.label].observe(prediction.confidence)
        return prediction

    async def infer(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """N pictures -> logits float32 ``[N, 10]``; many go in whole batches, past the queue."""
        if len(pictures) == 1:
            return (await self._submit(pictures[0])).finding.logits[None]
        starts = range(0, len(pictures), self.batch_size)
        findings = [await self.examine(pictures[start : start + self.batch_size]) for start in starts]
        logits = [finding.logits for batch in findings for finding in batch]
        return np.stack(logits) if logits else self._no_logits()

    async def infer_images(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Images uint8 ``[N, 28, 28]`` in the data set's convention -> logits float32 ``[N, 10]``, as ``infer``."""
        if len(images) == 1:
            return await self.infer([Picture(images, UNTOUCHED)])
        loop, inference, run = asyncio.get_running_loop(), self.executors.inference, self.engine.run
        outputs = [await loop.run_in_executor(inference, run, chunk) for chunk in chunks(images, self.batch_size)]
        return np.concatenate([self._no_logits(), *(output.logits for output in outputs)])

    def _no_logits(self) -> NDArray[np.float32]:
        return np.zeros((0, len(self.card.classes)), np.float32)

    async def infer_in_background(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Images uint8 ``[N, 28, 28]`` -> logits ``[N, 10]``, as one call of the engine; for work that can wait."""
        return (await self.run_in_background(partial(self.engine.run, images))).logits

    async def run_in_background(self, work: Callable[[], Item]) -> Item:
        """What ``work`` comes to, as predictions leave time for it."""
        return await asyncio.get_running_loop().run_in_executor(self.executors.background, work)

    async def self_test(self) -> None:
        """One inference through everything that a prediction goes through; raises what goes wrong.

        An engine that turns out to be quick is from then on called on the event loop itself.
        """
        logits = await self.infer([Picture(np.zeros((1, 28, 28), np.uint8), UNTOUCHED)])
        if logits.shape != (1, len(self.card.classes)) or not np.isfinite(logits).all():
            raise ValueError(f"{self.card.name} answered {logits}")
        affordable = int(LOOP_SECONDS / (await _seconds_per_image(self.engine) + SMALL_SECONDS))
        if affordable > 1:
            self.batcher.executor = None
            self.batcher.max_batch = min(affordable, self.batch_size)

    async def preprocess(self, content: bytes) -> Picture:
        """An encoded picture -> what the network sees of it; raises ImageError where it cannot be used."""
        return preprocess(content, self.max_pixels) if len(content) <= SMALL_BYTES else await self.hand_over(content)

    def hand_over(self, content: bytes) -> "asyncio.Future[Picture]":
        """The picture to be, decoded in a thread."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self.executors.decoding, preprocess, content, self.max_pixels)

    async def _submit(self, value: bytes | Picture) -> Seen:
        try:
            return await self.batcher.submit(value)
        except QueueFull:
            raise Overloaded from None

    def _compute(self, values: list[bytes | Picture]) -> list[Seen | Exception]:
        """What a batch comes to: what the engine says of each picture, encoded or not, or why it says nothing."""
        pictures = [self.decode(value) if isinstance(value, bytes) else value for value in values]
        findings = examine(self.engine, [picture for picture in pictures if isinstance(picture, Picture)])
        return [Seen(picture, next(findings)) if isinstance(picture, Picture) else picture for picture in pictures]

    def decode(self, content: bytes) -> Picture | ImageError:
        """What the network sees of an encoded picture, or why it cannot be used; here and now."""
        try:
            return preprocess(content, self.max_pixels)
        except ImageError as error:
            return error

    async def examine(
        self, pictures: Sequence[Picture], begun: "asyncio.Future[None] | None" = None
    ) -> Iterator[Finding]:
        """What the engine says of each picture; ``begun`` is set when its thread has come to them."""
        if not pictures:
            return iter(())
        loop, images = asyncio.get_running_loop(), views(pictures)

        def begin() -> None:
            if begun is not None and not begun.done():
                begun.set_result(None)

        def work() -> EngineOutputs:
            loop.call_soon_threadsafe(begin)
            return self.engine.run(images)

        # In its thread the engine has to wait for the interpreter's lock, so all else is done here.
        return findings(await loop.run_in_executor(self.executors.inference, work), pictures)


def _decodes_at_once(content: bytes) -> bool:
    """Whether an encoded picture is so simple that it is decoded with its batch: surely no photo, and small."""
    return len(content) <= SMALL_BYTES and is_in_form(content)


def _views(value: bytes | Picture) -> int:
    """How many images the engine will see of it; what is small and not decoded yet is hardly a photo: one."""
    return 1 if isinstance(value, bytes) else len(value.views)


def yield_to_others() -> None:
    """Give the calling thread a low priority, where the system has priorities for threads (Linux)."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_NICENESS)


async def _seconds_per_image(engine: Engine) -> float:
    """What one image takes: the median of some, each alone; other requests are heard in between."""
    image, times = np.zeros((1, 28, 28), np.uint8), []
    for _ in range(5):
        start = time.perf_counter()
        engine.run(image)
        times.append(time.perf_counter() - start)
        await asyncio.sleep(0)
    return statistics.median(times)


class Predictors(Mapping[str, Predictor]):
    """The served networks by name, and what answers where no name is given."""

    def __init__(self, served: list[Served], executors: Executors, settings: Settings) -> None:
        self._by_name = {one.card.name: Predictor(one.card, one.engine(), executors, settings) for one in served}
        self.default, self.photos = settings.models_among(self._by_name)
        self.unnamed = self[self.default].leaving_photos_to(self[self.photos])

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
