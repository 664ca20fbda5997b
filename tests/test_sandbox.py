"""The helper process that runs decoders: its limits, and what it survives."""

import contextlib
import ctypes
import io
import os
import re
import signal
import socket
import struct
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from app.inference.errors import HelperLost
from app.inference.sandbox import (
    MAX_CALLS_PER_HELPER,
    CallLimits,
    HelperCrashed,
    HelperProcess,
    MemoryLimitExceeded,
    NoSandbox,
    TimeLimitExceeded,
    create_sandbox,
)
from model import preprocess
from model.errors import ImageError
from model.preprocessing.decode import DecodeLimits
from tests.pictures import encode, scene
from tests.servers import run, wait_until

LIMITS = CallLimits(seconds=0.3, memory=160_000_000, message=4_000_000)


@pytest.fixture
def sandbox():
    helper = create_sandbox(LIMITS)
    yield helper
    helper.close()


def spin():
    while True:
        pass


def sleep_long():
    time.sleep(1)
    return "slept"


def crash():
    ctypes.string_at(0)


def kill_both():
    os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def end(*_):
    os._exit(3)


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def own_files():
    names = [f"/proc/self/fd/{number}" for number in range(200)]
    return sorted(os.readlink(name) for name in names if os.path.lexists(name))  # noqa: PTH115 - "socket:[1]" is no path


class Unpicklable(Exception):
    def __init__(self):
        super().__init__(threading.Lock())


def raise_unpicklable():
    raise Unpicklable


def test_a_call_returns_or_raises_what_the_function_does(sandbox):
    assert sandbox.run(divmod, 7, 2) == (3, 1)
    assert sandbox.run(int, "11", base=2) == 3
    with pytest.raises(ValueError, match="invalid literal"):
        sandbox.run(int, "x")


@pytest.mark.parametrize(
    ("function", "arguments", "error"),
    [
        (spin, (), TimeLimitExceeded),
        (bytearray, (3_000_000_000,), MemoryLimitExceeded),  # less may fit into what earlier tests have freed
        (bytes, (5_000_000,), MemoryLimitExceeded),
        (len, (bytes(5_000_000),), MemoryLimitExceeded),
        (crash, (), HelperCrashed),
        (end, (), HelperCrashed),
        (kill_itself, (), HelperLost),
        (raise_unpicklable, (), HelperCrashed),
    ],
    ids=["time", "memory", "large result", "large argument", "fault", "exit", "killed", "unpicklable"],
)
def test_a_call_that_exceeds_a_limit_ends_and_the_next_one_works(sandbox, function, arguments, error):
    for _ in range(2):
        with pytest.raises(error):
            sandbox.run(function, *arguments)
        assert sandbox.run(len, "abc") == 3


def test_only_cpu_time_counts(sandbox):
    """On a busy machine a call may take longer than its CPU time."""
    assert sandbox.run(sleep_long) == "slept"


def test_a_call_that_waits_for_too_long_is_ended():
    """A decoder that blocks uses no CPU time."""
    with contextlib.closing(create_sandbox(LIMITS._replace(seconds=0.05))) as sandbox:
        with pytest.raises(TimeLimitExceeded):
            sandbox.run(sleep_long)
        assert sandbox.run(len, "next") == 4


