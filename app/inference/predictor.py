"""From encoded pictures to predictions."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.inference.admission import EXPLANATION_COST, Admission, BodyMemory, Reservation, batch_cost, picture_cost
from app.inference.batcher import MicroBatcher
from app.inference.decoding import Decoder, DecodingBudget
from app.inference.drift import RecentPredictions
from app.inference.errors import DrawingTooLarge, UnknownModel
from app.inference.executors import Executors
from app.inference.models import ServedModel, check_logits
from app.inference.sandbox import CallEnded
from app.inference.shadow import Shadow
from app.metrics import CONFIDENCE, MODEL_INFO, QUEUE_DEPTH, BatchObserver, StageTimer, create_files
from app.settings import Settings, metrics_folder
from model import Engine, ModelCard, Picture, Prediction, classify
from model.engines import EngineOutputs, ImageOutput, batches, images_per_call
from model.explanation import attribute
from model.plots import draw_explanation
from model.prediction import LoadedModel, ModelPair, choice_reason, classify_pictures, input_of, run_pictures
from model.preprocessing import IDENTITY, PictureKind

CHUNK = 32
"""Pictures of a request for many that are decoded and classified together."""
CHUNK_BYTES = 4_000_000
"""Bytes of encoded pictures after which a chunk has no more pictures."""
ARRIVAL_SECONDS = 2
"""Time in which a form is expected to arrive."""

Item = TypeVar("Item")
Outcomes = list[Prediction | Exception]


class Inferred(NamedTuple):
    """A picture and the engine's output for it."""

    picture: Picture
    output: ImageOutput


class Explanation(NamedTuple):
    """A prediction and its attribution."""

    prediction: Prediction
    attribution: NDArray[np.float32]
    """``[28, 28]``, see ``model.explanation.attribute``."""
    drawing: bytes | None = None
    """A PNG."""


class Predictor:
    """One served model: its card, its engine and the micro-batcher in front of it.

    Args:
        model: the card and the engine.
        executors: the threads of this process.
        settings: of which ``max_batch_size`` matters.
        admission: of this process.
        decoder: of this process.
    """

    def __init__(
        self, model: ServedModel, executors: Executors, settings: Settings, admission: Admission, decoder: Decoder
    ) -> None:
        self.decoder = decoder
        self.card: ModelCard = model.card
        self.engine: Engine = model.engine()
        self.executors = executors
        self.admission = admission
        self.on_event_loop = model.on_event_loop
        self.recent = RecentPredictions(self.card)
        self.shadow: Shadow | None = None
        self._observer = BatchObserver(self.card.name)
        self.batcher = MicroBatcher(
            partial(run_pictures, self.engine),
            None if self.on_event_loop else executors.inference,
            max_batch=settings.max_batch_size if images_per_call(self.card.input.shape) > 1 else 1,
            observe=self._observer,
        )
        self.info = self.card.name, self.card.version, self.card.architecture, self.engine.name

    async def submit(self, picture: Picture) -> Inferred:
        """Returns the engine's output for one picture, computed in the next micro-batch."""
        return Inferred(picture, await self.batcher.submit(picture))

    def to_prediction(self, inferred: Inferred, choice: str, *, with_image: bool = False) -> Prediction:
        """Returns the prediction for one picture and counts it; ``choice`` says why this model was chosen."""
        prediction = classify(inferred.output, self.card, inferred.picture, choice, with_image=with_image)
        self.observe(inferred.picture, prediction)
        return prediction

    def observe(self, picture: Picture, prediction: Prediction) -> None:
        """Counts a prediction of this model, and has the shadow model make one."""
        CONFIDENCE.labels(prediction.model, prediction.label).observe(prediction.confidence)
        self.recent.add(prediction)
        if self.shadow:
            self.shadow.compare(picture, prediction)

    def observe_outputs(self, outputs: Iterable[ImageOutput]) -> None:
        """Counts outputs that are answered as they are, for the drift alone: they are tensors, not predictions."""
        for output in outputs:
            self.recent.add_output(output)

    def update_metrics(self) -> None:
        """Sets the gauges, and counts what the shadow model has done."""
        QUEUE_DEPTH.labels(self.card.name).set(self.batcher.depth)
        self.recent.set_gauges()
        if self.shadow:
            self.shadow.count()

    async def run(self, images: NDArray[np.uint8], *, background: bool = False) -> EngineOutputs:
        """Runs the engine on images uint8 ``[N, *shape]``, in batches; ``background`` leaves time for predictions."""
        loop = asyncio.get_running_loop()
        executor = self.executors.background if background else self.executors.inference
        outputs = []
        for batch in batches(images):
            outputs.append(await loop.run_in_executor(executor, self.engine.run, batch))
            if not background:
                self._observer.count(len(batch))
        return EngineOutputs(*(np.concatenate(parts) for parts in zip(*outputs, strict=True)))

    async def run_in_background(self, work: Callable[[], Item]) -> Item:
        """Returns the result of ``work``, which runs in a thread that leaves time for predictions."""
        return await asyncio.get_running_loop().run_in_executor(self.executors.background, work)

    async def draw(self, function: Callable[..., bytes], *args: object) -> bytes:
        """Returns what ``function`` draws in the helper process; a thread would delay other requests."""
        async with self.admission.drawing_turn:
            try:
                return await self.decoder.call(function, *args)
            except CallEnded:
                raise DrawingTooLarge from None

    async def self_test(self) -> None:
        """Predicts a black image; raises an exception if that fails."""
        check_logits(self.card, (await self.submit(Picture(self.card.input.blank(), IDENTITY))).output.logits)


