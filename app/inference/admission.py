"""Decides whether a request may wait, before its work is done and before its memory is taken.

Each resource has a queue of its own. A request is rejected if the work ahead of it would take longer than
``max_wait``. The expected wait is the cost of that work, in seconds on a typical machine, times the pace: how many
seconds a second of cost takes here and now. The pace is measured while there is work, so it includes everything that
the process does meanwhile.
"""

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.inference.errors import Overloaded

WINDOW_ITEMS, WINDOW_SECONDS = 64, 0.25
"""After so many items or seconds, whichever is first, the pace is measured again."""
SMOOTHING = 0.5
"""Weight of the latest measurement in the moving average."""
CHUNKS_AT_ONCE = 2
"""While the engine runs one chunk, the pictures of the next are decoded."""
SMALL_BODY = 8192
"""Bytes; a larger body hardly contains a native image of the data set."""
MAX_EXPECTATION = 8
"""A form of 256 pictures has so many chunks."""
SMALL_PICTURE = 1000
"""Bytes of a small picture in a form, with the head of its part."""
UNCOUNTED_BYTES = 64 * 1024
"""Bytes of each body that are not counted. The maximum of connections limits their sum."""

IMAGE_COST = 1e-4
"""Seconds for an image that need not be decoded."""
MAX_PACE = 100
"""Pictures that hold up the decoder on purpose could make the measured pace a thousand times as high."""
MAX_RETRY_SECONDS = 60
"""What a client is told to wait at most."""
EXPLANATION_COST, DRAWING_COST = 0.06, 0.1


def picture_cost(size: int) -> float:
    """Returns the cost of an encoded picture of ``size`` bytes."""
    return 0.002 + 2e-8 * size


def batch_cost(size: int, count: int) -> float:
    """Returns the cost of ``count`` encoded pictures, of ``size`` bytes in all, in a request for many."""
    return 5e-4 * count + 1e-7 * size


