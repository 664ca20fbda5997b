"""The threads in which work runs next to the event loop."""

import os
import sys
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import NamedTuple

BACKGROUND_NICENESS = 10


class Executors(NamedTuple):
    """One set for each process."""

    inference: Executor
    """One thread: engines have threads of their own, and two batches at once would only share the caches."""
    background: Executor
    """One thread of low priority, for inference that predictions must not wait for."""
    decoding: Executor
    """One thread, which waits for the helper process that decodes, and draws."""

    @classmethod
    def create(cls) -> "Executors":
        """Returns executors whose threads start when first needed."""
        return cls(
            ThreadPoolExecutor(1, "inference"),
            ThreadPoolExecutor(1, "background", lower_priority),
            ThreadPoolExecutor(1, "decoding"),
        )

    def shut_down(self) -> None:
        """Lets running work finish and drops waiting work."""
        for executor in self:
            executor.shutdown(cancel_futures=True)


def lower_priority() -> None:
    """Gives the calling thread a low priority, if the system has priorities for threads (Linux)."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), BACKGROUND_NICENESS)
