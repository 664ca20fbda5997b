"""What a request leaves behind: its identifier, its log line, its trace; and how the service ends."""

import http.server
import signal
import threading
import time
from typing import ClassVar

import pytest

from tests.pictures import grey_png
from tests.servers import run, service, wait_until


def test_every_answer_carries_an_identifier_of_its_own(client):
    answers = [client.get("/health/live"), client.post("/predict", content=b"x"), client.get("/nothing")]
    identifiers = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(identifiers)) == 3


def test_the_callers_identifier_is_taken_over(client):
    response = client.get("/health/live", headers={"X-Request-ID": "order-66.a:b"})
    assert response.headers["x-request-id"] == "order-66.a:b"


@pytest.mark.parametrize("sent", ["", "a b", "x" * 65, "é", '"}'])
def test_an_identifier_that_is_not_fit_for_a_log_is_replaced(client, sent):
    response = client.get("/health/live", headers={"X-Request-ID": sent.encode()})
    assert response.headers["x-request-id"] not in (sent, "")


def test_text_logs_are_quiet_about_requests_by_default():
    with service(workers=2) as (server, client):
        for _ in range(5):
            client.post("/predict", files={"file": grey_png()})
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=20)
    assert "/predict" not in log
    assert "Listening at: http://127.0.0.1:" in log


def test_it_is_unready_and_still_serves_before_it_stops():
    with service(workers=1, drain_seconds=4) as (server, client):
        server.send_signal(signal.SIGTERM)
        start = time.monotonic()
        wait_until(lambda: client.get("/health/ready").status_code == 503, 3)
        assert "stopping" in client.get("/health/ready").json()["detail"]
        assert client.get("/health/live").status_code == 200
        assert client.post("/predict", files={"file": grey_png()}).status_code == 200
        client.close()
        server.communicate(timeout=20)
        assert time.monotonic() - start > 3.9
    assert server.returncode == 0


def test_without_a_handler_to_hand_on_to_sigterm_still_ends_the_process():
    code = """
import asyncio, os, signal, time
from app.lifecycle import Readiness, drain_on_signal
async def main():
    with drain_on_signal(Readiness(), 0):
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(5)
asyncio.run(main())
"""
    assert run("-c", code).returncode == -signal.SIGTERM


TRACE, SPAN = bytes(range(16)), bytes(range(16, 24))


class Collector(http.server.BaseHTTPRequestHandler):
    """What OpenTelemetry sends its traces to."""

    received: ClassVar[list[bytes]] = []

    def do_POST(self):
        self.received.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_traces_join_the_callers_and_go_to_the_collector_that_the_standard_variables_name(monkeypatch):
    with http.server.HTTPServer(("127.0.0.1", 0), Collector) as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with service(workers=1, tracing=True) as (_, client):
            caller = {"traceparent": f"00-{TRACE.hex()}-{SPAN.hex()}-01"}
            assert client.post("/predict", files={"file": grey_png()}, headers=caller).status_code == 200
            wait_until(lambda: any(b"POST /predict" in body for body in Collector.received), 15)
        collector.shutdown()
        thread.join()
    (spans,) = (body for body in Collector.received if b"POST /predict" in body)
    assert TRACE in spans
    assert SPAN in spans, "it is the parent"
