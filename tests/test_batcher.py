import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.inference.batcher import MicroBatcher


def function(values):
    """A result an item, which tells it from every other; a batch with an item below 0 fails."""
    if min(values) < 0:
        raise ArithmeticError(f"negative: {min(values)}")
    return [(value * 2, value) for value in values]


def slow(values):
    time.sleep(0.01)
    return function(values)


class Gate:
    """A function that waits to be let through, and remembers its batches."""

    def __init__(self):
        self.open = threading.Event()
        self.batches = []

    def __call__(self, values):
        self.open.wait(5)
        self.batches.append(values)
        return function(values)


def with_batcher(use, function_=function, *, inline=False, **limits):
    """Run the coroutine function ``use`` with a batcher."""

    async def main():
        with ThreadPoolExecutor(1) as thread:
            executor = None if inline else thread
            return await use(MicroBatcher(function_, executor, **{"max_batch": 4} | limits))

    return asyncio.run(main())


def submit(batcher, value):
    return asyncio.create_task(batcher.submit(value))


@pytest.mark.parametrize("inline", [False, True], ids=["in a thread", "on the loop"])
@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.integers(-3, 40), st.sampled_from(["wait", "cancel"])), min_size=1, max_size=30),
    st.integers(1, 7),
    st.randoms(),
)
def test_every_caller_gets_its_own_answer_and_no_other(inline, callers, max_batch, random):
    """Half-full and over-full batches, failing and cancelled ones, in any mixture and rhythm."""

    async def use(batcher):
        tasks = []
        for value, _ in callers:
            tasks.append(submit(batcher, value))
            if random.random() < 0.3:
                await asyncio.sleep(0)
        for task, (_, fate) in zip(tasks, callers, strict=True):
            if fate == "cancel":
                task.cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    for answer, (value, fate) in zip(with_batcher(use, inline=inline, max_batch=max_batch), callers, strict=True):
        if isinstance(answer, asyncio.CancelledError):
            assert fate == "cancel"
        elif value < 0:
            assert repr(answer) == f"ArithmeticError('negative: {value}')", "the error of its own item"
        else:
            assert answer == (value * 2, value)


def test_an_idle_function_starts_at_once_and_what_queued_is_the_next_batch():
    gate = Gate()

    async def use(batcher):
        first = submit(batcher, 0)
        await asyncio.sleep(0.05)
        rest = [submit(batcher, value) for value in range(1, 7)]
        await asyncio.sleep(0.05)
        assert batcher.depth == 6
        gate.open.set()
        await asyncio.gather(first, *rest)

    with_batcher(use, gate)
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6]]


def test_a_caller_that_left_costs_no_computation():
    gate = Gate()

    async def use(batcher):
        running, leaving, staying = (submit(batcher, value) for value in range(3))
        await asyncio.sleep(0.05)
        late = submit(batcher, 9)
        await asyncio.sleep(0)
        late.cancel()
        gate.open.set()
        await asyncio.gather(running, leaving, staying)
        await asyncio.sleep(0)

    with_batcher(use, gate)
    assert [9] not in gate.batches
    assert all(9 not in batch for batch in gate.batches)


def test_the_loop_goes_on_between_two_batches_that_run_on_it():
    turns, sizes = [], []

    async def count_turns():
        while True:
            turns.append(len(sizes))
            await asyncio.sleep(0)

    async def use(batcher):
        counting = asyncio.create_task(count_turns())
        await asyncio.gather(*(submit(batcher, value) for value in range(12)))
        counting.cancel()

    with_batcher(use, slow, inline=True, observe=lambda size, *_: sizes.append(size))
    assert sizes == [4, 4, 4], "what arrived in one turn of the loop is gathered"
    assert {1, 2} <= set(turns), "something else ran after the first and after the second"
