"""gunicorn's master, which on SIGHUP gives its workers other models: one worker after the other is replaced.

gunicorn itself would start all new workers at once, and end the others before the new ones are ready
(docs/decisions/0026-reload.md). The module builds on gunicorn's ``Arbiter``, whose methods are not documented.
"""

import gc
import logging
import os
from typing import TYPE_CHECKING

from gunicorn.arbiter import Arbiter

from app.inference.models import load_tested_models, log_models
from app.server.members import require_members
from app.server.worker_state import REPLACED
from model.cpu import release_freed_memory

if TYPE_CHECKING:
    from app.server.workers import ServiceWorker

METHODS = {"WORKERS", "handle_hup", "manage_workers", "num_workers", "spawn_worker", "stop"}
require_members(Arbiter, METHODS, {"master_pid", "reexec_pid", "systemd"})

logger = logging.getLogger("fashionnet")


class Master(Arbiter):  # type: ignore[misc]
    """gunicorn's master. While it replaces workers, there is one more than usual."""

    def __init__(self, service: object) -> None:
        super().__init__(service)
        release_freed_memory()
        self.replacing = False
        self.models_before: object = None
        """The models to restore if the new ones fail; None if nothing is being replaced."""
        self.newest: ServiceWorker | None = None

    def handle_hup(self) -> None:
        """Reads and tests the models in the model folder and begins to replace the workers, or logs why not."""
        state = self.app.wsgi().state
        try:
            models = load_tested_models(state.settings)
        except Exception as error:  # noqa: BLE001 - whatever it is, the models before are good
            logger.error("The models stay as they are: %s", error)  # noqa: TRY400 - one line
            return
        if self.models_before is None:  # else those that are being replaced have not proven themselves
            self.models_before = state.models
        state.models = models
        if not self.replacing:
            self.replacing = True
            self.num_workers += 1

    def spawn_worker(self) -> int:
        """Starts a worker and returns its process identifier; called by gunicorn."""
        pid: int = super().spawn_worker()
        self.newest = self.WORKERS[pid]
        return pid

    def stop(self, graceful: bool = True) -> None:
        """Ends all workers; called by gunicorn."""
        is_alone = self.reexec_pid == self.master_pid == 0  # no other master has the sockets, after SIGUSR2
        if is_alone and not self.systemd:
            for worker in self.WORKERS.values():
                worker.state.end_service()
        super().stop(graceful)

    def manage_workers(self) -> None:
        """Starts and ends workers; called by gunicorn after each signal, and once a second."""
        if self.replacing:
            self._replace()
        super().manage_workers()

    def _replace(self) -> None:
        """Ends an old worker that has failed, or the oldest one while all workers are ready."""
        if self._newest_has_failed():
            self._return_to_models_before()
        models = self.app.wsgi().state.models
        workers = sorted(self.WORKERS.values(), key=lambda worker: worker.age)
        old = [worker for worker in workers if worker.models is not models]
        failed = [worker for worker in old if worker.state.has_failed]
        if not old:
            self._finish()
        elif failed or (len(workers) == self.num_workers and all(worker.state.is_ready for worker in workers)):
            _end((failed or old)[0])

    def _newest_has_failed(self) -> bool:
        """Returns whether the newest worker, which has the new models, failed or ended before it was ready."""
        newest = self.newest
        if newest is None or newest.models is not self.app.wsgi().state.models or not self.models_before:
            return False
        return newest.state.has_failed or (newest.pid not in self.WORKERS and not newest.state.is_ready)

    def _return_to_models_before(self) -> None:
        logger.error("The models stay as they are: a worker with the new ones did not become ready.")
        self.app.wsgi().state.models, self.models_before = self.models_before, None

    def _finish(self) -> None:
        state = self.app.wsgi().state
        if self.models_before:
            log_models("the models were reloaded", state.models, state.settings)
        self.replacing, self.models_before = False, None
        self.num_workers -= 1
        gc.collect()  # workers that have ended refer to themselves, and to the models that they had


def _end(worker: "ServiceWorker") -> None:
    if not worker.state.is_replaced:
        worker.state.is_replaced = True
        os.kill(worker.pid, REPLACED)
