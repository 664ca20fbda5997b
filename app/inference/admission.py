"""Decides whether one more picture, or one more request for many pictures, may wait.

A picture is rejected if it would wait longer than ``max_wait``, or if ``max_pending`` pictures are there already. The
expected wait is the number of pending pictures times the seconds per picture. The latter are measured while pictures
are pending, so they include everything that the process does meanwhile, rejections for example.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from app.inference.errors import Overloaded

WINDOW = 64
"""Pictures after which the seconds per picture are measured again."""
SMOOTHING = 0.25
"""Weight of the latest measurement in the moving average."""
MAX_BATCHES = 8
"""Most requests for many pictures at once. Each may hold ``max_request_bytes``."""
CHUNKS_AT_ONCE = 2
"""While the engine runs one chunk, the pictures of the next are decoded."""


class Admission:
    """The admission of one process; not thread-safe, for one event loop.

    Args:
        max_pending: most pictures that may be pending.
        max_wait: longest expected wait in seconds.
    """

    def __init__(self, max_pending: int, max_wait: float) -> None:
        self.max_pending = max_pending
        self.max_wait = max_wait
        self.pending = 0
        self.rejected = 0
        """Requests that the server rejected since ``take_rejected``."""
        self._announced = 0
        self._seconds_each = 0.0
        self._window_start = 0.0
        self._done = 0
        """Pictures since ``_window_start``."""
        self._batches = 0
        self.chunk_turns = asyncio.Semaphore(CHUNKS_AT_ONCE)
        """Held by each chunk of a request for many pictures while it is decoded and inferred."""

    @property
    def is_full(self) -> bool:
        """Whether one more picture would be rejected."""
        ahead = self.pending + self._announced
        return ahead >= self.max_pending or ahead * self._seconds_each > self.max_wait

    def require(self) -> None:
        """Raises Overloaded if one more picture would be rejected."""
        if self.is_full:
            raise Overloaded

    def announce(self) -> bool:
        """Returns whether the picture of a request may come, before the application has the request.

        One iteration of the event loop reads many requests before the application runs for any of them. Therefore an
        announced picture counts as pending until the next iteration, in which ``admit`` counts it.
        """
        if self.is_full:
            self.rejected += 1
            return False
        if not self._announced:
            asyncio.get_running_loop().call_soon(self._forget_announced)
        self._announced += 1
        return True

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Counts a picture as pending while the context lasts; raises Overloaded if it may not wait."""
        self.require()
        if not self.pending:
            self._window_start, self._done = time.perf_counter(), 0
        self.pending += 1
        try:
            yield
        finally:
            self.pending -= 1
            self._done += 1
            if not self.pending or self._done == WINDOW:
                self._end_window()

    @contextmanager
    def admit_batch(self) -> Iterator[None]:
        """Counts a request for many pictures while the context lasts; raises Overloaded if there are too many."""
        if self._batches == MAX_BATCHES:
            raise Overloaded
        self._batches += 1
        try:
            yield
        finally:
            self._batches -= 1

    def take_rejected(self) -> int:
        """Returns ``rejected`` and sets it to 0."""
        rejected, self.rejected = self.rejected, 0
        return rejected

    def _end_window(self) -> None:
        now = time.perf_counter()
        latest = (now - self._window_start) / self._done
        self._seconds_each += SMOOTHING * (latest - self._seconds_each)
        self._window_start, self._done = now, 0

    def _forget_announced(self) -> None:
        self._announced = 0