def test_calls_of_several_threads_wait_for_each_other(sandbox):
    found = []
    threads = [threading.Thread(target=lambda n=n: found.append(sandbox.run(abs, -n) == n)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 20


def test_a_helper_is_replaced_before_its_memory_is_fragmented(sandbox):
    helpers = [sandbox.run(os.getpid) for _ in range(2 * MAX_CALLS_PER_HELPER)]
    assert max(helpers.count(one) for one in set(helpers)) == MAX_CALLS_PER_HELPER


@pytest.mark.parametrize(
    ("function", "argument"), [(len, bytes(3_000_000)), (bytes, 3_000_000), (end, bytes(3_000_000))]
)
def test_no_call_leaves_memory_behind(sandbox, function, argument):
    before = shared_memory()
    with contextlib.suppress(HelperCrashed):
        sandbox.run(function, argument)
    assert shared_memory() - before < 1000


def shared_memory() -> int:
    """Returns the kB of shared memory in this process; other tests may have left some there."""
    return int(re.search(r"Pss_Shmem: +(\d+) kB", Path("/proc/self/smaps_rollup").read_text())[1])


def test_the_helper_has_no_file_of_the_service(tmp_path):
    """An inherited connection would stay open after the service has closed it."""
    with (tmp_path / "x").open("w"), socket.create_server(("127.0.0.1", 0)):
        helper = HelperProcess(LIMITS)
        assert not set(helper.run(own_files)) & set(own_files()) - {"/dev/null"}
        helper.close()


def processes_of(parent: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def test_closing_ends_both_processes():
    helper = HelperProcess(LIMITS)
    number, parent = helper.run(os.getpid), helper.run(os.getppid)
    assert processes_of(parent) == [number]
    helper.close()
    wait_until(lambda: not any(Path(f"/proc/{process}").exists() for process in (number, parent)))


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_to_the_group_do_not_end_the_helper(sandbox, ending):
    """A terminal and systemd signal every process of a service that is to stop; requests are still answered then."""
    for process in (sandbox.run(os.getpid), sandbox.run(os.getppid)):
        os.kill(process, ending)
    assert sandbox.run(len, "abc") == 3


@pytest.mark.parametrize("pause", [0, 0.1])
def test_each_call_gets_its_own_answer_after_a_helper_was_killed(sandbox, pause):
    """The system may kill a helper between two calls, or just as it takes one."""
    for number in range(5):
        os.kill(sandbox.run(os.getpid), signal.SIGKILL)
        time.sleep(pause)
        assert [sandbox.run(abs, -number - step) for step in range(3)] == [number, number + 1, number + 2]


def test_a_call_is_not_repeated_by_the_next_helper(sandbox):
    """Otherwise a picture that ends its decoder would end every one after it."""
    for _ in range(3):
        with pytest.raises(HelperCrashed):
            sandbox.run(end)
        assert sandbox.run(len, "abc") == 3


def test_helpers_that_are_killed_at_any_moment_mix_no_answers(sandbox):
    """A call that was running may be lost; no other call is, and none gets the answer of another one."""
    supervisor, delays = sandbox.run(os.getppid), np.random.default_rng(1)
    answered = 0
    for number in range(100):
        killer = threading.Timer(delays.choice([0, 0.0003, 0.003]) * delays.random(), kill_helper, [supervisor])
        killer.start()
        with contextlib.suppress(HelperLost):
            assert sandbox.run(abs, -number) == number
            answered += 1
        killer.join()
    assert answered > 30


def kill_helper(supervisor: int) -> None:
    for process in processes_of(supervisor):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def end_supervisor_and_helper(sandbox):
    supervisor, helper = sandbox.run(os.getppid), sandbox.run(os.getpid)
    os.kill(supervisor, signal.SIGKILL)
    os.kill(helper, signal.SIGKILL)
    wait_until(lambda: has_ended(supervisor) and has_ended(helper))


def test_killed_with_its_supervisor_it_is_started_anew(sandbox):
    end_supervisor_and_helper(sandbox)
    assert sandbox.run(len, "abc") == 3
    with pytest.raises(HelperLost):
        sandbox.run(kill_both)
    assert sandbox.run(len, "abc") == 3


def test_a_fork_that_fails_loses_one_call(sandbox, monkeypatch):
    end_supervisor_and_helper(sandbox)

    def fail():
        monkeypatch.undo()
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("os.fork", fail)
    with pytest.raises(HelperLost):
        sandbox.run(len, "abc")
    assert sandbox.run(len, "abc") == 3


def test_a_new_supervisor_that_has_died_already_loses_one_call(sandbox, monkeypatch):
    end_supervisor_and_helper(sandbox)
    start = sandbox._start

    def start_one_that_dies():
        start()
        os.waitid(os.P_PID, sandbox._supervisor, os.WEXITED | os.WNOWAIT)
        monkeypatch.undo()

    monkeypatch.setattr("app.inference.sandbox._supervise", lambda *_: os._exit(0))
    monkeypatch.setattr(sandbox, "_start", start_one_that_dies)
    with pytest.raises(HelperLost):
        sandbox.run(len, "abc")
    assert sandbox.run(len, "abc") == 3


def has_ended(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_helper_that_cannot_be_limited_leaves_the_calls_to_the_thread(caplog):
    sandbox = create_sandbox(CallLimits(seconds=1, memory=10**30, message=1000))
    assert sandbox.run(len, "abc") == 3
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"][-1] == (
        "No helper process can run here: pictures are decoded without limits on time and memory."
    )
    sandbox.close()


def test_the_limit_of_an_operator_is_only_lowered():
    """As ``ulimit -v`` sets it."""
    code = (
        "import resource; from model.cpu import limit_memory; limit = 4 << 30; "
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit)); limit_memory(8 << 30); "
        "assert resource.getrlimit(resource.RLIMIT_AS) == (limit, limit); limit_memory(1 << 30); "
        "assert resource.getrlimit(resource.RLIMIT_AS)[1] < limit"
    )
    assert run("-c", code).returncode == 0


def test_without_fork_calls_run_in_the_thread():
    assert NoSandbox().run(divmod, 7, 2) == (3, 1)


def bmp_bomb() -> bytes:
    """A run-length encoded BMP of 68 bytes with 50 million pixels, which Pillow decodes in Python."""
    pixels = b"\1\0\0\0\0\1"
    head = struct.pack("<IiiHHIIiiII", 40, 49_999_999, 1, 1, 8, 1, len(pixels), 0, 0, 2, 0)
    return b"BM" + struct.pack("<IHHI", 62 + len(pixels), 0, 0, 62) + head + bytes(8) + pixels


def jpeg_of_many_scans() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (1024, 1024), 9).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    last = content.rindex(b"\xff\xda")
    return content[:-2] + content[last:-2] * 3000 + content[-2:]


