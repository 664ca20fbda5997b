"""Models that are reloaded while the service runs: by one process, and by several workers."""

import asyncio
import contextlib
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from app.commands import reload
from app.hangup import handle_hangup
from app.inference.models import load_tested_models
from app.instance import advertised, find
from app.main import create_app
from app.metrics import QUEUE_DEPTH
from app.problems import NotReady
from app.reload import reload as reload_models
from app.settings import Settings
from benchmarks.faults.callers import Callers
from model import WEIGHTS, create_engine, load_artifact
from model.artifact import save_artifact
from tests.fuzz.target import Target, start
from tests.pictures import grey_png
from tests.servers import ROOT, client_of, free_port, is_ready, wait_until

NAME = "fashionnet"
RELOADED, KEPT = "the models were reloaded", "The models stay as they are"


class Reloaded(NamedTuple):
    """A running service and its model folder."""

    target: Target
    folder: Path

    def reload(self, outcome: str) -> None:
        """Tells the service to reload, and waits for its log to tell the outcome."""
        before = self.log().count(outcome)
        self.target.process.send_signal(signal.SIGHUP)
        wait_until(lambda: self.log().count(outcome) > before, 60)

    def log(self) -> str:
        return self.target.log.read_text()

    def change_version(self) -> str:
        """Changes the weights of the model that lies in the folder; returns its version."""
        artifact = load_artifact(self.folder, NAME)
        changed = artifact.content | {"safetensors": artifact.content["safetensors"] + b" "}
        return save_artifact(self.folder, artifact.card, changed).version

    def versions(self) -> set[str]:
        """The versions that many connections see, which any of the workers may answer."""
        address = f"{self.target.client.base_url}/predict?model={NAME}"
        answers = [httpx.post(address, content=grey_png(), headers={"Content-Type": "image/png"}) for _ in range(8)]
        return {answer.json()["model_version"] for answer in answers}


def copy_model(folder: Path, name: str = NAME) -> Path:
    for file in WEIGHTS.glob(f"{name}.*"):
        shutil.copy(file, folder)
    return folder


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def service(request, small_data, tmp_path_factory) -> Iterator[Reloaded]:
    """One process, or two workers whose engines have threads, so that the master cannot test them."""
    folder = copy_model(tmp_path_factory.mktemp("models"))
    settings = {
        "workers": request.param, "engine_threads": request.param, "model_dir": folder, "drain_seconds": 1,
        "data_dir": small_data.root,
    }  # fmt: skip
    with start(tmp_path_factory.mktemp("service"), **settings) as target:
        yield Reloaded(target, folder)


def test_reloads_lose_no_request_and_every_answer_has_the_new_version(service):
    callers = Callers(service.target.port, grey_png(), rate=40)
    with callers.running():
        for _ in range(2):
            version = service.change_version()
            service.reload(RELOADED)
            assert service.versions() == {version}
    assert not [call for call in callers.calls if call.status != 200]
    with httpx.Client(base_url=service.target.client.base_url) as client:
        (listed,) = client.get("/models").json()["models"]
        assert listed["version"] == version
        assert re.findall(r'model_info{.*version="(\w+)"} 1.0', client.get("/metrics").text) == [version]
        document = client.get("/openapi.json").json()
    assert version in str(document["paths"]["/v2/models/{name}/versions/{version}"])


def test_other_graphs_of_the_same_weights_are_measured_anew(service):
    artifact, other = load_artifact(service.folder, NAME), load_artifact(WEIGHTS, "fashionnet-deep")
    graphs = {format_: other.content[format_] for format_ in ("onnx", "int8.onnx")}

    def measured() -> tuple[str, float, str]:
        evaluation, gallery = (
            httpx.get(f"{service.target.client.base_url}{path}", timeout=60)
            for path in ("/evaluate", "/gallery?only=incorrect")
        )
        return evaluation.json()["model_version"], evaluation.json()["loss"], gallery.headers["etag"]

    before = measured()
    try:
        save_artifact(service.folder, artifact.card, artifact.content | graphs)
        service.reload(RELOADED)
        after = measured()
    finally:
        save_artifact(service.folder, artifact.card, artifact.content)
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert after[2] != before[2]


def test_while_workers_are_replaced_the_service_is_ready(service):
    with httpx.Client(base_url=service.target.client.base_url) as client:
        statuses = []
        before = service.log().count(RELOADED)
        os.kill(service.target.process.pid, signal.SIGHUP)

        def is_over() -> bool:
            statuses.append(client.get("/health/ready").status_code)
            return service.log().count(RELOADED) > before

        wait_until(is_over, 60)
    assert set(statuses) == {200}


