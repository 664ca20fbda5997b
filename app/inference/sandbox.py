"""Runs functions on hostile input in a helper process, which is ended if it takes too long or too much memory.

Nothing can interrupt a decoder in a thread: a picture of some bytes may occupy it for minutes. The helper decodes
instead. The kernel ends it once a call has used its CPU time, or waits for too long, and refuses memory beyond the
limit. A second process, the supervisor, then forks the next helper at once. The supervisor itself is forked while the
service starts, when hardly anything runs besides, because a process with threads should not be forked
(docs/decisions/0024-decoding.md).
"""

import logging
import mmap
import os
import pickle
import signal
import socket
import struct
import threading
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NamedTuple, ParamSpec, TypeVar, cast

from app.inference.errors import HelperLost
from model.cpu import limit_memory, release_freed_memory

logger = logging.getLogger("fashionnet")

P = ParamSpec("P")
Result = TypeVar("Result")
_HEAD = struct.Struct("=IiI")
"""The number of the call, an ``_Outcome`` or a signal, and the bytes of the pickle in the shared memory."""
_NUMBER = struct.Struct("=I")
_NUMBERS = 1 << 32
_WALL_FACTOR = 10
"""Wall-clock limit of a call as a multiple of its CPU limit: other processes may need the cores meanwhile."""
MAX_CALLS_PER_HELPER = 1000
"""After so many calls a helper ends and another one starts, because decoders fragment its memory."""
_UNLIMITED = 2
"""Exit code of a helper that could not be given its limits. The supervisor then ends too."""
_LARGE = 1 << 20
"""Bytes from which on the shared memory is returned to the system after a call."""


class CallEnded(Exception):
    """The base of what ends a call."""


class TimeLimitExceeded(CallEnded):
    """The call has used its CPU time, or ten times as much by the clock."""


class MemoryLimitExceeded(CallEnded):
    """The call needs more memory than it may have."""


class HelperCrashed(CallEnded):
    """The call has ended the helper: a decoder has a fault."""


class _Outcome(IntEnum):
    RETURNED = 0
    RAISED = -1


def create_sandbox(limits: "CallLimits") -> "HelperProcess | NoSandbox":
    """Returns a sandbox; without limits where the process cannot fork (Windows, replicas of Ray Serve)."""
    if not hasattr(os, "fork"):
        return NoSandbox()
    helper = HelperProcess(limits)
    try:
        helper.run(len, ())
    except HelperLost:
        helper.close()
        logger.warning("No helper process can run here: pictures are decoded without limits on time and memory.")
        return NoSandbox()
    return helper


