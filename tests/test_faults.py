"""What happens to the service when its processes, its disk or its limits fail."""

import asyncio
import contextlib
import errno
import http.client
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from app.__main__ import create_metrics_folder
from app.connections import require_files
from app.lifecycle import Readiness
from app.metrics_files import remove_abandoned
from app.problems import NotReady
from app.server.sockets import accept_all, ignore_new_connections
from tests.pictures import grey_png
from tests.servers import children_of, client_of, is_ready, port_of, process, run, service, wait_until

STOP_SIGNALS = [signal.SIGTERM, signal.SIGINT]
PNG = {"Content-Type": "image/png"}
SLACK = 3
"""Seconds that a busy machine may add."""


def predict(client: httpx.Client) -> httpx.Response:
    return client.post("/predict", files={"file": grey_png()})


def descendants_of(server: subprocess.Popen[str]) -> list[psutil.Process]:
    """Workers, and the processes in which they decode."""
    return psutil.Process(server.pid).children(recursive=True)


def metrics_folders(parent: Path) -> list[Path]:
    return list(parent.glob("*fashionnet-metrics-*"))


def handles(pid: int, number: int) -> bool:
    """Whether the process has a handler for a signal."""
    caught = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())[1]
    return bool(int(caught, 16) >> (number - 1) & 1)


def assert_ended_well(server: subprocess.Popen[str], seconds: float) -> str:
    """The service ends in time, with status 0 and without a traceback. Returns its log."""
    _, log = server.communicate(timeout=seconds)
    assert server.returncode == 0, log
    assert "Traceback" not in log
    return log


@contextlib.contextmanager
def load(client: httpx.Client, callers: int = 4) -> Iterator[list[int]]:
    """Callers that connect anew whenever a connection fails; yields the statuses of the responses."""
    statuses, over, picture = [], threading.Event(), grey_png()

    def call() -> None:
        while not over.is_set():
            connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port, timeout=10)
            with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
                while not over.is_set():
                    connection.request("POST", "/predict", picture, PNG)
                    response = connection.getresponse()
                    response.read()
                    statuses.append(response.status)
            time.sleep(0.02)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(statuses) > 20)
        yield statuses
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def uploading(client: httpx.Client) -> Iterator[Callable[[], httpx.Response]]:
    """A picture that is uploaded halfway; yields what uploads the rest and returns the response."""
    sending, release = threading.Event(), threading.Event()

    def upload() -> Iterator[bytes]:
        yield grey_png()[:50]
        sending.set()
        release.wait()
        yield grey_png()[50:]

    with ThreadPoolExecutor() as pool:
        uploaded = pool.submit(httpx.post, f"{client.base_url}/predict", content=upload(), headers=PNG, timeout=60)
        sending.wait()
        time.sleep(0.2)

        def finish() -> httpx.Response:
            release.set()
            return uploaded.result()

        try:
            yield finish
        finally:
            release.set()


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_a_signal_during_the_start_ends_it_at_once(tmp_path, number):
    delays = [0, 0.3, 1]
    environment = {"FASHIONNET_PORT": "0", "FASHIONNET_WORKERS": "2", "TMPDIR": str(tmp_path)}
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(process("-m", "app", **environment)) for _ in delays]
        for server, delay in zip(servers, delays, strict=True):
            wait_until(lambda server=server: handles(server.pid, signal.SIGTERM))  # the last that gets one
            time.sleep(delay)
            server.send_signal(number)
        for server in servers:
            assert_ended_well(server, 2 + SLACK)
    assert not metrics_folders(tmp_path)


@pytest.mark.parametrize("delay", [0, 0.5])
def test_the_first_process_of_a_container_ends_during_its_start_too(delay):
    """The kernel ignores SIGTERM there if there is no handler."""
    apart = ["unshare", "--pid", "--fork"]
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs unshare (util-linux) and the right to use it")
    code = f"import os, sys; os.execvp('unshare', {apart} + [sys.executable, '-m', 'app'])"
    with process("-c", code, FASHIONNET_PORT="0") as outside:
        wait_until(lambda: any(handles(child.pid, signal.SIGTERM) for child in children_of(outside)))
        first, *_ = children_of(outside)
        time.sleep(delay)
        first.send_signal(signal.SIGTERM)
        assert_ended_well(outside, 2 + SLACK)


