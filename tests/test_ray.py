"""More than one machine: Ray Serve and Ray Data on a real local cluster of two nodes."""

import os
import signal
import socket
import threading
import time
import warnings
from pathlib import Path

import httpx
import psutil
import pytest

from model import WEIGHTS
from model.errors import DataCorrupt
from model.prediction import ModelPair
from tests.pictures import encode, grey_png, trousers
from tests.servers import ROOT, wait_until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Ray's own, at its import
    import ray
    from ray import serve
    from ray.cluster_utils import Cluster

    from deploy.ray.serve_app import FashionNet
    from model.offline.folder import classify_files, find_pictures
    from model.offline.ray_data import classify_on_cluster
    from model.offline.tables import arrow_schema
    from model.prediction import load_model_pair

NETWORKS = ModelPair("fashionnet", "fashionnet-photo")
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.filterwarnings("ignore")]  # Ray's own, by the dozen


@pytest.fixture(scope="module")
def cluster():
    """Two nodes; each has room for a replica and for what Ray Data does."""
    os.environ["PYTHONPATH"] = str(ROOT)
    # Ray Data's poller outlives its cluster and logs tracebacks from a thread, and formatting one breaks any ast.parse
    # that is going on elsewhere (CPython 3.11, gh-106905): an export to ONNX, two test modules later.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    yield cluster
    serve.shutdown()
    ray.shutdown()
    cluster.shutdown()


def replicas() -> set[int]:
    """The processes of the replicas."""
    return {
        p.pid for p in psutil.process_iter(["cmdline"]) if "ServeReplica:default:fashionnet" in str(p.info["cmdline"])
    }


@pytest.fixture(scope="module")
def port():
    """A port that is kept until the end: Ray's proxies share it (SO_REUSEPORT), and this socket takes no connection."""
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


@pytest.fixture(scope="module")
def client(cluster, port):
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    fixed = FashionNet.options(
        autoscaling_config=None, num_replicas=2, ray_actor_options={"num_cpus": 0.5}, max_replicas_per_node=1
    )
    serve.run(fixed.bind())
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client


def test_every_node_has_a_replica_and_the_answers_are_those_of_the_service(client):
    assert len(replicas()) == 2
    assert len({node["NodeID"] for node in ray.nodes() if node["Alive"]}) == 2
    answer = client.post("/predict", files={"file": encode(trousers())})
    assert answer.status_code == 200, answer.text
    assert answer.json()["label"] == "Trouser"
    problem = client.post("/predict", files={"file": b"no picture"})
    assert (problem.status_code, problem.json()["type"]) == (415, "urn:fashionnet:problem:not-an-image")
    assert client.get("/v2/models/fashionnet/ready").json()["ready"] is True


def test_a_killed_replica_costs_at_most_what_it_had_in_hand_and_comes_back(client):
    victims, statuses, done = replicas(), [], threading.Event()

    def load():
        with httpx.Client(base_url=client.base_url, timeout=30) as mine:
            while not done.is_set():
                statuses.append(mine.post("/predict", files={"file": grey_png()}).status_code)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    before = len(statuses)
    os.kill(victims.pop(), signal.SIGKILL)
    wait_until(lambda: len(replicas() - victims) == 1 and len(statuses) > before + 100, 60)
    time.sleep(2)
    done.set()
    for thread in threads:
        thread.join()
    failed = [status for status in statuses if status != 200]
    assert len(failed) <= len(threads), "one a connection at most: what was in flight there"
    assert set(failed) <= {500, 502, 503, 504}, "errors that a caller may retry after"
    assert set(statuses[-20:]) == {200}
    wait_until(lambda: len(replicas()) == 2)  # Ray may start one too many


def test_a_folder_is_classified_across_the_cluster_as_it_is_on_one_machine(cluster, tmp_path: Path):
    import pyarrow.parquet as pq

    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(120):
        content = encode(trousers()) if number % 3 == 0 else grey_png(number) if number % 3 == 1 else b"broken"
        (folder / f"{number:03}.png").write_bytes(content)
    (folder / os.fsdecode(b"x\xff.png")).write_bytes(encode(trousers()))
    (folder / "y.png").symlink_to("nowhere")
    (folder / "notes.txt").write_text("no picture")
    (tmp_path / "found").mkdir()
    assert classify_on_cluster([folder], tmp_path / "found", "auto", WEIGHTS, NETWORKS) == (122, 41)
    table = pq.read_table(tmp_path / "found")
    networks = load_model_pair("auto", WEIGHTS, NETWORKS)
    assert table.schema.equals(arrow_schema())
    expected = [outcome.row() for outcome in classify_files(find_pictures([folder]).pictures, networks, threads=1)]
    found = sorted(table.to_pylist(), key=lambda row: row["file"])
    assert [row["file"] for row in expected[-2:]] == [f"{folder}/x\\xff.png", f"{folder}/y.png"]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, nan_ok=True) if ours["error"] is None else ours == theirs


def test_a_bound_of_pixels_holds_on_the_cluster_too(cluster, tmp_path: Path):
    import pyarrow.parquet as pq

    (tmp_path / "a.png").write_bytes(encode(trousers()))
    found = classify_on_cluster([tmp_path / "a.png"], tmp_path / "found", "auto", WEIGHTS, NETWORKS, max_pixels=100)
    assert found == (1, 1)
    assert "pixels" in pq.read_table(tmp_path / "found").to_pylist()[0]["error"]


def test_what_a_cluster_cannot_do_is_said_in_a_sentence(cluster, tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"pixels": [b""]}), tmp_path / "set.parquet")
    with pytest.raises(DataCorrupt, match="no column 'image'"):
        classify_on_cluster([tmp_path / "set.parquet"], tmp_path / "found", "auto", WEIGHTS, NETWORKS)
    with pytest.raises(FileExistsError, match="is not empty: name a new folder"):
        classify_on_cluster([tmp_path / "set.parquet"], tmp_path, "auto", WEIGHTS, NETWORKS)


def test_a_parquet_set_with_a_column_of_images_is_classified(cluster, tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": [encode(trousers())] * 5}), tmp_path / "set.parquet")
    pq.write_table(pa.table({"image": [encode(trousers()), None, b""]}), tmp_path / "holes.parquet")
    sets = [tmp_path / "set.parquet", tmp_path / "holes.parquet"]
    assert classify_on_cluster(sets, tmp_path / "found", "auto", WEIGHTS, NETWORKS) == (8, 2)
    rows = pq.read_table(tmp_path / "found").to_pylist()
    assert {row["file"] for row in rows} == {""}
    assert any("no encoded picture" in (row["error"] or "") for row in rows)