def test_reloads_that_overtake_each_other_leave_a_ready_worker(service):
    ready = []
    with httpx.Client(base_url=service.target.client.base_url, timeout=2) as client:
        before = service.log().count(RELOADED)
        for _ in range(6):
            version = service.change_version()
            os.kill(service.target.process.pid, signal.SIGHUP)
            ready.append(is_served(client))

        def is_over() -> bool:
            ready.append(is_served(client))
            return service.log().count(RELOADED) > before and service.versions() == {version}

        wait_until(is_over, 60)
    assert all(ready)


def test_reloads_during_the_start_of_a_worker_end_no_other_one(service):
    """A worker that starts slowly must not cost one that serves, however often the models are reloaded."""
    family = service.target.family
    if len(pids_of(service.target)) < 3:
        pytest.skip("one process replaces no worker")
    before = service.log().count(RELOADED)
    serving = family.children()
    service.change_version()
    family.send_signal(signal.SIGHUP)
    wait_until(lambda: len(family.children()) > len(serving))
    (starting,) = set(family.children()) - set(serving)
    starting.suspend()
    try:
        for _ in range(3):
            version = service.change_version()
            family.send_signal(signal.SIGHUP)
            time.sleep(1.2)  # the master looks after its workers once a second
        assert set(serving) <= set(family.children())
    finally:
        starting.resume()
    wait_until(lambda: service.log().count(RELOADED) > before and service.versions() == {version}, 60)


def is_served(client: httpx.Client) -> bool:
    """Returns whether a new connection is served soon; workers that start accept none."""
    time.sleep(0.02)
    try:
        return client.get("/health/ready", headers={"Connection": "close"}).status_code == 200
    except httpx.TimeoutException:
        return False


def test_a_damaged_artefact_changes_nothing_and_is_told_in_one_line(service):
    graph = service.folder / f"{NAME}.int8.onnx"
    content, versions, pids = graph.read_bytes(), service.versions(), pids_of(service.target)
    length = len(service.log())
    try:
        graph.write_bytes(content[:-1] + b"x")
        service.reload(KEPT)
    finally:
        graph.write_bytes(content)
    told = [line for line in service.log()[length:].splitlines() if line.startswith("ERROR")]
    assert len(told) == 1
    assert graph.name in told[0]
    assert service.versions() == versions
    assert pids_of(service.target) == pids


def test_a_graph_that_does_not_run_changes_nothing(service):
    artifact, versions, pids = load_artifact(service.folder, NAME), service.versions(), pids_of(service.target)
    try:
        save_artifact(service.folder, artifact.card, artifact.content | {"int8.onnx": b"no graph"})
        service.reload(KEPT)
    finally:
        save_artifact(service.folder, artifact.card, artifact.content)
    assert service.versions() == versions
    wait_until(lambda: pids_of(service.target) == pids)


def test_a_process_that_will_fork_tests_what_it_has_read(tmp_path, artifact):
    save_artifact(tmp_path, artifact.card, artifact.content | {"int8.onnx": b"no graph", "onnx": b"no graph"})
    with pytest.raises(Exception, match="fashionnet"):
        load_tested_models(Settings(model_dir=tmp_path))


@pytest.mark.parametrize("settings", [{"engine_threads": 2}, {"engine": "torch"}], ids=str)
def test_a_thread_makes_the_engines(tmp_path, monkeypatch, settings):
    threads = []

    def create(*arguments):
        threads.append(threading.current_thread())
        return create_engine(*arguments)

    monkeypatch.setattr("app.inference.models.create_engine", create)
    app = create_app(Settings(model_dir=copy_model(tmp_path), workers=1, **settings))

    async def run() -> None:
        async with app.router.lifespan_context(app):
            threads.clear()
            before = app.state.predictors
            await reload_models(app.state)
            assert app.state.predictors is not before

    asyncio.run(run())
    assert threads
    assert threading.main_thread() not in threads


def test_the_gauges_of_a_model_that_is_gone_are_0(tmp_path):
    gone = copy_model(copy_model(tmp_path), "fashionnet-deep") / "fashionnet-deep.json"
    app = create_app(Settings(model_dir=tmp_path, workers=1))

    async def run() -> None:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as client,
        ):

            async def values() -> set[str]:
                text = (await client.get("/metrics")).text
                pattern = r'^fashionnet_(?:queue_depth|recent_predictions){.*model="fashionnet-deep"} (.*)'
                return set(re.findall(pattern, text, re.MULTILINE))

            await client.post(
                "/predict?model=fashionnet-deep", content=grey_png(), headers={"Content-Type": "image/png"}
            )
            assert await values() == {"0.0", "1.0"}
            gone.unlink()
            QUEUE_DEPTH.labels("fashionnet-deep").set(7)
            await reload_models(app.state)
            assert await values() == {"0.0"}

    asyncio.run(run())


