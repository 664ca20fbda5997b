"""The CPU of this machine: cores, features, memory allocation."""

import ctypes
import os
import platform
import sys
from functools import cache
from pathlib import Path

if sys.platform != "win32":
    import resource

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def usable_cores() -> int:
    """Returns the number of cores this process may use, by its affinity and the CPU quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(cores, int(quota))) if quota else cores


def has_bf16() -> bool:
    """Returns whether the CPU multiplies bfloat16 in hardware. Without it, autocast to bfloat16 is ten times slower."""
    return bool({"avx512_bf16", "amx_bf16"} & cpu_flags())


@cache
def cpu_flags() -> frozenset[str]:
    """Returns the CPU flags that Linux lists; empty on other systems."""
    flags = _cpuinfo().get("flags", "")
    return frozenset(flags.split())


@cache
def cpu_name() -> str:
    """Returns the name of the CPU, for reports."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory instead of returning it to the kernel.

    Each training step allocates and frees activations of tens of MB; mapping them again costs thousands of page faults
    per step. Does nothing if the C library is not glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def release_freed_memory() -> None:
    """Makes glibc return large blocks to the kernel as soon as they are freed.

    By default it raises the size from which on it does so to that of the largest block freed so far. Then a process
    that once held a large picture stays large.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def limit_memory(additional: int) -> None:
    """Makes the system refuse this process more than ``additional`` bytes above what it has now (Linux)."""
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + additional
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


@cache
def _cpuinfo() -> dict[str, str]:
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cgroup_quota() -> float | None:
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)
