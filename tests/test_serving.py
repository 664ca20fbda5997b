"""The service as its own process: how it starts, what it imports, how it refuses to start, how it ends."""

import re
import shutil
import signal
import time
from pathlib import Path

import httpx
import psutil
import pytest

from app.main import create_app
from app.settings import Settings
from model import WEIGHTS
from tests.pictures import grey_png
from tests.servers import children_of, client_of, is_ready, process, run, service, wait_until

UVICORN = ["-m", "uvicorn", "--factory", "app.main:create_app"]


def predict(client: httpx.Client) -> httpx.Response:
    return client.post("/predict", files={"file": grey_png()})


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (2, 1), (2, 2)])
def test_python_m_app_serves_and_ends_on_sigterm(workers, threads):
    with service(workers=workers, engine_threads=threads) as (server, client):
        assert [predict(client).status_code for _ in range(10)] == [200] * 10
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=20)
    assert server.returncode == 0
    assert "Traceback" not in log


def test_workers_are_forked_and_share_what_the_parent_imported():
    with service(workers=2) as (server, _):
        commands = {tuple(one.cmdline()) for one in (psutil.Process(server.pid), *children_of(server))}
    assert len(commands) == 1, "a fresh interpreter would have another command line"


def test_engines_without_threads_are_made_once_for_all_workers():
    code = """
import os
from app.inference.models import load_models
from app.settings import Settings
threads = len(os.listdir("/proc/self/task"))
shared, own = (load_models(Settings(engine_threads=threads)) for threads in (1, 2))
print(all(one.engine() is one.engine() for one in shared), any(one.engine() is one.engine() for one in own))
print(len(os.listdir("/proc/self/task")) - threads)
"""
    done = run("-c", code)
    assert done.stdout == "True False\n0\n", "no thread may be lost by a fork; " + done.stderr


@pytest.mark.parametrize("missing", ["HttpToolsProtocol.on_response_complete", "RequestResponseCycle.__init__"])
def test_another_uvicorn_is_served_by_without_the_protocol(missing):
    owner, name = missing.split(".")
    code = f"""
from uvicorn.protocols.http.httptools_impl import {owner}
delattr({owner}, "{name}")
from app.server import processes
print(processes.HTTP)
processes.serve_by_one_process = lambda *_: None
processes.serve(None, processes.Settings(workers=1))
"""
    done = run("-c", code)
    assert done.stdout == "auto\n", done.stderr
    assert "This version of uvicorn is not supported" in done.stderr


def test_a_system_that_cannot_fork_runs_one_worker_and_says_so():
    code = """
import os, runpy, sys
del os.fork
sys.modules["fcntl"] = None  # as on Windows
runpy.run_module("app", run_name="__main__")
"""
    with process("-c", code, FASHIONNET_PORT="0", FASHIONNET_WORKERS="2") as server, client_of(server) as client:
        assert predict(client).status_code == 200
        assert not children_of(server)
        server.terminate()
        _, log = server.communicate(timeout=20)
    assert "one worker runs instead of 2" in log


def test_uvicorn_serves_the_factory():
    with process(*UVICORN, "--port", "0") as server, client_of(server) as client:
        assert predict(client).status_code == 200


def test_serving_over_http_imports_no_extra():
    code = """
import asyncio, sys, httpx
from app.main import create_app
async def main():
    app = create_app()
    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
            with open("examples/shirt.png", "rb") as file:
                print((await client.post("/predict", files={"file": file})).json()["label"])
asyncio.run(main())
extras = {"torch", "torchvision", "matplotlib", "onnx", "scipy", "grpc"}
print(sorted({name.split(".")[0] for name in sys.modules} & extras))
"""
    done = run("-c", code)
    assert done.stdout.splitlines() == ["Shirt", "[]"], done.stderr


def test_workers_that_take_the_place_of_dead_ones_serve_the_weights_that_those_served(tmp_path):
    folder = shutil.copytree(WEIGHTS, tmp_path / "weights")
    with service(workers=2, model_dir=folder) as (server, client):
        for file in folder.iterdir():
            file.write_bytes(b"another version is being copied")
        victims = psutil.Process(server.pid).children()
        for victim in victims:
            victim.kill()
        wait_until(lambda: not any(victim.is_running() for victim in victims))
        wait_until(lambda: is_ready(client))
        assert client.post("/predict", files={"file": grey_png()}).json()["model"] == "fashionnet"


def test_an_application_made_anew_reads_its_artefacts_anew(tmp_path):
    settings = Settings(model_dir=shutil.copytree(WEIGHTS, tmp_path / "weights"))
    create_app(settings)
    (settings.model_dir / "fashionnet.json").write_text("{}")
    with pytest.raises(SystemExit, match="is not a model card"):
        create_app(settings)


def test_garbage_is_looked_for_again_once_it_serves():
    def collections(client):
        return re.search(r'python_gc_collections_total{generation="0"} (\S+)', client.get("/metrics").text)[1]

    with service(workers=1) as (_, client):
        before = collections(client)
        wait_until(lambda: client.get("/models").is_success and collections(client) != before)


def test_nothing_is_reported_to_anybody(tmp_path):
    """ONNX Runtime keeps an identifier of the machine in the home folder once its telemetry starts."""
    code = "import ctypes, model; getenv = ctypes.CDLL(None).getenv; getenv.restype = ctypes.c_char_p; "
    code += "print(getenv(b'ORT_DISABLE_TELEMETRY').decode())"
    done = run("-c", code, HOME=str(tmp_path), XDG_CACHE_HOME="", XDG_CONFIG_HOME="", XDG_DATA_HOME="")
    assert done.stdout == "1\n", done.stderr
    assert not done.stderr
    assert not list(tmp_path.rglob("*"))


def test_it_is_ready_soon_and_small_after_a_thousand_predictions():
    start = time.monotonic()
    with service(workers=1) as (server, client):
        seconds = time.monotonic() - start
        for _ in range(1000):
            assert predict(client).status_code == 200
        status = Path(f"/proc/{server.pid}/status").read_text()
        resident = int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000
    assert resident < 200, "MB"
    assert seconds < 15, "3 s on a quiet machine; this one may be busy"


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "no card", "empty folder", "no folder"])
@pytest.mark.parametrize("command", [["-m", "app"], UVICORN], ids=["app", "uvicorn"])
def test_a_bad_artefact_stops_the_start_with_one_sentence(tmp_path, damage, command):
    folder = tmp_path / "models"
    shutil.copytree(WEIGHTS, folder)
    onnx = folder / "fashionnet.onnx"
    content = onnx.read_bytes()
    match damage:
        case "missing":
            onnx.unlink()
        case "truncated":
            onnx.write_bytes(content[:1000])
        case "altered":
            onnx.write_bytes(content[:-1] + b"x")
        case "no card":
            (folder / "fashionnet.json").write_text("{}")
        case "empty folder":
            shutil.rmtree(folder)
            folder.mkdir()
        case "no folder":
            shutil.rmtree(folder)
    variables = {"FASHIONNET_MODEL_DIR": str(folder), "FASHIONNET_ENGINE": "onnx"}
    done = run(*command, **variables, FASHIONNET_PORT="0")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("fashionnet: ")
    assert len(done.stderr.splitlines()) == 1
