"""From encoded pictures to predictions."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.inference.admission import Admission
from app.inference.batcher import MicroBatcher
from app.inference.errors import UnknownModel
from app.inference.executors import Executors
from app.inference.models import ServedModel
from app.metrics import MODEL_INFO, BatchObserver, StageTimer, count_prediction
from app.settings import Settings
from model import Engine, ModelCard, Picture, Prediction, classify, preprocess
from model.engines import EngineOutputs, ImageOutput, batches
from model.errors import ImageError
from model.explanation import attribute
from model.prediction import LoadedModel, ModelPair, choice_reason, classify_pictures, input_of, run_pictures, stack
from model.preprocessing import IDENTITY, is_native_png

SMALL_BYTES = 4096
"""Encoded pictures up to this size are decoded on the event loop: that takes less than handing them to a thread."""
CHUNK = 32
"""Pictures of a request for many that are decoded and classified together."""
NO_TIMER = StageTimer(on=False)

Item = TypeVar("Item")


class Inferred(NamedTuple):
    """A picture and the engine's output for it."""

    picture: Picture
    output: ImageOutput


class Explanation(NamedTuple):
    """A prediction and its attribution."""

    prediction: Prediction
    attribution: NDArray[np.float32]
    """``[28, 28]``, see ``model.explanation.attribute``."""


class Predictor:
    """One served model: its card, its engine and the micro-batcher in front of it.

    Args:
        model: the card and the engine.
        executors: the threads of this process.
        settings: of which ``max_pixels`` and ``max_batch_size`` matter.
        admission: of this process.
    """

    def __init__(self, model: ServedModel, executors: Executors, settings: Settings, admission: Admission) -> None:
        self.card: ModelCard = model.card
        self.engine: Engine = model.engine()
        self.executors = executors
        self.admission = admission
        self.max_pixels = settings.max_pixels
        self.on_event_loop = model.on_event_loop
        self.batcher = MicroBatcher(
            self._compute,
            None if self.on_event_loop else executors.inference,
            max_batch=settings.max_batch_size,
            observe=BatchObserver(self.card.name),
        )
        MODEL_INFO.labels(self.card.name, self.card.version, self.card.architecture, self.engine.name).set(1)

    async def submit(self, value: bytes | Picture) -> Inferred:
        """Returns the engine's output for one picture, computed in the next micro-batch.

        Raises:
            ImageError: the encoded picture cannot be used.
        """
        return await self.batcher.submit(value)

    def answer(self, inferred: Inferred, choice: str, *, with_image: bool = False) -> Prediction:
        """Returns the prediction for one picture and counts it; ``choice`` says why this model was chosen."""
        prediction = classify(inferred.output, self.card, inferred.picture, choice, with_image=with_image)
        count_prediction(prediction)
        return prediction

    async def run(self, images: NDArray[np.uint8], *, background: bool = False) -> EngineOutputs:
        """Runs the engine on images uint8 ``[N, *shape]``, in batches; ``background`` leaves time for predictions."""
        loop, executor = asyncio.get_running_loop(), self._executor(background=background)
        outputs = [await loop.run_in_executor(executor, self.engine.run, batch) for batch in batches(images)]
        return EngineOutputs(*(np.concatenate(parts) for parts in zip(*outputs, strict=True)))

    async def run_pictures(self, pictures: Sequence[Picture]) -> Iterator[ImageOutput]:
        """Returns the engine's output for each picture."""
        return (await self.run(stack(pictures))).image_outputs() if pictures else iter(())

    async def run_in_background(self, work: Callable[[], Item]) -> Item:
        """Returns the result of ``work``, which runs in a thread that leaves time for predictions."""
        return await asyncio.get_running_loop().run_in_executor(self.executors.background, work)

    async def self_test(self) -> None:
        """Predicts a black image; raises an exception if that fails."""
        logits = (await self.submit(Picture(self.card.input.blank(), IDENTITY))).output.logits
        if logits.shape != (len(self.card.classes),) or not np.isfinite(logits).all():
            raise ValueError(f"{self.card.name} returned {logits}")

    def _executor(self, *, background: bool) -> Executor:
        return self.executors.background if background else self.executors.inference

    def decode(self, content: bytes) -> Picture | ImageError:
        """Returns the decoded picture, or the error; runs in the calling thread."""
        try:
            return preprocess(content, lambda _: self.card.input, self.max_pixels)
        except ImageError as error:
            return error

    def _compute(self, values: list[bytes | Picture]) -> list[Inferred | Exception]:
        pictures = [self.decode(value) if isinstance(value, bytes) else value for value in values]
        good = [picture for picture in pictures if isinstance(picture, Picture)]
        outputs = run_pictures(self.engine, good)
        return [Inferred(picture, next(outputs)) if isinstance(picture, Picture) else picture for picture in pictures]


