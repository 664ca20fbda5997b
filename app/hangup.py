"""SIGHUP: others send it to have the models reloaded, and a terminal sends it when it closes."""

import os
import signal
from collections.abc import Callable
from types import FrameType


def do_nothing() -> None:
    """Does nothing."""


class Hangup:
    """The handler of SIGHUP.

    Args:
        ends: whether the process ends when its terminal closes; not so under ``nohup``.
    """

    def __init__(self, *, ends: bool) -> None:
        self.reload: Callable[[], object] = do_nothing
        """What a server does on the signal, once it serves."""
        self.received: Callable[[], object] = do_nothing
        """Called on each signal."""
        self._ends = ends
        self._had_terminal = _has_terminal()

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.received()
        had, self._had_terminal = self._had_terminal, _has_terminal()
        if not had or self._had_terminal:
            self.reload()
        elif self._ends:
            signal.raise_signal(signal.SIGTERM)


def handle_hangup() -> None:
    """Makes a ``Hangup`` the handler of SIGHUP, unless there is one already, or no such signal (Windows)."""
    if hasattr(signal, "SIGHUP") and not current_hangup():
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, Hangup(ends=not ignored))


def current_hangup() -> Hangup | None:
    """Returns the handler of SIGHUP; None if that is another one, as in one of several workers."""
    handler = signal.getsignal(signal.SIGHUP) if hasattr(signal, "SIGHUP") else None
    return handler if isinstance(handler, Hangup) else None


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
