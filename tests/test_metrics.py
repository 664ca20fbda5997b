import contextlib
import errno
import os
import socket
import subprocess
import threading

import httpx
import pytest
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.parser import text_string_to_metric_families

from app.inference.executors import BACKGROUND_NICENESS, lower_priority
from app.metrics import SAMPLING_INTERVAL
from app.metrics_files import merging, reading
from app.server.ended_workers import merge_ended
from app.settings import Settings
from model import CLASSES
from tests.pictures import grey_png
from tests.servers import children_of, run, serve, service, wait_until


def samples(client: httpx.Client) -> dict[tuple[str, tuple[str, ...]], float]:
    """The metrics by name and label values."""
    response = client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()) if _ != "pid")): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


@pytest.fixture(scope="module")
def counted():
    """Two workers that have answered 90 requests of three kinds, each on a connection of its own."""
    with service(workers=2) as (server, client):
        for number in range(60):
            with httpx.Client(base_url=client.base_url) as other:
                assert other.post("/predict", files={"file": grey_png(number)}).status_code == 200
        for _ in range(20):
            with httpx.Client(base_url=client.base_url) as other:
                assert other.post("/predict", files={"file": b"no picture"}).status_code == 415
        for number in range(10):
            with httpx.Client(base_url=client.base_url) as other:
                assert other.get(f"/there/is/nothing/{number}").status_code == 404
        yield server, client


def test_they_add_up_to_the_requests_sent_to_both_workers(counted):
    _, client = counted
    for _ in range(6):  # whichever worker answers
        with httpx.Client(base_url=client.base_url) as other:
            found = samples(other)
        assert found["fashionnet_request_duration_seconds_count", ("/predict", "200")] == 60
        assert found["fashionnet_request_duration_seconds_count", ("/predict", "415")] == 20
        predictions = [
            found.get(("fashionnet_prediction_confidence_count", (label, "fashionnet")), 0) for label in CLASSES
        ]
        assert sum(predictions) == 60
        assert found["fashionnet_problems_total", ("not-an-image",)] == 20
        assert found["fashionnet_batch_size_sum", ("fashionnet",)] >= 60


def test_what_callers_make_up_is_no_label(counted):
    _, client = counted
    found = samples(client)
    assert found["fashionnet_request_duration_seconds_count", ("other", "404")] == 10
    assert not [labels for _, labels in found if any("nothing" in label for label in labels)]


def test_open_connections_are_counted(counted):
    _, client = counted
    address = client.base_url.host, client.base_url.port
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection(address))
        wait_until(lambda: samples(client)["fashionnet_open_connections", ()] >= 5)
    wait_until(lambda: samples(client)["fashionnet_open_connections", ()] < 5)
    assert samples(client)["fashionnet_max_connections", ()] >= Settings().max_connections


def test_the_state_of_the_moment_is_told(counted):
    _, client = counted
    found = samples(client)
    assert found["fashionnet_requests_in_progress", ()] in (1, 2), "the scrape itself"
    assert found["fashionnet_queue_depth", ("fashionnet",)] == 0
    infos = sorted(labels[0] for name, labels in found if name == "fashionnet_model_info")
    assert infos == ["fashionnet", "fashionnet-deep", "fashionnet-photo"]


def test_a_worker_that_died_leaves_no_state_behind(counted):
    """Killed, it cannot clean up; the one that takes its place does."""
    server, client = counted
    found = samples(client)
    victim, *_ = children_of(server)
    victim.kill()
    wait_until(lambda: victim not in children_of(server))

    def recovered() -> bool:
        with httpx.Client(base_url=client.base_url) as other:
            return samples(other)["fashionnet_requests_in_progress", ()] in (1, 2)

    wait_until(recovered)
    with httpx.Client(base_url=client.base_url) as other:
        after = samples(other)
    key = ("fashionnet_request_duration_seconds_count", ("/predict", "200"))
    assert after[key] == found[key], "what was counted stays counted"


def test_the_stages_of_every_sixteenth_prediction_are_timed(small_data):
    with serve(Settings(data_dir=small_data.root)) as client:
        before = samples(client)
        for number in range(2 * SAMPLING_INTERVAL):
            client.post("/predict", files={"file": grey_png(number)})
        after = samples(client)
    for stage in ("read", "wait", "encode", "queue", "compute"):
        key = ("fashionnet_stage_duration_seconds_count", (stage,))
        assert after[key] - before.get(key, 0) == 2, stage