@pytest.mark.parametrize(
    ("workers", "number", "drain"),
    [(1, signal.SIGTERM, 0), (1, signal.SIGINT, 1), (2, signal.SIGTERM, 1), (2, signal.SIGINT, 0)],
)
def test_under_load_it_ends_in_time_and_responds_to_what_is_in_flight(tmp_path, monkeypatch, workers, number, drain):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with service(workers=workers, drain_seconds=drain) as (server, client), load(client) as statuses:
        with uploading(client) as uploaded:
            server.send_signal(number)
            start = time.monotonic()
            time.sleep(0.2)
            assert uploaded().status_code == 200
        descendants = descendants_of(server)
        assert_ended_well(server, drain + 2 + SLACK)
        assert time.monotonic() - start >= drain
        wait_until(lambda: not any(one.is_running() for one in descendants), SLACK)
    assert set(statuses) == {200}
    assert not metrics_folders(tmp_path)


@pytest.mark.slow
def test_it_ends_each_time_that_it_is_stopped_under_load():
    for _ in range(10):
        with service(workers=2, drain_seconds=0.3) as (server, client), load(client, 16):
            server.send_signal(signal.SIGTERM)
            assert_ended_well(server, 2 + 2 * SLACK)


@pytest.mark.skipif(sys.platform != "linux", reason="the filter is one of Linux")
def test_only_clients_that_begin_to_connect_are_ignored():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        with socket.create_connection(address) as early:
            ignore_new_connections(listening)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.2)
            [accepted] = accept_all(listening)
            with accepted:
                accepted.sendall(b"x")
                assert early.recv(1) == b"x"


def test_a_worker_that_is_stopped_alone_leaves_the_port_to_the_others():
    with service(workers=2) as (server, _):
        stopped = children_of(server)[0]
        stopped.terminate()
        wait_until(lambda: stopped not in children_of(server))
        for _ in range(5):
            with client_of(server, ready=False) as another:
                assert predict(another).status_code == 200


@pytest.mark.slow
def test_a_worker_that_finishes_a_long_request_is_not_taken_for_one_that_hangs():
    with service(workers=2, worker_timeout_seconds=5) as (server, client), uploading(client) as uploaded:
        for worker in children_of(server):
            worker.terminate()  # alone, as in a reload: the master goes on to look after them
        time.sleep(5 + 1 + SLACK)
        assert uploaded().status_code == 200
        server.send_signal(signal.SIGTERM)
        assert "WORKER TIMEOUT" not in assert_ended_well(server, 2 + SLACK)


@pytest.mark.parametrize(("workers", "first"), [(1, signal.SIGINT), (2, signal.SIGINT), (1, signal.SIGTERM)])
def test_a_second_signal_ends_it_sooner(workers, first):
    with service(workers=workers, drain_seconds=60) as (server, client):
        server.send_signal(first)
        wait_until(lambda: client.get("/health/ready").status_code == 503)
        client.close()
        server.send_signal(signal.SIGINT)
        assert_ended_well(server, 3 + SLACK)


def test_after_a_second_signal_open_requests_are_finished():
    """The end of the drain that was skipped counts as no third signal, upon which they would be dropped."""
    with service(workers=1, drain_seconds=2) as (server, client), uploading(client) as uploaded:
        server.send_signal(signal.SIGINT)
        wait_until(lambda: client.get("/health/ready").status_code == 503)
        client.close()
        server.send_signal(signal.SIGINT)
        time.sleep(3)
        assert uploaded().status_code == 200
        assert_ended_well(server, 2 + SLACK)


def test_a_signal_to_the_master_and_its_workers_is_one():
    """A terminal sends Ctrl-C to all processes, and the master tells its workers to stop besides."""
    with service(workers=2, drain_seconds=3) as (server, client):
        for one in [server, *children_of(server)]:
            one.send_signal(signal.SIGINT)
        time.sleep(1.5)
        assert client.get("/health/ready").status_code == 503
        client.close()
        assert_ended_well(server, 3 + SLACK)


