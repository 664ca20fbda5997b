"""Workers forked from a parent that has imported the application.

They start at once and share its memory, where uvicorn would start fresh interpreters that import everything anew: on
two cores that takes as long again as the parent took. uvicorn has no option for it, so the context that it makes
processes from is replaced (uvicorn 0.54: ``uvicorn._subprocess.spawn``); a test starts two workers and looks.
"""

import ctypes
import gc
import multiprocessing
import os
import signal
import sys

from uvicorn import _subprocess

_PR_SET_PDEATHSIG = 1


def fork_workers() -> None:
    """Let uvicorn fork its workers, where the system forks safely: on Linux."""
    if sys.platform == "linux":
        gc.collect()
        gc.freeze()  # what is there already is never collected, so that its pages stay shared
        os.register_at_fork(after_in_child=_end_with_parent)
        _subprocess.spawn = multiprocessing.get_context("fork")  # type: ignore[assignment]


def _end_with_parent() -> None:
    """Have the kernel end this process where its parent is killed: an orphan would keep the port."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