def form_cost(size: int, max_pictures: int) -> float:
    """Returns the expected cost of a form of ``size`` bytes, whose pictures are not known yet."""
    return batch_cost(size, min(size // SMALL_PICTURE, max_pictures))


class Reservation:
    """The work of a request in a queue.

    It counts what has arrived and is not done, but at least what is expected. What is expected counts only up to
    ``MAX_EXPECTATION`` times what has arrived in all, so that a declared length alone keeps nobody out.

    Args:
        queue: where it counts.
        expected: cost of the whole request; 0 if only what has arrived counts.
    """

    def __init__(self, queue: "WorkQueue", expected: float = 0.0) -> None:
        self._queue = queue
        self._expected = expected
        self._arrived, self._done = 0.0, 0.0
        self.cost = 0.0

    def arrive(self, cost: float) -> None:
        """Adds work that has arrived."""
        self._arrived += cost
        self._update()

    def finish(self, cost: float) -> None:
        """Removes work that is done."""
        self._done += cost
        self._update()

    def stop_expecting(self) -> None:
        """Counts only what has arrived from now on."""
        self._expected = 0.0
        self._update()

    def _update(self) -> None:
        cost = max(min(self._expected, MAX_EXPECTATION * self._arrived), self._arrived - self._done)
        self._queue.cost += cost - self.cost
        self.cost = cost


class WorkQueue:
    """Work that waits for the same thing; not thread-safe, for one event loop.

    Args:
        max_wait: longest expected wait in seconds.
        max_items: most items that may wait.
    """

    def __init__(self, max_wait: float, max_items: float = math.inf) -> None:
        self.max_wait = max_wait
        self.max_items = max_items
        self.items = 0
        self.cost = 0.0
        """Of the items, in seconds on a typical machine."""
        self._pace = 1.0
        self._running = 0
        self._window_start, self._window_cost, self._window_items = 0.0, 0.0, 0

    @property
    def wait(self) -> float:
        """The expected wait of the next item in seconds."""
        return self.cost * self._pace

    def is_full(self, announced: int = 0) -> bool:
        """Returns whether the queue would reject an item that follows ``announced`` others not yet in it."""
        wait = (self.cost + announced * IMAGE_COST) * self._pace
        return self.items + announced >= self.max_items or wait > self.max_wait

    def require(self) -> None:
        """Raises Overloaded if one more item would be rejected."""
        if self.is_full():
            raise Overloaded(min(math.ceil(self.wait - self.max_wait), MAX_RETRY_SECONDS))

    @contextmanager
    def admit(self, cost: float = IMAGE_COST) -> Iterator[None]:
        """Counts an item while the context lasts, which does its work; raises Overloaded if it may not wait."""
        self.require()
        with self.reserve(cost), self.measure(cost):
            yield

    @contextmanager
    def reserve(self, cost: float, expected: float = 0.0) -> Iterator[Reservation]:
        """Counts an item of which ``cost`` has arrived while the context lasts; see ``Reservation``."""
        reservation = Reservation(self, expected)
        self.items += 1
        reservation.arrive(cost)
        try:
            yield reservation
        finally:
            self.items -= 1
            self.cost = self.cost - reservation.cost if self.items else 0.0

    @contextmanager
    def measure(self, cost: float) -> Iterator[None]:
        """Measures the pace of what the context does."""
        if not self._running:
            self._start_window(time.perf_counter())
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._window_cost += cost
            self._window_items += 1
            now = time.perf_counter()
            due = self._window_items == WINDOW_ITEMS or now - self._window_start > WINDOW_SECONDS
            if (due or not self._running) and self._window_cost:
                latest = min((now - self._window_start) / self._window_cost, MAX_PACE)
                self._pace += SMOOTHING * (latest - self._pace)
                self._start_window(now)

    def _start_window(self, now: float) -> None:
        self._window_start, self._window_cost, self._window_items = now, 0.0, 0


class BodyMemory:
    """The bytes of one request's body that are in memory."""

    def __init__(self, admission: "Admission") -> None:
        self._admission = admission
        self._seen = 0
        self.counted = 0

    def add(self, count: int) -> None:
        """Counts bytes that have arrived; raises Overloaded if there is no room for them."""
        self._seen += count
        if self._seen <= UNCOUNTED_BYTES:
            return
        if self._admission.body_bytes + count > self._admission.max_body_bytes:
            raise Overloaded
        self._admission.body_bytes += count
        self.counted += count

    def release(self, count: int | None = None) -> None:
        """Counts bytes as freed; all by default."""
        count = self.counted if count is None else min(count, self.counted)
        self._admission.body_bytes -= count
        self.counted -= count


class Admission:
    """The admission of one process; not thread-safe, for one event loop.

    Args:
        max_items: most native images that may wait.
        max_wait: longest expected wait in seconds.
        max_body_bytes: most bytes of all requests' bodies in memory.
    """

    def __init__(self, max_items: int, max_wait: float, max_body_bytes: int) -> None:
        self.images = WorkQueue(max_wait, max_items)
        """Single images that need no decoder; they are classified in micro-batches."""
        self.pictures = WorkQueue(max_wait)
        """Single pictures, to be decoded, and explanations."""
        self.batches = WorkQueue(max_wait)
        """Requests for many pictures. They leave turns to single pictures, so these do not wait for them."""
        self.drawings = WorkQueue(max_wait)
        """Galleries and other figures."""
        self.max_body_bytes = max_body_bytes
        self.body_bytes = 0
        self.rejected = 0
        """Requests that the server rejected since ``take_rejected``."""
        self._announced = 0
        self.chunk_turns = asyncio.Semaphore(CHUNKS_AT_ONCE)
        """Held by each chunk of a form with many pictures, and by each ``/v2`` request with many images."""
        self.drawing_turn = asyncio.Lock()
        """Held by each drawing, so that pictures are decoded in between."""

    def queue_of(self, body_bytes: int) -> WorkQueue:
        """Returns the queue of a single picture in a body of this size."""
        return self.images if body_bytes <= SMALL_BODY else self.pictures

    def announce(self, body_bytes: int) -> bool:
        """Returns whether a request for a single picture is accepted. Called before the application has the request.

        One iteration of the event loop reads many requests before the application runs for any of them. Therefore
        announced pictures count until the next iteration.
        """
        if self.queue_of(body_bytes).is_full(self._announced):
            self.rejected += 1
            return False
        if not self._announced:
            asyncio.get_running_loop().call_soon(self._forget_announced)
        self._announced += 1
        return True

    @contextmanager
    def body(self) -> Iterator[BodyMemory]:
        """Counts the bytes of a request's body while the context lasts."""
        memory = BodyMemory(self)
        try:
            yield memory
        finally:
            memory.release()

    def take_rejected(self) -> int:
        """Returns ``rejected`` and sets it to 0."""
        rejected, self.rejected = self.rejected, 0
        return rejected

    def _forget_announced(self) -> None:
        self._announced = 0