class NoSandbox:
    """Runs functions in the calling thread, without limits."""

    def run(self, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """Returns the result of the call."""
        return function(*args, **kwargs)

    def close(self) -> None:
        """Does nothing."""


class CallLimits(NamedTuple):
    """What one call may take."""

    seconds: float
    """CPU time."""
    memory: int
    """Bytes above what the process has at its start."""
    message: int
    """Bytes of the pickled arguments, and of the pickled result."""


class HelperProcess:
    """One helper process. Calls from several threads wait for each other."""

    def __init__(self, limits: CallLimits) -> None:
        self._memory = mmap.mmap(-1, limits.message)
        self._taken = mmap.mmap(-1, _NUMBER.size)
        self._call = 0
        self._supervisor: int | None = None
        self._lock = threading.Lock()
        self._limits = limits
        self._start()

    def run(self, function: Callable[P, Result], *args: P.args, **kwargs: P.kwargs) -> Result:
        """Returns the result of the call; raises what it raises.

        Raises:
            CallEnded: the call took too long, or too much memory, or ended the helper.
            HelperLost: helper and supervisor have both died.
        """
        with self._lock:
            sent = _write(self._memory, (function, args, kwargs))
            self._call = (self._call + 1) % _NUMBERS
            self._send(_HEAD.pack(self._call, _Outcome.RETURNED, sent))
            outcome, size = self._receive_outcome()
            result: Any = pickle.loads(self._memory[:size]) if outcome <= 0 else _death(outcome)  # noqa: S301 - our own
            _release(self._memory, max(sent, size))
        if outcome == _Outcome.RETURNED:
            return cast("Result", result)
        raise result

    def _receive_outcome(self) -> tuple[int, int]:
        """Returns outcome and size of the current call.

        A helper that was killed between two calls has left a message with the number of the last one that it took.
        """
        while head := _receive(self._socket):
            number, outcome, size = _HEAD.unpack(head)
            if number == self._call:
                return outcome, size
        self._restart()
        raise HelperLost

    def _send(self, head: bytes) -> None:
        """Sends a message; starts supervisor and helper anew if both have died; raises HelperLost if that fails."""
        try:
            self._socket.sendall(head)
        except OSError:
            self._restart()
            try:
                self._socket.sendall(head)
            except OSError:  # the new ones have died already: the next call tries again
                raise HelperLost from None

    def _restart(self) -> None:
        logger.warning("The process that decodes pictures has ended; another one is started.")
        self.close()
        try:
            self._start()  # by now this process has threads, but a service that decodes nothing is worse
        except OSError as error:  # too many processes, or no memory: the next call tries again
            logger.warning("It cannot be started (%s).", error)
            raise HelperLost from None

    def _start(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            supervisor = os.fork()
            if supervisor == 0:
                _supervise(theirs, self._memory, self._taken, self._limits)
            self._supervisor = supervisor

    def close(self) -> None:
        """Ends the supervisor, and the helper too, which notices that the socket is closed."""
        self._socket.close()
        if self._supervisor is not None:
            os.kill(self._supervisor, signal.SIGKILL)
            os.waitpid(self._supervisor, 0)
            self._supervisor = None


def _death(number: int) -> Exception:
    if number in (signal.SIGPROF, signal.SIGALRM):
        return TimeLimitExceeded()
    if number == signal.SIGKILL:  # by the system, for want of memory, or by an operator: no limit sends it
        logger.warning("The process that decodes pictures was killed.")
        return HelperLost()
    logger.warning("A picture ended its decoder by signal %d (%s).", number, signal.strsignal(number))
    return HelperCrashed()


def _supervise(control: socket.socket, memory: mmap.mmap, taken: mmap.mmap, limits: CallLimits) -> None:
    """Runs in the supervisor: forks helpers until the service closes its end, or one gets no limits; never returns."""
    try:
        _forget_parent(control)
        while (code := _run_helper(control, memory, taken, limits)) not in (0, _UNLIMITED):
            if code != -signal.SIGUSR2:  # by which a helper ends itself between two calls
                (number,) = _NUMBER.unpack(taken[:])
                control.sendall(_HEAD.pack(number, -code if code < 0 else signal.SIGABRT, 0))
    finally:
        os._exit(0)


def _run_helper(control: socket.socket, memory: mmap.mmap, taken: mmap.mmap, limits: CallLimits) -> int:
    """Forks a helper and returns its exit code, negative for a signal, once it has ended."""
    helper = os.fork()
    if helper == 0:
        _help(control, memory, taken, limits)
    return os.waitstatus_to_exitcode(os.waitpid(helper, 0)[1])


def _forget_parent(control: socket.socket) -> None:
    """Closes the parent's files and connections, and leaves the signals that end it to the parent."""
    os.set_inheritable(control.fileno(), False)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # libtiff writes to the standard error stream
        os.dup2(null, standard)
    os.closerange(3, control.fileno())
    os.closerange(control.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(ending, signal.SIG_IGN)
    for used in (signal.SIGCHLD, signal.SIGPROF, signal.SIGABRT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM):
        signal.signal(used, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)


def _help(control: socket.socket, memory: mmap.mmap, taken: mmap.mmap, limits: CallLimits) -> None:
    """Runs in a helper: executes ``MAX_CALLS_PER_HELPER`` calls, fewer if the service closes its end; never returns."""
    try:
        _limit_helper(limits)
        for _ in range(MAX_CALLS_PER_HELPER):
            number, size = _take(control, taken)
            call = pickle.loads(memory[:size])  # noqa: S301 - the service wrote it
            _set_timers(limits.seconds)
            outcome, size = _execute(memory, *call)
            _set_timers(0)
            control.sendall(_HEAD.pack(number, outcome, size))
        os.kill(os.getpid(), signal.SIGUSR2)
    finally:
        os._exit(1)


def _limit_helper(limits: CallLimits) -> None:
    try:
        release_freed_memory()
        limit_memory(limits.memory)
    except (OSError, ValueError, OverflowError):
        os._exit(_UNLIMITED)


def _take(control: socket.socket, taken: mmap.mmap) -> tuple[int, int]:
    """Waits for a call and returns its number and size; ends the process if the service has closed its end.

    The number is noted before the message is removed, so that the supervisor knows which call a death belongs to. A
    helper that dies in between leaves the message, which the next one drops.
    """
    while head := _receive(control, socket.MSG_PEEK):
        number, _, size = _HEAD.unpack(head)
        is_left = taken[:] == _NUMBER.pack(number)
        taken[:] = _NUMBER.pack(number)
        _receive(control)
        if not is_left:
            return number, size
    os._exit(0)


def _set_timers(seconds: float) -> None:
    """Lets the kernel end this process after so much CPU time, and after much more by the clock; 0 takes that back."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, _WALL_FACTOR * seconds)


def _execute(memory: mmap.mmap, function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[_Outcome, int]:
    """Calls the function and writes its result, or what it raises, into the memory."""
    try:
        return _Outcome.RETURNED, _write(memory, function(*args, **kwargs))
    except MemoryError:
        return _Outcome.RAISED, _write(memory, MemoryLimitExceeded())
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it
        return _Outcome.RAISED, _write(memory, error)


def _write(memory: mmap.mmap, value: Any) -> int:
    """Writes the pickled value and returns its bytes; raises MemoryLimitExceeded if there are too many."""
    data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    if len(data) > len(memory):
        raise MemoryLimitExceeded
    memory[: len(data)] = data
    return len(data)


def _receive(control: socket.socket, flags: int = 0) -> bytes:
    """Returns a head, which is so small that it comes whole; nothing if the other end is closed."""
    try:
        return control.recv(_HEAD.size, flags)
    except ConnectionError:
        return b""


def _release(memory: mmap.mmap, size: int) -> None:
    """Returns the pages of a large message to the system, where it can do that (Linux)."""
    if size > _LARGE and hasattr(mmap, "MADV_REMOVE"):
        memory.madvise(mmap.MADV_REMOVE)
