"""The log: one JSON object a line whoever writes it, what is served, and no requests of probes."""

import json
import logging
import signal

import psutil
import pytest

from app.settings import Settings
from model import WEIGHTS, list_artifacts
from tests.pictures import grey_png
from tests.servers import is_ready, run, serve, service, wait_until


@pytest.fixture(scope="module")
def lines():
    """The JSON log of two workers, one of which was killed."""
    with service(workers=2, log_format="json", access_log=True) as (server, client):
        client.post("/predict", files={"file": grey_png()}, headers={"X-Request-ID": "mine-1"})
        client.post("/predict", files={"file": b"x"}, headers={"X-Request-ID": "mine-2"})
        client.get("/models", headers={"X-Request-ID": "mine-3"})
        for path in ("/health/live", "/health/ready", "/metrics", "/v2/health/ready", "/v2/models/fashionnet/ready"):
            assert client.get(path).status_code == 200
        victim = psutil.Process(server.pid).children()[0]
        victim.kill()
        wait_until(lambda: not victim.is_running() and is_ready(client))
        client.close()
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=20)
    return [json.loads(line) for line in log.splitlines()]


def test_every_line_of_the_json_log_is_complete(lines):
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    assert {"fashionnet", "fashionnet.access", "gunicorn.error", "uvicorn.error"} <= {line["logger"] for line in lines}
    assert [line["logger"] for line in lines if "SIGKILL" in line["message"]] == ["gunicorn.error"]


def test_one_line_says_what_is_served(lines):
    (line,) = (line["message"] for line in lines if " serves: " in line["message"])
    assert all(f"{name} " in line for name in list_artifacts(WEIGHTS))


def test_a_request_has_a_line_with_its_identifier(lines):
    requests = {line["request_id"]: line for line in lines if line["logger"] == "fashionnet.access"}
    assert [requests[f"mine-{number}"]["status"] for number in (1, 2, 3)] == [200, 415, 200]
    assert [requests[f"mine-{number}"]["path"] for number in (1, 3)] == ["/predict", "/models"]
    assert 0 < requests["mine-1"]["seconds"] < 10
    assert len([line for line in requests.values() if line["status"] < 300]) == 2, "probes and scrapes have none"


def test_probes_that_fail_are_logged_and_others_at_the_level_debug(settings: Settings, caplog):
    with serve(settings.model_copy(update={"access_log": True})) as client, caplog.at_level("DEBUG", "fashionnet"):
        client.get("/health/live")
        client.get("/v2/models/nonsense/ready")
    levels = {record.path: record.levelno for record in caplog.records if record.name == "fashionnet.access"}
    assert levels["/health/live"] == logging.DEBUG
    assert levels["/v2/models/nonsense/ready"] == logging.INFO


def test_warnings_libraries_threads_and_the_end_write_json_too():
    code = """
import logging, threading, warnings
from app.main import create_app
create_app()
warnings.warn("beware")
logging.getLogger("some.library").warning("careful")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise ValueError("the end")
"""
    done = run("-c", code, FASHIONNET_LOG_FORMAT="json")
    *_, warned, told, of_thread, of_all = (json.loads(line) for line in done.stderr.splitlines())
    assert (warned["logger"], told["logger"]) == ("py.warnings", "some.library")
    assert "beware" in warned["message"]
    assert "ZeroDivisionError" in of_thread["exc_info"]
    assert "the end" in of_all["exc_info"]
