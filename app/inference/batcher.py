"""A micro-batcher that adds no latency: asyncio only, over any function of a list.

An idle function is called at once. Items that arrive while it is busy form its next batch. There is no timer.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

Value = TypeVar("Value")
Result = TypeVar("Result")
Observer = Callable[[int, float, float], None]
"""Called after every successful batch with its size, the wait of its first item and its duration, in seconds."""


@dataclass(slots=True)
class _Item(Generic[Value, Result]):
    value: Value
    future: "asyncio.Future[Result]"
    since: float

    def settle(self, result: Result | Exception) -> None:
        if self.future.done():  # the caller was cancelled
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class MicroBatcher(Generic[Value, Result]):
    """Gathers single items into batches for ``function``.

    Args:
        function: takes a list of items and returns as many results; a result that is an exception is raised for its
            own item alone.
        executor: where the function runs; None runs it on the event loop, which is quicker if a batch takes less than
            handing it to a thread and back.
        max_batch: most items in one call.
        observe: is called after every successful batch.
    """

    def __init__(
        self,
        function: Callable[[list[Value]], Sequence[Result]],
        executor: Executor | None,
        *,
        max_batch: int,
        observe: Observer = lambda *_: None,
    ) -> None:
        self.function = function
        self.executor = executor
        self.max_batch = max_batch
        self.observe = observe
        self._waiting: deque[_Item[Value, Result]] = deque()
        self._worker: asyncio.Task[None] | None = None

    @property
    def depth(self) -> int:
        """The number of items that wait."""
        return len(self._waiting)

    async def submit(self, value: Value) -> Result:
        """Returns the result of one item.

        An item whose caller was cancelled while it waited is never computed. A batch that fails is tried again
        one by one, so an exception reaches only the caller whose item caused it.
        """
        # Not _Item[Value, Result](...): a subscripted class takes microseconds to call.
        item: _Item[Value, Result] = _Item(value, asyncio.get_running_loop().create_future(), time.perf_counter())
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

    def _next_batch(self) -> list[_Item[Value, Result]]:
        batch: list[_Item[Value, Result]] = []
        while self._waiting and len(batch) < self.max_batch:
            item = self._waiting.popleft()
            if not item.future.done():
                batch.append(item)
        return batch

    async def _compute(self, batch: list[_Item[Value, Result]]) -> None:
        start = time.perf_counter()
        try:
            results = await self._call([item.value for item in batch])
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
            if len(batch) == 1:
                batch[0].settle(error)
            else:
                for item in batch:
                    await self._compute([item])
            return
        for item, result in zip(batch, results, strict=True):
            item.settle(result)
        self.observe(len(batch), start - batch[0].since, time.perf_counter() - start)

    async def _call(self, values: list[Value]) -> Sequence[Result]:
        if self.executor is None:
            return self.function(values)
        return await asyncio.get_running_loop().run_in_executor(self.executor, self.function, values)