def test_a_reload_makes_a_service_ready_whose_self_test_failed(tmp_path, monkeypatch):
    def fail(*_):
        raise ValueError("no logits")

    app = create_app(Settings(model_dir=copy_model(tmp_path), workers=1))
    readiness = app.state.readiness

    async def run() -> None:
        settled = asyncio.Event()
        readiness.on_settled = settled.set
        with monkeypatch.context() as broken:
            broken.setattr("app.inference.predictor.run_pictures", fail)
            async with app.router.lifespan_context(app):
                await settled.wait()
                await reload_models(app.state)
                with pytest.raises(NotReady, match="self-test"):
                    readiness.require()
                broken.undo()
                await reload_models(app.state)
                readiness.require()

    asyncio.run(run())


def pids_of(target: Target) -> set[int]:
    return {target.process.pid, *(child.pid for child in target.family.children())}


def test_without_a_service_the_command_says_so(capsys):
    for flag, value, place in (("--port", "1", "port 1"), ("--uds", "/x", "/x")):
        assert reload.main([flag, value]) == 1
        assert f"No service was found on {place}: name it by --port or --uds, or" in capsys.readouterr().err


def test_the_service_of_another_user_is_one_sentence(monkeypatch, capsys):
    def kill(*_):
        raise PermissionError

    monkeypatch.setattr("app.commands.reload.find", lambda _settings: 7)
    monkeypatch.setattr("os.kill", kill)
    assert reload.main([]) == 1
    assert capsys.readouterr().err == "error: Process 7 belongs to another user: run the command as that user.\n"


@contextlib.contextmanager
def in_terminal(
    terminal: int, folder: Path, *, nohup: bool = False, **settings: object
) -> Iterator[subprocess.Popen[str]]:
    """Runs the service as a terminal does, with or without ``nohup``, until the context ends."""
    code = "import fcntl, os, runpy, signal, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    code += "signal.signal(signal.SIGHUP, signal.SIG_IGN); " if nohup else ""
    code += "runpy.run_module('app', run_name='__main__')"
    settings = {"port": 0, "model_dir": copy_model(folder), **settings}
    environment = os.environ | {f"FASHIONNET_{name.upper()}": str(value) for name, value in settings.items()}
    options = {"cwd": ROOT, "env": environment, "text": True, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], stdin=terminal, **options) as server:
        try:
            yield server
        finally:
            server.kill()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_terminal_that_closes_ends_the_service(tmp_path, workers):
    ours, its = pty.openpty()
    with in_terminal(its, tmp_path, workers=workers) as server, client_of(server):
        os.close(its)
        os.close(ours)
        server.communicate(timeout=20)
    assert server.returncode == 0


def test_under_nohup_it_goes_on_and_the_command_reloads_it(tmp_path):
    (ours, its), port = pty.openpty(), free_port()
    with in_terminal(its, tmp_path, workers=2, port=port, nohup=True) as server, client_of(server) as client:
        os.close(its)
        os.close(ours)
        time.sleep(0.5)
        assert is_ready(client)
        assert reload.main(["--port", str(port)]) == 0
        wait_until(lambda: RELOADED in server.stderr.readline())
        client.close()
        server.terminate()
        server.wait(20)


@pytest.mark.skipif(sys.platform != "linux", reason="the command finds the service on Linux")
def test_the_command_finds_the_service_however_often_it_was_called(monkeypatch):
    """The kernel's queue of the socket by which it is found has room for 128 calls."""
    settings, before = Settings(port=59_999), signal.getsignal(signal.SIGHUP)
    handle_hangup()
    monkeypatch.setattr("app.hangup._has_terminal", lambda: True)
    try:
        with advertised(settings):
            for _ in range(300):
                assert find(settings) == os.getpid()
                signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.skipif(sys.platform != "linux", reason="the command finds the service on Linux")
def test_the_command_finds_a_service_by_any_path_of_its_socket(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("socket", "s" * 60):
        with advertised(Settings(uds=name)):
            assert find(Settings(uds=tmp_path / name)) == find(Settings(uds=name)) == os.getpid()
        assert find(Settings(uds=name)) is None