class Classifier:
    """Classifies encoded pictures. Photos may have a model of their own."""

    def __init__(self, default: Predictor, photos: Predictor | None = None) -> None:
        self.pair = ModelPair(default, photos or default)
        loaded = {each: LoadedModel(each.engine, each.card) for each in self.pair}
        self.loaded = ModelPair(*(loaded[each] for each in self.pair))
        self.inputs = {kind: input_of(self.loaded, kind) for kind in PictureKind}
        self.executors, self.admission, self.decoder = default.executors, default.admission, default.decoder

    @property
    def default(self) -> Predictor:
        """The model for all pictures but photos."""
        return self.pair.default

    def prepare(self, content: bytes) -> Picture | bytes:
        """Returns the model's input for an encoded picture if that takes microseconds, else the content itself."""
        return self.decoder.native(content, self.inputs) or content

    def runs_in_thread(self, prepared: Picture | bytes) -> bool:
        """Whether a prediction takes long enough that the client may disconnect meanwhile."""
        return not (self.default.on_event_loop and isinstance(prepared, Picture))

    async def predict(self, prepared: Picture | bytes, timer: StageTimer, *, with_image: bool = False) -> Prediction:
        """Classifies what ``prepare`` returned; ``with_image`` adds the network's input.

        Raises:
            ImageError: the picture cannot be used.
            Overloaded: the picture would wait too long.
        """
        inferred = await self.infer(prepared)
        timer.end("wait")
        return self._to_prediction(inferred, with_image=with_image)

    async def predict_many(
        self,
        contents: AsyncIterable[bytes | Exception],
        memory: BodyMemory,
        reservation: Reservation,
        *,
        with_image: bool = False,
    ) -> Outcomes:
        """Returns a prediction or an error for each encoded picture; a given exception is returned as it is.

        Pictures are classified while others arrive. Those that are done count as freed in ``memory``. ``reservation``
        expects all of them. After ``ARRIVAL_SECONDS`` it counts only the chunks that have arrived and are not done: a
        client that sends slowly keeps nobody else out.
        """
        tasks: list[asyncio.Task[Outcomes]] = []
        work = partial(
            self._predict_chunk, reservation=reservation, budget=self.decoder.budget(), with_image=with_image
        )
        timer = asyncio.get_running_loop().call_later(ARRIVAL_SECONDS, reservation.stop_expecting)
        try:
            async for chunk in _chunks(contents):
                reservation.arrive(batch_cost(_size(chunk), len(chunk)))
                await self.admission.chunk_turns.acquire()
                tasks.append(self._start_chunk(work(chunk), _size(chunk), memory))
            return [outcome for outcomes in await asyncio.gather(*tasks) for outcome in outcomes]
        finally:
            timer.cancel()
            for task in tasks:
                task.cancel()

    async def infer(self, prepared: Picture | bytes) -> Inferred:
        """Returns the engine's output for what ``prepare`` returned; raises as ``predict``."""
        if isinstance(prepared, Picture):
            with self.admission.images.admit():
                return await self._submit(prepared)
        with self.admission.pictures.admit(picture_cost(len(prepared))):
            return await self._submit(await self.decoder.decode(prepared, self.inputs))

    async def explain(self, content: bytes, *, drawn: bool) -> Explanation:
        """Classifies one encoded picture and attributes the prediction to its pixels; raises as ``predict``."""
        with self.admission.pictures.admit(EXPLANATION_COST + picture_cost(len(content))):
            inferred = await self._submit(await self.decoder.preprocess(content, self.inputs))
            prediction = self._to_prediction(inferred)
            heat = await self._attribute(inferred, prediction.class_id)
            if not drawn:
                return Explanation(prediction, heat)
            # The picture is decoded again, larger and in grey.
            drawing = await self.decoder.run(draw_explanation, content, heat, prediction.preprocessing)
            return Explanation(prediction, heat, drawing)

    async def _attribute(self, inferred: Inferred, class_id: int) -> NDArray[np.float32]:
        predictor = self.pair.choose(inferred.picture.kind)
        work = partial(attribute, predictor.engine, inferred.picture.image, class_id, predictor.card.temperature)
        return await asyncio.get_running_loop().run_in_executor(self.executors.inference, work)

    async def _submit(self, picture: Picture) -> Inferred:
        return await self.pair.choose(picture.kind).submit(picture)

    def _to_prediction(self, inferred: Inferred, *, with_image: bool = False) -> Prediction:
        kind = inferred.picture.kind
        reason = choice_reason(self.pair, kind)
        return self.pair.choose(kind).to_prediction(inferred, reason, with_image=with_image)

    def _start_chunk(
        self, work: Coroutine[Any, Any, Outcomes], size: int, memory: BodyMemory
    ) -> asyncio.Task[Outcomes]:
        """Starts the work on a chunk of ``size`` bytes that has its turn; then gives turn and memory back."""
        task = asyncio.create_task(work)

        def give_back(_: asyncio.Task[Outcomes]) -> None:
            self.admission.chunk_turns.release()
            memory.release(size)

        task.add_done_callback(give_back)
        return task

    async def _predict_chunk(
        self, contents: list[bytes | Exception], *, reservation: Reservation, budget: DecodingBudget, with_image: bool
    ) -> Outcomes:
        cost = batch_cost(_size(contents), len(contents))
        with self.admission.batches.measure(cost):
            # One after the other, so that single pictures are decoded in between.
            pictures = [await self.decoder.preprocess_or_error(content, self.inputs, budget) for content in contents]
            work = partial(classify_pictures, self.loaded, pictures, with_image=with_image)
            outcomes = await asyncio.get_running_loop().run_in_executor(self.executors.inference, work)
        reservation.finish(cost)
        for picture, outcome in zip(pictures, outcomes, strict=True):
            if isinstance(picture, Picture) and isinstance(outcome, Prediction):
                self.pair.choose(picture.kind).observe(picture, outcome)
        return outcomes


