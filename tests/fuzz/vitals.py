"""What must be the same before and after: workers, descriptors, memory and files."""

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
    workers = frozenset(child.pid for child in server.children())
    files = frozenset(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix != METRICS)
    return Vitals(workers, sum(process.num_fds() for process in family), sum(map(megabytes, family)), files)


def megabytes(process: psutil.Process) -> float:
    """Returns the proportional set size of a process; 0 for one that has ended."""
    try:
        return float(process.memory_full_info().pss) / 1e6
    except psutil.Error:
        return 0.0
