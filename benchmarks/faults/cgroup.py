"""A control group that limits the memory of a service as the limit of a container does. Needs root, on Linux."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
V1 = ROOT / "memory"


class MemoryGroup:
    """A group with a limit: version 1 where the system mounts it, else version 2.

    Raises:
        OSError: this process may not make groups.
    """

    def __init__(self, limit: int) -> None:
        is_v1 = V1.is_dir()
        self.folder = (V1 if is_v1 else ROOT) / f"fashionnet-{os.getpid()}"
        self.processes = self.folder / "cgroup.procs"
        self._events = self.folder / ("memory.oom_control" if is_v1 else "memory.events")
        self.folder.mkdir()
        (self.folder / ("memory.limit_in_bytes" if is_v1 else "memory.max")).write_text(str(limit))

    def kills(self) -> int:
        """Returns how many processes of the group the kernel has killed because memory ran out."""
        counts = dict(line.split() for line in self._events.read_text().splitlines())
        return int(counts["oom_kill"])


@contextlib.contextmanager
def memory_group(limit: int) -> Iterator[MemoryGroup | None]:
    """Makes a group of at most ``limit`` bytes until the context ends; None where that is not allowed."""
    try:
        group = MemoryGroup(limit)
    except OSError:
        yield None
        return
    try:
        yield group
    finally:
        group.folder.rmdir()
