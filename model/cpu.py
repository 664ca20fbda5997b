"""What this machine's CPU offers, and what it wants from us."""

import ctypes
import os
import platform
from functools import cache
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def usable_cores() -> int:
    """The cores this process may use: its affinity, cut down to the container's CPU quota (at least 1)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, min(cores, int(quota))) if quota else cores


def has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; without that, autocast to it is ten times slower."""
    return bool({"avx512_bf16", "amx_bf16"} & cpu_flags())


@cache
def cpu_flags() -> frozenset[str]:
    """The CPU's own flags as Linux lists them; empty on other systems."""
    flags = _cpuinfo().get("flags", "")
    return frozenset(flags.split())


@cache
def cpu_name() -> str:
    """The CPU's own name, for reports."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Ask glibc to keep freed blocks instead of giving them back to the kernel.

    The activations of a batch are tens of MB, allocated and freed at every step; mapped anew each time, they
    cost thousands of page faults a step. Does nothing where the C library is not glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


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
