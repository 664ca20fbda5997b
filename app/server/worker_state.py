"""What a worker tells gunicorn's master about itself."""

import mmap
import os
import signal
import time

START_SECONDS = 60
"""Maximum time until a new worker is ready."""
REPLACED = signal.SIGUSR2
"""Tells a worker that another one has taken its place."""
STARTING, READY, FAILED = range(3)


class WorkerState:
    """The state of a worker, in memory that it shares with the master."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 2)
        self._since = time.monotonic()
        self.is_replaced = False

    def report(self, *, ready: bool) -> None:
        """Called in the worker after its self-test; wakes the master, which otherwise looks once a second."""
        self._memory[0] = READY if ready else FAILED
        os.kill(os.getppid(), signal.SIGCHLD)

    def end_service(self) -> None:
        """Called in the master when no process will listen after this worker."""
        self._memory[1] = 1

    @property
    def service_ends(self) -> bool:
        """Returns whether no process will listen after this worker."""
        return self._memory[1] == 1

    @property
    def is_ready(self) -> bool:
        """Returns whether the self-test has passed."""
        return self._memory[0] == READY

    @property
    def has_failed(self) -> bool:
        """Returns whether the self-test has failed, or takes too long."""
        is_late = time.monotonic() - self._since > START_SECONDS
        return self._memory[0] == FAILED or (is_late and not self.is_ready)
