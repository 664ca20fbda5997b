"""Workers that die before they are ready: a pause before the next one, and an end if none can live."""

import logging
import shutil
import time
from contextlib import suppress

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.workers.base import Worker

from app.metrics_files import restore_folder
from app.settings import metrics_folder

logger = logging.getLogger("fashionnet")

MAX_FAILED_STARTS = 10
MAX_PAUSE = 2.0
MIN_DISK_BYTES = 1_000_000


class CrashLoop:
    """Counts the workers in a row that died before they were ready; its two methods are hooks of gunicorn."""

    def __init__(self) -> None:
        self.failed_starts = 0

    def before_start(self, arbiter: Arbiter, _worker: Worker) -> None:
        """Waits before a worker starts if others died before they were ready, longer each time.

        Raises:
            HaltServer: too many died, and no worker is ready.
        """
        if folder := metrics_folder():
            with suppress(OSError):  # the new worker fails, and _reason says why
                restore_folder(folder)
        if self.failed_starts:
            self._wait_or_end([other for other in arbiter.WORKERS.values() if other.state.is_ready])

    def after_end(self, worker: Worker) -> None:
        """Counts a worker that has ended, unless it was told to."""
        if not worker.state.is_replaced:
            self.failed_starts = 0 if worker.state.is_ready else self.failed_starts + 1

    def _wait_or_end(self, serving: list[Worker]) -> None:
        what = f"{self.failed_starts} workers in a row ended before they were ready: {_reason()}"
        if self.failed_starts >= MAX_FAILED_STARTS and not serving:
            raise HaltServer(what, 1)
        pause = min(0.1 * 2 ** (self.failed_starts - 1), MAX_PAUSE)
        if self.failed_starts > 1:
            logger.warning("%s The next worker starts in %.1f s.", what, pause)
        time.sleep(pause)


def _reason() -> str:
    folder = metrics_folder()
    try:
        if folder and shutil.disk_usage(folder).free < MIN_DISK_BYTES:
            return f"the disk of {folder}, where workers share their metrics, is full; free space there."
    except OSError as error:
        return f"workers share their metrics in {folder}, which cannot be used ({error.strerror}); start again."
    return "the lines above say why; look at the limits for memory and open files too."
