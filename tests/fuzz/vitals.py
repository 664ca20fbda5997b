"""What must be the same before and after: workers, descriptors, memory and files."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

MORE_DESCRIPTORS = 40
"""Connections that are about to be closed, and pipes of processes that are started again."""

METRICS = ".db"
"""Suffix of the files of Prometheus: a worker has one for each type of metric, from its first use."""


@dataclass(frozen=True)
class Vitals:
    """One measurement of the service; memory is the proportional set size of all its processes, in MB."""

    workers: frozenset[int]
    descriptors: int
    megabytes: float
    files: frozenset[str]

    def faults(self, later: "Vitals", more_megabytes: float) -> Iterator[str]:
        """Yields a sentence for everything that is worse later."""
        if later.workers != self.workers:
            yield f"the workers {sorted(self.workers)} became {sorted(later.workers)}"
        if later.descriptors > self.descriptors + MORE_DESCRIPTORS:
            yield f"{self.descriptors} open descriptors became {later.descriptors}"
        if later.megabytes > self.megabytes + more_megabytes:
            yield f"{self.megabytes:.0f} MB became {later.megabytes:.0f} MB"
        if new := later.files - self.files:
            yield f"new temporary files: {sorted(new)[:5]}"


def measure(server: psutil.Process, folder: Path) -> Vitals:
    """Returns the vitals of a service whose temporary files are in ``folder``."""
    family = [server, *server.children(recursive=True)]
    taken = [_taken(process) for process in family]
    return Vitals(
        workers=frozenset(child.pid for child in server.children()),
        descriptors=sum(descriptors for descriptors, _ in taken),
        megabytes=sum(size for _, size in taken) / 1e6,
        files=frozenset(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix != METRICS),
    )


def _taken(process: psutil.Process) -> tuple[int, int]:
    """Returns the open descriptors and the bytes of a process; none of one that has just ended."""
    with contextlib.suppress(psutil.Error):
        return process.num_fds(), process.memory_full_info().pss
    return 0, 0