class Classifier:
    """Classifies encoded pictures by one model, or photos by another model than all other pictures."""

    def __init__(self, default: Predictor, photos: Predictor | None = None) -> None:
        self.predictors = ModelPair(default, photos or default)
        loaded = {each: LoadedModel(each.engine, each.card) for each in self.predictors}
        self.loaded = ModelPair(*(loaded[each] for each in self.predictors))
        self.input_of = partial(input_of, self.loaded)
        self.executors, self.admission, self.max_pixels = default.executors, default.admission, default.max_pixels

    @property
    def default(self) -> Predictor:
        """The model for all pictures but photos."""
        return self.predictors.default

    def runs_in_thread(self, content: bytes) -> bool:
        """Whether a prediction takes long enough that the client may disconnect meanwhile."""
        return not (self.default.on_event_loop and _is_decoded_in_batch(content))

    async def predict(self, content: bytes, timer: StageTimer = NO_TIMER, *, with_image: bool = False) -> Prediction:
        """Classifies one encoded picture; ``with_image`` adds the network's input.

        Raises:
            ImageError: the picture cannot be used.
            Overloaded: the picture would wait too long.
        """
        with self.admission.admit():
            if _is_decoded_in_batch(content):
                predictor, inferred = self.default, await self.default.submit(content)
            else:
                picture = await self.preprocess(content)
                predictor = self.predictors.choose(picture.kind)
                inferred = await predictor.submit(picture)
        timer.end("wait")
        return predictor.answer(inferred, self._choice(inferred), with_image=with_image)

    async def predict_many(
        self, contents: Sequence[bytes | Exception], *, with_image: bool = False
    ) -> list[Prediction | BaseException]:
        """Returns a prediction or an error for each encoded picture; a given exception is returned as it is."""
        parts = [contents[start : start + CHUNK] for start in range(0, len(contents), CHUNK)]
        answered = await asyncio.gather(*(self._predict_chunk(part, with_image=with_image) for part in parts))
        return [answer for part in answered for answer in part]

    async def explain(self, content: bytes) -> Explanation:
        """Classifies one encoded picture and attributes the prediction to its pixels; raises as ``predict``."""
        with self.admission.admit():
            picture = await self.preprocess(content)
            predictor = self.predictors.choose(picture.kind)
            inferred = await predictor.submit(picture)
            prediction = predictor.answer(inferred, self._choice(inferred))
            work = partial(attribute, predictor.engine, picture.image, prediction.class_id, predictor.card.temperature)
            heat = await asyncio.get_running_loop().run_in_executor(self.executors.inference, work)
        return Explanation(prediction, heat)

    async def preprocess(self, content: bytes) -> Picture:
        """Decodes a picture, a large one in a thread; raises ImageError if it cannot be used."""
        work = partial(preprocess, content, self.input_of, self.max_pixels)
        if len(content) <= SMALL_BYTES:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self.executors.decoding, work)

    def _choice(self, inferred: Inferred) -> str:
        return choice_reason(self.predictors, inferred.picture.kind)

    async def _predict_chunk(
        self, contents: Sequence[bytes | Exception], *, with_image: bool
    ) -> list[Prediction | BaseException]:
        async with self.admission.chunk_turns:
            decoding = (self.preprocess(content) for content in contents if isinstance(content, bytes))
            decoded = iter(await asyncio.gather(*decoding, return_exceptions=True))
            pictures = [next(decoded) if isinstance(content, bytes) else content for content in contents]
            work = partial(classify_pictures, self.loaded, pictures, with_image=with_image)
            outcomes = await asyncio.get_running_loop().run_in_executor(self.executors.inference, work)
        for outcome in outcomes:
            if isinstance(outcome, Prediction):
                count_prediction(outcome)
        return outcomes


class Predictors(Mapping[str, Predictor]):
    """The served models by name, and the classifiers that requests address."""

    def __init__(
        self, models: Sequence[ServedModel], executors: Executors, settings: Settings, admission: Admission
    ) -> None:
        self._by_name = {model.card.name: Predictor(model, executors, settings, admission) for model in models}
        self.default, self.photos = settings.models_among(self._by_name)
        self._classifiers = {name: Classifier(predictor) for name, predictor in self._by_name.items()}
        self._unnamed = Classifier(self[self.default], self[self.photos])

    def __getitem__(self, name: str) -> Predictor:
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownModel(f"There is no model {name!r:.80} here; there are: {', '.join(self)}.") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def classifier(self, name: str | None = None) -> Classifier:
        """Returns what classifies for requests that name this model, or no model; raises UnknownModel."""
        return self._classifiers[self[name].card.name] if name else self._unnamed

    async def self_test(self) -> None:
        """Tests every model."""
        for predictor in self.values():
            await predictor.self_test()


def _is_decoded_in_batch(content: bytes) -> bool:
    """Whether an encoded picture is small and of 28x28 grey pixels, so that it is decoded with its batch."""
    return len(content) <= SMALL_BYTES and is_native_png(content)