def jpeg_of_fill_bytes() -> bytes:
    content = encode(Image.new("RGB", (64, 64)), "JPEG")
    return content[:2] + b"\xff" * 9_000_000 + content[2:]


def png_of_many_chunks() -> bytes:
    content = encode(Image.new("RGB", (64, 64)))
    return content[:33] + struct.pack(">I4sI", 0, b"teSt", 0x6E2FA58F) * 300_000 + content[33:]


@pytest.mark.parametrize("make", [bmp_bomb, jpeg_of_many_scans, jpeg_of_fill_bytes, png_of_many_chunks])
def test_no_picture_occupies_the_helper_for_longer_than_its_limit(make):
    limits = CallLimits(seconds=0.5, memory=160_000_000, message=20_000_000)
    helper = HelperProcess(limits)
    try:
        content = make()
        start = os.times()
        with contextlib.suppress(TimeLimitExceeded, ImageError):
            helper.run(preprocess, content)
        assert os.times().elapsed - start.elapsed < 20, "a busy machine shares the processor"
        assert helper.run(preprocess, encode(scene("wood")[0])).image.shape == (28, 28)
    finally:
        helper.close()


SIZES = {"PNG": 25, "JPEG": 45, "WEBP": 6, "GIF": 40, "BMP": 25, "TIFF": 12, "AVIF": 10}
"""Megapixels that each format may have within 100 MB."""


@pytest.mark.parametrize(("kind", "megapixels"), SIZES.items())
def test_a_picture_within_the_limit_is_decoded_within_the_memory(kind, megapixels):
    """The estimate of a format's memory holds: the largest pictures do not meet the limit of the process."""
    mode = "P" if kind == "GIF" else "RGB"
    content = encode(Image.new(mode, (5000, megapixels * 200), 7), kind)
    helper = HelperProcess(CallLimits(seconds=60, memory=164_000_000, message=100_000_000))
    try:
        picture = helper.run(preprocess, content, limits=DecodeLimits(memory=100_000_000))
        assert picture.image.dtype == np.uint8
    finally:
        helper.close()
