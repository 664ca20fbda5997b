"""A micro-batcher that adds no latency: asyncio only.

An idle model is run at once. Pictures that arrive while it is busy form its next batch. There is no timer.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass

from model import Picture
from model.engines import ImageOutput

Observer = Callable[[int, float, float], None]
"""Called after every successful batch with its size, the wait of its first item and its duration, in seconds."""


@dataclass(slots=True)
class _Item:
    picture: Picture
    future: asyncio.Future[ImageOutput]
    since: float


class MicroBatcher:
    """Gathers single pictures into batches for ``function``.

    Args:
        function: takes a list of pictures and returns the output for each.
        executor: where the function runs; None runs it on the event loop, which is quicker if a batch takes less than
            handing it to a thread and back.
        max_batch: most pictures in one call.
        observe: is called after every successful batch.
    """

    def __init__(
        self,
        function: Callable[[list[Picture]], Iterable[ImageOutput]],
        executor: Executor | None,
        *,
        max_batch: int,
        observe: Observer = lambda *_: None,
    ) -> None:
        self.function = function
        self.executor = executor
        self.max_batch = max_batch
        self.observe = observe
        self._waiting: deque[_Item] = deque()
        self._worker: asyncio.Task[None] | None = None

    @property
    def depth(self) -> int:
        """The number of pictures that wait."""
        return len(self._waiting)

    async def submit(self, picture: Picture) -> ImageOutput:
        """Returns the output for one picture.

        A picture whose caller was cancelled while it waited is never computed. A batch that fails is tried again
        one by one, so an exception reaches only the caller whose picture caused it.
        """
        item = _Item(picture, asyncio.get_running_loop().create_future(), time.perf_counter())
        self._waiting.append(item)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await item.future

    async def _work(self) -> None:
        try:
            while batch := self._next_batch():
                await self._compute(batch)
                await asyncio.sleep(0)  # lets the event loop do other things between two batches
        finally:
            self._worker = None

    def _next_batch(self) -> list[_Item]:
        batch: list[_Item] = []
        while self._waiting and len(batch) < self.max_batch:
            item = self._waiting.popleft()
            if not item.future.done():
                batch.append(item)
        return batch

    async def _compute(self, batch: list[_Item]) -> None:
        start = time.perf_counter()
        try:
            outputs = await self._call([item.picture for item in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
            if len(batch) > 1:
                for item in batch:
                    await self._compute([item])
            elif not batch[0].future.done():  # else the caller was cancelled
                batch[0].future.set_exception(error)
            return
        for item, output in zip(batch, outputs, strict=True):
            if not item.future.done():
                item.future.set_result(output)
        self.observe(len(batch), start - batch[0].since, time.perf_counter() - start)

    async def _call(self, pictures: list[Picture]) -> Iterable[ImageOutput]:
        if self.executor is None:
            return self.function(pictures)
        return await asyncio.get_running_loop().run_in_executor(self.executor, self.function, pictures)
