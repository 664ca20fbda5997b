"""The CPU quota of this process, which its control groups set (Linux, cgroups(7); versions 1 and 2)."""

import math
from collections.abc import Iterator
from pathlib import Path


def cpu_quota(root: Path = Path("/")) -> float:
    """Returns how many CPUs' time this process may take, infinity without a quota.

    A group's quota also limits the groups inside it, so the smallest one of the group and its ancestors counts. In a
    container, the folder of the container's group may be the top, whatever path the group has on the host: folders
    that are not there are passed over.

    Args:
        root: the folder that contains ``proc`` and ``sys``.
    """
    return min((_quota(folder) for folder in _groups(root)), default=math.inf)


def _groups(root: Path) -> Iterator[Path]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        top = root / "sys/fs/cgroup"
        if "cpu" in controllers.split(","):
            top /= "cpu"
        elif controllers:
            continue
        group = Path(path)
        yield from (top / folder.relative_to("/") for folder in (group, *group.parents))


def _quota(folder: Path) -> float:
    try:
        quota, period = _quota_and_period(folder)
        return math.inf if quota in ("max", "-1") else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf


def _quota_and_period(folder: Path) -> list[str]:
    """Microseconds, as the kernel writes them."""
    both = folder / "cpu.max"
    files = [both] if both.exists() else [folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"]
    return " ".join(file.read_text() for file in files).split()