def test_the_background_thread_yields_to_the_others():
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    found = []
    thread = threading.Thread(
        target=lambda: (lower_priority(), found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
    )
    thread.start()
    thread.join()
    assert found == [BACKGROUND_NICENESS]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


def test_500_ended_workers_lose_no_count_and_leave_few_files(tmp_path):
    """A worker ends, and its files are there under 500 names."""
    code = """
import os, sys, time
from pathlib import Path
from app import metrics
from app.server.ended_workers import merge_ended
folder = Path(sys.argv[1])
pid = os.fork()
if not pid:
    for status in range(200, 220):
        metrics.REQUESTS.labels("/predict", status).observe(status / 1000)
    metrics.PROBLEMS.labels("overloaded").inc(7)
    metrics.CONFIDENCE.labels("m", "l").observe(0.5)
    metrics.IN_PROGRESS.set(1)
    os._exit(0)
os.waitpid(pid, 0)
pids = range(2**22 + 1, 2**22 + 501)  # the kernel gives none of them
for file in list(folder.glob(f"*_{pid}.db")):
    for ended in pids:
        os.link(file, folder / file.name.replace(str(pid), str(ended)))
    file.unlink()
print(len(list(folder.glob("*.db"))))
for ended in pids:
    merge_ended(folder, ended)
start = time.process_time()
text = metrics.exposition(metrics.collect()).decode()
print(len(list(folder.glob("*.db"))), time.process_time() - start)
print(text)
"""
    done = run("-c", code, str(tmp_path), PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    assert not done.stderr
    before, figures, text = done.stdout.split("\n", 2)
    files, seconds = figures.split()
    assert int(before) > 2000
    assert int(files) <= 8
    assert float(seconds) < 0.05
    assert "fashionnet_requests_in_progress 0.0" in text
    assert 'fashionnet_problems_total{type="overloaded"} 3500.0' in text
    assert 'fashionnet_prediction_confidence_sum{label="l",model="m"} 250.0' in text
    assert 'fashionnet_request_duration_seconds_count{route="/predict",status="200"} 500.0' in text
    assert 'fashionnet_request_duration_seconds_bucket{le="0.1",route="/predict",status="200"} 0.0' in text
    assert 'fashionnet_request_duration_seconds_bucket{le="0.25",route="/predict",status="200"} 500.0' in text
    assert text.count("fashionnet_request_duration_seconds_count") == 20


@pytest.fixture
def ended(tmp_path):
    """A process that has ended, whose metrics are in ``tmp_path``."""
    with subprocess.Popen(["true"]) as process:
        pass
    with contextlib.closing(MmapedDict(str(tmp_path / f"counter_{process.pid}.db"))) as file:
        file.write_value("key", 2.0, 0.0)
    return process.pid


def test_the_metrics_of_ended_workers_are_merged_on_macos_too(tmp_path, ended, monkeypatch):
    monkeypatch.delattr("os.posix_fallocate", raising=False)
    for _ in range(2):
        merge_ended(tmp_path, ended)
        assert [file.name for file in tmp_path.glob("*.db")] == ["counter_ended.db"]
    [(key, value, *_)] = MmapedDict.read_all_values_from_file(str(tmp_path / "counter_ended.db"))
    assert (key, value) == ("key", 2)


def test_a_metrics_folder_that_cannot_be_written_disturbs_no_master(tmp_path, ended, monkeypatch, caplog):
    def fail(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("app.server.ended_workers.mark_process_dead", fail)
    merge_ended(tmp_path, ended)
    assert "stay in a file of their own: [Errno 30] Read-only file system" in caplog.text


def test_memory_cpu_and_files_of_every_process_are_told(counted):
    server, client = counted
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            if sample.name.startswith("process_"):
                found.setdefault(sample.name, {})[sample.labels["pid"]] = sample.value
    processes = {str(server.pid), *(str(worker.pid) for worker in children_of(server))}
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"):
        assert set(found[name]) == processes
        assert all(value > 0 for value in found[name].values())


def test_a_scrape_and_a_merge_wait_for_each_other(tmp_path):
    with reading(tmp_path), reading(tmp_path), pytest.raises(BlockingIOError), merging(tmp_path):
        pass
    with merging(tmp_path):
        pass