def test_a_self_test_that_ends_late_does_not_make_a_stopping_service_ready():
    readiness = Readiness()
    readiness.stop()
    asyncio.run(readiness.settle(asyncio.sleep(0)))
    with pytest.raises(NotReady, match="stopping"):
        readiness.require()


def test_a_killed_worker_is_replaced_and_the_other_responds():
    with service(workers=2) as (server, client), load(client) as statuses:
        victim, other = children_of(server)
        helpers = victim.children()
        victim.kill()
        start = time.monotonic()
        wait_until(lambda: len(set(children_of(server)) - {victim, other}) == 1)
        assert time.monotonic() - start < 2
        before = len(statuses)
        wait_until(lambda: len(statuses) > before + 20)
        assert other.is_running()
        wait_until(lambda: not any(helper.is_running() for helper in helpers))
    assert set(statuses) == {200}


def test_a_worker_that_hangs_even_while_it_starts_is_replaced_after_the_timeout():
    environment = {"FASHIONNET_PORT": "0", "FASHIONNET_WORKERS": "2", "FASHIONNET_WORKER_TIMEOUT_SECONDS": "5"}
    with process("-m", "app", **environment) as server, client_of(server, ready=False) as client:
        wait_until(lambda: len(children_of(server)) == 2)
        victim, other = children_of(server)
        victim.suspend()
        wait_until(lambda: is_ready(client))
        wait_until(lambda: victim not in children_of(server))
        wait_until(lambda: len(children_of(server)) == 2)
        assert other in children_of(server)