async def _chunks(contents: AsyncIterable[bytes | Exception]) -> AsyncIterator[list[bytes | Exception]]:
    chunk: list[bytes | Exception] = []
    async for content in contents:
        chunk.append(content)
        if len(chunk) == CHUNK or _size(chunk) >= CHUNK_BYTES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _size(contents: Iterable[bytes | Exception]) -> int:
    return sum(len(content) for content in contents if isinstance(content, bytes))


class Predictors:
    """The served models by name, and the classifiers that requests address."""

    def __init__(
        self,
        models: Sequence[ServedModel],
        executors: Executors,
        settings: Settings,
        admission: Admission,
        decoder: Decoder,
    ) -> None:
        self.decoder = decoder
        self._resources = executors, settings, admission, decoder
        self._by_name = {model.card.name: Predictor(model, *self._resources) for model in models}
        self.default_name, self.photos_name = settings.models_among(self._by_name)
        self._classifiers = {name: Classifier(predictor) for name, predictor in self._by_name.items()}
        self._unnamed = Classifier(self[self.default_name], self[self.photos_name])
        if settings.shadow_model:
            self._add_shadow(self[settings.shadow_model], settings.shadow_share)

    def __getitem__(self, name: str) -> Predictor:
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownModel(f"There is no model {name!r:.80} here; there are: {', '.join(self._by_name)}.") from None

    def values(self) -> Iterable[Predictor]:
        """Returns the served models."""
        return self._by_name.values()

    def _add_shadow(self, shadow: Predictor, share: float) -> None:
        """Has ``shadow`` compared with the models that take the same input."""
        for predictor in self.values():
            if predictor is not shadow and predictor.card.input == shadow.card.input:
                predictor.shadow = Shadow(shadow.card, shadow.engine, shadow.executors.background, share)

    def classifier(self, name: str | None) -> Classifier:
        """Returns what classifies for requests that name this model, or no model; raises UnknownModel."""
        return self._unnamed if name is None else self._classifiers[self[name].card.name]

    def with_models(self, models: Sequence[ServedModel]) -> "Predictors":
        """Returns predictors of other models in the same process."""
        return Predictors(models, *self._resources)

    def show_in_metrics(self, before: Iterable[Predictor] = ()) -> None:
        """Sets the gauge of the served models, and creates their series; they take the place of those ``before``."""
        for predictor in before:
            QUEUE_DEPTH.labels(predictor.card.name).set(0)
            RecentPredictions(predictor.card).set_gauges()  # to 0: it has none
            if metrics_folder():  # prometheus_client cannot remove what is in a file
                MODEL_INFO.labels(*predictor.info).set(0)
            else:
                MODEL_INFO.remove(*predictor.info)
        for predictor in self.values():
            MODEL_INFO.labels(*predictor.info).set(1)
            create_files(predictor.card.name, predictor.card.classes)

    async def self_test(self) -> None:
        """Tests every model."""
        for predictor in self.values():
            await predictor.self_test()
