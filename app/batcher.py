"""A micro-batcher that adds no latency: asyncio only, over any function of an array.

An idle function is called at once; what arrived while it was busy is its next batch. No timer waits for company.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = tuple[NDArray[Any], ...]
"""One array or more, each with a row an item."""


class QueueFull(Exception):
    """As many items wait as may."""


class _Item(NamedTuple):
    value: NDArray[Any]
    future: "asyncio.Future[Rows]"
    since: float


class Batch(NamedTuple):
    """What is told of a batch when it is done; times in seconds."""

    size: int
    waited: float
    """How long its first item waited."""
    took: float


class MicroBatcher:
    """Gathers single items into batches for ``function``.

    Args:
        function: takes an array ``[N, ...]``, returns a tuple of arrays with N rows each.
        executor: where it runs: one thread, shared by everything that computes; None runs it on the event loop,
            which is quicker where a batch takes less than handing it to a thread and back.
        max_batch: most items in one call.
        max_queue: most items that may wait; past it ``submit`` raises QueueFull at once.
        observe: is told of every batch.
    """

    def __init__(
        self,
        function: Callable[[NDArray[Any]], Rows],
        executor: Executor | None,
        *,
        max_batch: int,
        max_queue: int,
        observe: Callable[[Batch], None] = lambda _: None,
    ) -> None:
        self.function = function
        self.executor = executor
        self.max_batch = max_batch
        self.max_queue = max_queue
        self.observe = observe
        self._waiting: deque[_Item] = deque()
        self._worker: asyncio.Task[None] | None = None

    @property
    def depth(self) -> int:
        """The number of items that wait."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether ``submit`` would refuse an item now."""
        return len(self._waiting) >= self.max_queue

    async def submit(self, value: NDArray[Any]) -> Rows:
        """One item ``[...]`` -> its row of every result.

        An item whose caller was cancelled while it waited is never computed. A batch that fails is tried again
        one by one, so an exception reaches only the caller whose item caused it.

        Raises:
            QueueFull: too many items wait.
        """
        if self.full:
            raise QueueFull
        item = _Item(value, asyncio.get_running_loop().create_future(), time.perf_counter())
        self._waiting.append(item)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await item.future

    async def _work(self) -> None:
        while batch := self._next_batch():
            await self._compute(batch)
            await asyncio.sleep(0)  # the event loop has other things to do between two batches
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
            rows = await self._call(np.stack([item.value for item in batch]))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the caller
            if len(batch) > 1:
                for item in batch:
                    await self._compute([item])
            elif not batch[0].future.done():
                batch[0].future.set_exception(error)
            return
        for index, item in enumerate(batch):
            if not item.future.done():
                item.future.set_result(tuple(result[index] for result in rows))
        self.observe(Batch(len(batch), start - batch[0].since, time.perf_counter() - start))

    async def _call(self, values: NDArray[Any]) -> Rows:
        if self.executor is None:
            rows = self.function(values)
        else:
            rows = await asyncio.get_running_loop().run_in_executor(self.executor, self.function, values)
        if any(len(result) != len(values) for result in rows):
            raise ValueError(f"{len(values)} items went in, {[len(result) for result in rows]} came out")
        return rows
