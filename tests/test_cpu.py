"""What the service learns about its machine: features of the CPU, and how many cores it may use."""

import contextlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.cgroup import cpu_quota
from model.cpu import has_int8, sysctl_flags, usable_cores
from tests.servers import ROOT

# Lines of /proc/cpuinfo (APPLE_M1: of sysctl) of real machines, shortened
EPYC = """processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC
flags\t\t: fpu vme de pse sse sse2 ssse3 fma cx16 sse4_1 sse4_2 avx f16c rdrand bmi1 avx2 smep bmi2 sha_ni vaes
"""
WITHOUT_AVX2 = EPYC.replace(" avx2", "")
RASPBERRY_PI_4 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU part\t: 0xd08
"""
AMPERE_ALTRA = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp ssbs
CPU implementer\t: 0x41
CPU part\t: 0xd0c
"""
NEOVERSE_N2 = """processor\t: 23
BogoMIPS\t: 2000.00
Features\t: fp asimd aes pmull sha1 sha2 crc32 atomics sve sve2 svei8mm svebf16 i8mm bf16 dgh rng bti
CPU implementer\t: 0x41
CPU part\t: 0xd49
"""
APPLE_M1 = """hw.optional.arm.FEAT_FHM: 1
hw.optional.arm.FEAT_DotProd: 1
hw.optional.arm.FEAT_BF16: 0
hw.optional.arm.FEAT_I8MM: 0
hw.optional.floatingpoint: 1
"""

WORKERS = (sys.executable, "-c", "from app.settings import read_settings; print(read_settings().workers)")
SEVERAL_CORES = pytest.mark.skipif(usable_cores() < 2, reason="this process may use one core alone")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no /proc/cpuinfo")
@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [(EPYC, True), (WITHOUT_AVX2, False), (RASPBERRY_PI_4, False), (AMPERE_ALTRA, True), (NEOVERSE_N2, True)],
)
def test_cpus_that_multiply_bytes_are_known_by_their_features(tmp_path, cpuinfo, expected):
    assert has_int8(write(tmp_path, {"proc/cpuinfo": f"{cpuinfo}\n{cpuinfo}"})) is expected


def test_the_features_of_a_mac_are_those_that_sysctl_lists_with_a_one():
    assert sysctl_flags(APPLE_M1) == {"FEAT_FHM", "FEAT_DotProd", "floatingpoint"}


V2 = "sys/fs/cgroup"
V1 = "sys/fs/cgroup/cpu"


def v1(folder: str, quota: int) -> dict[str, str]:
    return {f"{folder}/cpu.cfs_quota_us": f"{quota}\n", f"{folder}/cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        # version 2
        ("0::/\n", {}, math.inf),
        ("0::/\n", {f"{V2}/cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {f"{V2}/a/b/cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {f"{V2}/a/b/cpu.max": "400000 100000\n", f"{V2}/a/cpu.max": "50000 25000\n"}, 2),
        ("0::/a/b\n", {f"{V2}/a/cpu.max": "300000 100000\n", f"{V2}/other/cpu.max": "100000 100000\n"}, 3),
        ("0::/not/seen/here\n", {f"{V2}/cpu.max": "200000 100000\n"}, 2),
        ("0::/a\n", {f"{V2}/a/cpu.max": "nonsense\n"}, math.inf),
        # version 1
        ("4:cpu,cpuacct:/a/b\n", v1(f"{V1}/a/b", -1) | v1(f"{V1}/a", 250_000), 2.5),
        ("4:cpuset:/a\n3:memory:/b:c\n1:cpu:/\n", v1(f"{V1}/a", 100_000) | v1(V1, -1), math.inf),
        ("1:cpu,cpuacct:/docker/123\n", v1(V1, 300_000), 3),
        # both
        ("1:cpu:/a\n0::/a\n", v1(f"{V1}/a", 100_000) | {f"{V2}/unified/a/cgroup.procs": ""}, 1),
    ],
)
def test_the_smallest_quota_of_a_group_and_its_ancestors_counts(tmp_path, groups, files, expected):
    assert cpu_quota(write(tmp_path, {"proc/self/cgroup": groups} | files)) == expected


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert cpu_quota(tmp_path) == math.inf


def test_a_part_of_a_core_is_one_core(tmp_path):
    assert usable_cores(write(tmp_path, {"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": "50000 100000\n"})) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
@SEVERAL_CORES
def test_a_service_on_one_core_of_several_has_one_worker():
    core = max(os.sched_getaffinity(0))
    assert workers("taskset", "--cpu-list", str(core)) == 1


@SEVERAL_CORES
def test_a_service_in_a_group_whose_parent_has_a_quota_keeps_to_it():
    with group_in_one_with_a_quota_of_one_cpu() as group:
        assert workers("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh") == 1


def workers(*start: str) -> int:
    """The number of workers that a service has by default when its command stands behind ``start``."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FASHIONNET_")}
    command = [*start, *WORKERS]
    return int(subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout)


@contextlib.contextmanager
def group_in_one_with_a_quota_of_one_cpu() -> Iterator[Path]:
    first = Path("/sys/fs/cgroup/cpu")
    outer = (first if first.exists() else first.parent) / f"fashionnet-test-{os.getpid()}"
    file, text = ("cpu.cfs_quota_us", "100000") if first.exists() else ("cpu.max", "100000 100000")
    inner = outer / "inner"
    try:
        inner.mkdir(parents=True)
        (outer / file).write_text(text)
        yield inner
    except OSError as error:
        pytest.skip(f"this user may not make control groups with a quota: {error.strerror}")
    finally:
        for folder in (inner, outer):
            if folder.exists():
                folder.rmdir()
