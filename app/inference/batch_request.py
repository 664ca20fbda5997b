"""The many pictures of one request: in whole batches, past the queue, while those behind them still arrive."""

import asyncio
from collections.abc import Sequence

from app.inference.predictor import SMALL_BYTES, Predictor, Seen
from app.schemas import BatchAnswer
from model import Picture, Prediction

FIRST_CHUNK = 8
"""Pictures of one request that go first to an engine that has nothing to do, so that it soon has ..."""
BULK_CHUNK = 32
"""... and the most that follow together, or go first to one that has. The next chunk is read and decoded meanwhile, on
another core, which takes about half of the engine's time for as many: so each may be twice the one before."""

Content = bytes | Exception
"""An encoded picture, or why there is none."""


class ManyPictures:
    """The pictures of one request, answered by ``predictor``: what is an exception already is passed through."""

    def __init__(self, predictor: Predictor, *, with_image: bool = False) -> None:
        self._predictor, self._with_image = predictor, with_image
        self._chunk: list[Content] = []
        self._size = BULK_CHUNK if predictor.bulk else FIRST_CHUNK
        self._batches: list[asyncio.Task[bytes]] = []

    async def add(self, content: Content) -> None:
        """Take one more picture; the engine may have begun with it on return, or with some before it."""
        self._chunk.append(content)
        if len(self._chunk) == self._size:
            await self._send()
            self._size = min(2 * self._size, BULK_CHUNK)

    async def answers(self) -> list[bytes]:
        """Parts of the answer: to each picture, in their order, a prediction or what went wrong; none without any."""
        if self._chunk:
            await self._send()
        return [await batch for batch in self._batches]

    async def _send(self) -> None:
        pictures, self._chunk = await self._decode(self._chunk), []
        begun = asyncio.get_running_loop().create_future()
        batch = asyncio.create_task(self._answer(pictures, begun))
        self._batches.append(batch)
        self._predictor.bulk.add(batch)
        batch.add_done_callback(self._predictor.bulk.discard)
        # Decoding holds the interpreter's lock, which the engine needs once more to begin.
        await asyncio.wait((begun, batch), return_when=asyncio.FIRST_COMPLETED)

    async def _decode(self, contents: Sequence[Content]) -> list[Picture | BaseException]:
        """Small pictures here and now, large ones in their threads; what is an exception already stays one."""
        work = [self._decode_or_hand_over(content) for content in contents]
        later = [item for item in work if isinstance(item, asyncio.Future)]
        handed_over = iter(await asyncio.gather(*later, return_exceptions=True))
        return [next(handed_over) if isinstance(item, asyncio.Future) else item for item in work]

    def _decode_or_hand_over(self, content: Content) -> "Picture | Exception | asyncio.Future[Picture]":
        if isinstance(content, Exception):
            return content
        if len(content) <= SMALL_BYTES:
            return self._predictor.decode(content)
        return self._predictor.hand_over(content)

    async def _answer(self, pictures: list[Picture | BaseException], begun: "asyncio.Future[None]") -> bytes:
        choose, shares = self._predictor.choice.of, dict[Predictor, list[Picture]]()
        for picture in pictures:
            if isinstance(picture, Picture):
                shares.setdefault(choose(picture), []).append(picture)
        findings = {network: await network.examine(its, begun) for network, its in shares.items()}

        def answer(picture: Picture) -> Prediction:
            network = choose(picture)
            return network.answer(Seen(picture, next(findings[network])), with_image=self._with_image)

        answers = [answer(picture) if isinstance(picture, Picture) else picture for picture in pictures]
        return BatchAnswer.of(answers).part()