def test_workers_end_soon_after_their_master_was_killed(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with service(workers=2, drain_seconds=60) as (server, client), load(client):
        descendants, port = descendants_of(server), port_of(server)
        server.kill()
        wait_until(lambda: not any(one.is_running() for one in descendants), 3 + SLACK)
        with socket.create_server(("127.0.0.1", port)):
            pass
    assert len(metrics_folders(tmp_path)) == 1


def test_what_killed_services_left_behind_is_removed_at_the_next_start(tmp_path):
    environment = {"FASHIONNET_PORT": "0", "FASHIONNET_WORKERS": "2", "TMPDIR": str(tmp_path)}
    abandoned = tmp_path / "fashionnet-metrics-abandoned"
    abandoned.mkdir()
    (abandoned / "counter_1.db").write_bytes(bytes(100))
    with process("-m", "app", **environment) as first, client_of(first):
        [mine] = metrics_folders(tmp_path)
        assert mine != abandoned
        with process("-m", "app", **environment) as second, client_of(second):
            assert len(metrics_folders(tmp_path)) == 2, "that of a service that runs stays"


def test_a_removed_metrics_folder_disturbs_no_request_and_comes_back_with_a_worker(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with service(workers=2) as (server, client):
        [folder] = metrics_folders(tmp_path)
        shutil.rmtree(folder)
        assert predict(client).status_code == 200
        assert client.post("/predict", content=b"nothing").status_code == 415
        assert client.get("/gallery", params={"rows": 0}).status_code == 422
        problem = client.get("/metrics")
        assert (problem.status_code, problem.json()["type"]) == (503, "urn:fashionnet:problem:metrics-unavailable")
        for worker in children_of(server):
            worker.kill()
        wait_until(lambda: is_ready(client))
        wait_until(lambda: client.get("/metrics").status_code == 200)
        remove_abandoned(tmp_path)  # as another service does that starts
        assert folder.exists()
        assert predict(client).status_code == 200
        server.send_signal(signal.SIGTERM)
        log = assert_ended_well(server, 2 + SLACK)
    assert f"{folder}" in log
    assert not metrics_folders(tmp_path)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system in memory of so many kilobytes."""
    made = []

    def make(kilobytes: int) -> Path:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(tmp_path)]
        if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("needs the right to mount a file system in memory")
        made.append(tmp_path)
        return tmp_path

    yield make
    for path in made:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_full_disk_stops_the_start_with_one_sentence(small_disk):
    done = run("-m", "app", FASHIONNET_PORT="0", FASHIONNET_WORKERS="2", TMPDIR=str(small_disk(64)))
    assert done.returncode == 1
    assert re.fullmatch(r"fashionnet: \S+ has [\d,]+ bytes left, .*: free space there, or set TMPDIR .*\n", done.stderr)


def fill(disk: Path) -> None:
    """Takes all the space that a disk has."""
    with contextlib.suppress(OSError), (disk / "large").open("ab", buffering=0) as file:
        while file.write(bytes(1024)):
            pass


@pytest.mark.slow
def test_workers_that_die_at_their_start_are_started_ever_more_slowly_until_it_ends(small_disk):
    disk = small_disk(8_000)
    environment = {"FASHIONNET_PORT": "0", "FASHIONNET_WORKERS": "2", "TMPDIR": str(disk)}
    with process("-m", "app", **environment) as server, client_of(server) as client:
        fill(disk)
        for worker in children_of(server):
            worker.kill()
        client.close()
        # The files of the killed workers become one, which leaves room for a new worker unless something else takes it.
        wait_until(lambda: fill(disk) or server.poll() is not None, 60)
        _, log = server.communicate()
    assert server.returncode == 1
    assert "Traceback" not in log
    assert re.search(r"Reason: \d+ workers in a row ended before they were ready: the disk of \S+, .* free space", log)
    assert log.count("Booting worker") < 20


def test_without_a_folder_for_metrics_several_workers_say_so(tmp_path):
    missing = tmp_path / "missing"
    done = run("-m", "app", FASHIONNET_PORT="0", FASHIONNET_WORKERS="2", PROMETHEUS_MULTIPROC_DIR=str(missing))
    assert done.returncode == 1
    assert re.fullmatch(
        r"fashionnet: The metrics folder cannot be created \(.*\): set PROMETHEUS_MULTIPROC_DIR to a folder that this "
        r"user may write to\.\n",
        done.stderr,
    )


def test_without_a_folder_for_temporary_files_the_remedies_are_others(monkeypatch):
    def fail() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", fail)
    with pytest.raises(SystemExit, match=r"set TMPDIR to a folder that .*, or set FASHIONNET_WORKERS=1"):
        create_metrics_folder(None, 2)


def limited(descriptors: int) -> tuple[str, str]:
    """Arguments of Python for the service with a limit on its open files."""
    code = "import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, ({0}, {0})); "
    return "-c", code.format(descriptors) + "runpy.run_module('app', run_name='__main__')"


def test_too_few_file_descriptors_stop_the_start_with_one_sentence():
    done = run(*limited(20), FASHIONNET_PORT="0")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert done.stderr.startswith("fashionnet: Only 20 files may be open")


def test_no_limit_for_open_files_is_enough(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    require_files()


def test_it_responds_again_after_file_descriptors_ran_out_and_the_log_stays_short():
    with process(*limited(64), FASHIONNET_PORT="0", FASHIONNET_WORKERS="2") as server, client_of(server) as client:
        address = ("127.0.0.1", port_of(server))
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                stack.enter_context(socket.create_connection(address))
            time.sleep(3)
        with httpx.Client(base_url=client.base_url, timeout=20) as later:
            assert predict(later).status_code == 200
        client.close()
        server.send_signal(signal.SIGTERM)
        log = assert_ended_well(server, 2 + SLACK)
    assert len(log.splitlines()) < 40


def test_a_path_forges_no_line_of_the_log():
    with service(workers=1, access_log="true") as (server, client):
        assert client.get("/a%0aERROR    stolen%1b[2J%00").status_code == 404
        client.close()
        server.send_signal(signal.SIGTERM)
        log = assert_ended_well(server, 2 + SLACK)
    assert r"GET /a\nERROR    stolen\x1b[2J\x00 404" in log
    assert not re.search(r"^ERROR", log, re.MULTILINE)


@pytest.mark.parametrize(
    ("host", "words"), [("", "--host=''"), ("a..b", "The service cannot listen on a..b (no host has")]
)
def test_what_is_no_host_is_refused_in_one_sentence(host, words):
    done = run("-m", "app", "--host", host)
    assert done.returncode == 1
    assert done.stderr.startswith(f"fashionnet: {words}")
    assert len(done.stderr.splitlines()) == 1
