"""A micro-batcher that adds no latency: asyncio only, over any function of a list.

An idle function is called at once; what arrived while it was busy is its next batch. No timer waits for company.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

LONG_TURN = 0.004
"""Seconds; a turn of the event loop in which something is refused shall not take longer: all callers wait for it."""
LEAST_EXPECTED = 1
"""A turn; with none there would be no batch after which more could be expected again."""
LEAST_KEPT = 0.25
"""Share of what is expected that one long turn leaves at least."""
OVER = 0.1
"""Seconds without a refusal after which an overload is over."""

Value = TypeVar("Value")
Result = TypeVar("Result")


class QueueFull(Exception):
    """As many items wait as may."""


@dataclass(slots=True)
class _Item(Generic[Value, Result]):
    value: Value
    future: "asyncio.Future[Result]"
    since: float

    def settle(self, result: Result | Exception) -> None:
        """Give the caller its result, or its exception; nothing where it left."""
        if self.future.done():
            return
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class Batch(NamedTuple):
    """What is told of a batch when it is done; times in seconds."""

    size: int
    waited: float
    """How long its first item waited."""
    took: float


class MicroBatcher(Generic[Value, Result]):
    """Gathers single items into batches for ``function``.

    Args:
        function: takes a list of items, returns as many results; one that is an exception is its item's own.
        executor: where it runs: one thread, shared by everything that computes; None runs it on the event loop,
            which is quicker where a batch takes less than handing it to a thread and back.
        max_batch: the most that the items in one call weigh, but for one that weighs more alone.
        max_queue: most items that may wait; past it ``submit`` raises QueueFull at once.
        weigh: how much work an item is.
        observe: is told of every batch.
    """

    def __init__(
        self,
        function: Callable[[list[Value]], Sequence[Result | Exception]],
        executor: Executor | None,
        *,
        max_batch: int,
        max_queue: int,
        weigh: Callable[[Value], int] = lambda _: 1,
        observe: Callable[[Batch], None] = lambda _: None,
    ) -> None:
        self.function = function
        self.executor = executor
        self.max_batch = max_batch
        self.max_queue = max_queue
        self.weigh = weigh
        self.observe = observe
        self._waiting: deque[_Item[Value, Result]] = deque()
        self._expected = 0
        self._most_expected = max_queue
        self._has_refused = False
        self._refused_at = 0.0
        self._longest_unseen = 0.0
        self._worker: asyncio.Task[None] | None = None

    @property
    def depth(self) -> int:
        """The number of items that wait."""
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether ``submit`` would refuse an item now."""
        return len(self._waiting) >= self.max_queue

    def expect(self, waited: float = 0.0) -> bool:
        """Whether one more item may come; what was expected in the same turn of the event loop counts as waiting.

        A turn reads all requests that are there before the first of them gets as far as ``submit``. Under overload
        fewer are expected than the queue would hold: the time is needed to refuse the others soon.

        Args:
            waited: seconds for which nobody looked at the request.
        """
        now = time.perf_counter()
        self._longest_unseen = max(self._longest_unseen, waited)
        if now - self._refused_at > OVER:
            self._most_expected = self.max_queue
        if len(self._waiting) + self._expected >= self._most_expected:
            self._has_refused, self._refused_at = True, now
            return False
        if not self._expected:
            asyncio.get_running_loop().call_soon(self._forget_expected)
        self._expected += 1
        return True

    def _forget_expected(self) -> None:
        self._expected = 0

    async def submit(self, value: Value) -> Result:
        """One item -> its result.

        An item whose caller was cancelled while it waited is never computed. A batch that fails is tried again
        one by one, so an exception reaches only the caller whose item caused it.

        Raises:
            QueueFull: too many items wait.
        """
        if self.full:
            raise QueueFull
        # Not _Item[Value, Result](...): a subscripted class takes microseconds to call.
        item: _Item[Value, Result] = _Item(value, asyncio.get_running_loop().create_future(), time.perf_counter())
        self._waiting.append(item)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await item.future

    async def _work(self) -> None:
        while batch := self._next_batch():
            start = time.perf_counter()
            await self._compute(batch)
            await asyncio.sleep(0)  # the event loop has other things to do between two batches
            if self.executor is None:
                self._adapt(time.perf_counter() - start)
        self._worker = None

    def _adapt(self, turn: float) -> None:
        """Expect fewer after a turn with refusals by as much as it was too long, else one more.

        Increase by steps and decrease by shares lets all who share something find an even load (Chiu & Jain, 1989).
        """
        turn = max(turn, self._longest_unseen)
        if self._has_refused and turn > LONG_TURN:
            fewer = int(self._most_expected * max(LONG_TURN / turn, LEAST_KEPT))
            self._most_expected = max(LEAST_EXPECTED, fewer)
        elif self._most_expected < self.max_queue:
            self._most_expected += 1
        self._has_refused, self._longest_unseen = False, 0.0

    def _next_batch(self) -> list[_Item[Value, Result]]:
        batch: list[_Item[Value, Result]] = []
        room = self.max_batch
        while self._waiting and (not batch or room >= self.weigh(self._waiting[0].value)):
            item = self._waiting.popleft()
            if not item.future.done():
                batch.append(item)
                room -= self.weigh(item.value)
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
        self.observe(Batch(len(batch), start - batch[0].since, time.perf_counter() - start))

    async def _call(self, values: list[Value]) -> Sequence[Result | Exception]:
        if self.executor is None:
            results = self.function(values)
        else:
            results = await asyncio.get_running_loop().run_in_executor(self.executor, self.function, values)
        if len(results) != len(values):
            raise ValueError(f"{len(values)} items went in, {len(results)} came out")
        return results
