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
from functools import partial
from typing import Any

from uvicorn import _subprocess

from app.server.shedding import SheddingProtocol

_PR_SET_PDEATHSIG = 1


def fork_workers() -> None:
    """Let uvicorn fork its workers, where the system forks safely: on Linux."""
    if sys.platform == "linux":
        gc.freeze()  # what is there already is never collected, so that its pages stay shared
        os.register_at_fork(after_in_child=_end_with_parent)
        _subprocess.spawn = multiprocessing.get_context("fork")  # type: ignore[assignment]


def sharing(workers: int) -> dict[str, Any]:
    """The options by which uvicorn serves over our protocol, and several workers share the connections evenly."""
    if workers == 1 or sys.platform != "linux":
        return {"http": SheddingProtocol}
    from app.server.connections import EvenLoop, OpenConnections

    connections = OpenConnections(workers)
    return {"loop": partial(EvenLoop, connections), "http": partial(SheddingProtocol, connections=connections)}


def _end_with_parent() -> None:
    """Have the kernel end this process where its parent is killed: an orphan would keep the port."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
