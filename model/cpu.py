"""The CPU of this machine: cores, features, memory allocation."""

import ctypes
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

from model.cgroup import cpu_quota

if sys.platform != "win32":
    import resource

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def usable_cores(root: Path = Path("/")) -> int:
    """Returns the number of cores this process may use, by its affinity (CPU sets, taskset) and its CPU quota.

    Args:
        root: the folder that contains ``proc`` and ``sys``, for the quota.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(cores, cpu_quota(root))))


def has_bf16() -> bool:
    """Returns whether the CPU multiplies bfloat16 in hardware. Without it, autocast to bfloat16 is ten times slower."""
    return bool({"avx512_bf16", "amx_bf16"} & cpu_flags())


def has_int8(root: Path = Path("/")) -> bool:
    """Returns whether the CPU has instructions that multiply and add many bytes at once.

    x86-64 has them with AVX2. arm64 has them with SDOT (``asimddp``) or I8MM.
    """
    return bool({"avx2", "asimddp", "i8mm", "FEAT_DotProd", "FEAT_I8MM"} & cpu_flags(root))


@cache
def cpu_flags(root: Path = Path("/")) -> frozenset[str]:
    """Returns the features of the CPU as Linux or macOS names them; empty on other systems.

    Args:
        root: the folder that contains ``proc`` (Linux).
    """
    if sys.platform == "darwin":
        sysctl = subprocess.run(["/usr/sbin/sysctl", "hw.optional"], capture_output=True, text=True, check=False)
        return sysctl_flags(sysctl.stdout)
    cpuinfo = _cpuinfo(root)
    return frozenset((cpuinfo.get("flags") or cpuinfo.get("Features") or "").split())


def sysctl_flags(text: str) -> frozenset[str]:
    """Returns the features that ``sysctl hw.optional`` of macOS lists as present, without ``hw.optional.arm.``."""
    return frozenset(line.removesuffix(": 1").rsplit(".")[-1] for line in text.splitlines() if line.endswith(": 1"))


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
        limit, (_, most) = pages * resource.getpagesize() + additional, resource.getrlimit(resource.RLIMIT_AS)
        if most != resource.RLIM_INFINITY:  # by an operator's ulimit -v, which may only be lowered
            limit = min(limit, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _cpuinfo(root: Path = Path("/")) -> dict[str, str]:
    try:
        first = (root / "proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
