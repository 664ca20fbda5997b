"""Workers forked from a parent that has imported the application.

They start at once and share its memory, where uvicorn would start fresh interpreters that import everything anew: on
two cores that takes as long again as the parent took. uvicorn has no option for it, so the context that it makes
processes from is replaced (uvicorn 0.54: ``uvicorn._subprocess.spawn``); a test starts two workers and looks.
"""

import gc
import multiprocessing
import sys

from uvicorn import _subprocess


def fork_workers() -> None:
    """Let uvicorn fork its workers, where the system forks safely: on Linux."""
    if sys.platform == "linux":
        gc.collect()
        gc.freeze()  # what is there already is never collected, so that its pages stay shared
        _subprocess.spawn = multiprocessing.get_context("fork")  # type: ignore[assignment]
