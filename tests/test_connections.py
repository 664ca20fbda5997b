"""The server below the application, over real sockets: limits, deadlines, early responses, malformed HTTP, the stop."""

import contextlib
import errno
import json
import select
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

from app.problems import MEDIA_TYPE
from app.server.connection import MAX_FIELDS, MAX_HEAD, Connection
from app.settings import Settings
from tests.held_engines import hold_engines
from tests.pictures import grey_png
from tests.problems import assert_problem_body
from tests.servers import client_of, little_buffered, process, serve, service, wait_until

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEA\r\n"


def post(content: bytes, fields: bytes = b"") -> bytes:
    return POST + fields + b"Content-Length: %d\r\n\r\n" % len(content) + content


class Response(NamedTuple):
    """A response as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)


class Wire:
    """A connection that sends bytes as they are."""

    def __init__(self, client: httpx.Client, *pieces: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", client.base_url.port), timeout=30)
        self.file = self.socket.makefile("rb")
        for piece in pieces:
            self.send(piece)

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self.file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Sends all of it."""
        self.socket.sendall(data)

    def response(self, *, body: bool = True) -> Response:
        """The next response."""
        line, *lines = iter(lambda: self.file.readline().strip().decode(), "")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        content = self.file.read(int(headers["content-length"])) if body else b""
        return Response(int(line.split()[1]), headers, content)

    def ends(self) -> bool:
        """Whether the server closes the connection, without another byte."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True


def accepted(client: httpx.Client) -> list[tuple[str, int]]:
    """The addresses at the other end of the connections that the server, in this process, holds."""
    ours = psutil.Process().net_connections("tcp")
    return [one.raddr for one in ours if one.raddr and one.laddr.port == client.base_url.port]


@pytest.fixture(scope="module")
def client():
    with serve(Settings(workers=1)) as client:
        yield client


@pytest.fixture
def hasty(monkeypatch):
    """A client for a server whose deadlines are half a second."""
    for name in ("idle", "head", "write", "unread_idle"):
        monkeypatch.setattr(Connection, f"{name}_seconds", 0.5)
    monkeypatch.setattr("app.server.server.SWEEP_SECONDS", 0.05)
    with serve(Settings(workers=1, keep_alive_seconds=1)) as client:
        yield client


def assert_rejected(wire: Wire, status: int, slug: str) -> None:
    """The next response is this problem, and the connection ends after it."""
    response = wire.response()
    assert response.status == status
    assert response.headers["content-type"] == MEDIA_TYPE
    assert response.headers["connection"] == "close"
    assert response.headers["x-request-id"]
    assert_problem_body(response.json(), status, slug)
    assert wire.ends()


MALFORMED = {
    "garbage": b"\x16\x03\x01\r\n",
    "HTTP/0.9": b"GET /\r\n",
    "HTTP/0.9, named": b"GET / HTTP/0.9\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "CONNECT": b"CONNECT http://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "length and chunks": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    "folded field": LIVE + b"A: b\r\n c\r\n\r\n",
    "bare line feeds": b"GET /health/live HTTP/1.1\nHost: x\n\n",
    "NUL": LIVE + b"A: b\x00\r\n\r\n",
    "space before the colon": LIVE + b"A : b\r\n\r\n",
    "chunk too long": CHUNKED + b"1\r\nabc\r\n",
    "no path": b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n",
    "no such port": b"GET http://x:99999/ HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("request_", MALFORMED.values(), ids=MALFORMED)
def test_malformed_http_is_rejected_with_a_problem(client, request_):
    with Wire(client, request_) as wire:
        assert_rejected(wire, 400, "malformed-request")


@pytest.mark.parametrize("target", ["no path", "no such port"])
@pytest.mark.parametrize("pipelined", [False, True])
def test_a_malformed_target_withdraws_no_earlier_request(client, target, pipelined):
    first = post(grey_png())
    with Wire(client, first + MALFORMED[target] if pipelined else first) as wire:
        assert wire.response().status == 200
        if not pipelined:
            wire.send(MALFORMED[target])
        assert_rejected(wire, 400, "malformed-request")


@pytest.mark.parametrize("fields", [b"", b"Host: x\r\nHost: x\r\n"])
def test_http_1_1_needs_one_host(client, fields):
    with Wire(client, b"GET /health/live HTTP/1.1\r\n" + fields + b"\r\n") as wire:
        assert_rejected(wire, 400, "invalid-host")


def test_http_1_0_needs_no_host(client):
    with Wire(client, b"GET /health/live HTTP/1.0\r\n\r\n") as wire:
        assert wire.response().status == 200
        assert wire.ends()


def test_a_rejection_keeps_the_order_of_pipelined_responses(client):
    with Wire(client, post(grey_png()) + LIVE + b"\r\n" + CHUNKED + b"none\r\n") as wire:
        assert [wire.response().json().keys() >= {key} for key in ("label", "status")] == [True, True]
        assert_rejected(wire, 400, "malformed-request")


def test_a_rejection_waits_for_the_response_that_is_due(monkeypatch):
    engines = hold_engines(monkeypatch)
    monkeypatch.setattr(Connection, "head_seconds", 0.5)
    monkeypatch.setattr("app.server.server.SWEEP_SECONDS", 0.05)
    with serve(Settings(workers=1, inference="thread")) as client:
        for engine in engines:
            engine.hold.set()
        with Wire(client, post(grey_png()) + LIVE[:5]) as wire:
            time.sleep(0.1)
            wire.send(LIVE[5:] + b"Host: x\r\n\r\n")
            time.sleep(1)
            for engine in engines:
                engine.gate.set()
            assert wire.response().status == 200
            assert_rejected(wire, 400, "invalid-host")


def test_a_thousand_pipelined_requests_get_their_responses_in_order(client):
    with Wire(client) as wire, ThreadPoolExecutor(1) as pool:
        sending = pool.submit(wire.send, (LIVE + b"\r\n" + post(grey_png())) * 500)
        for _ in range(500):
            assert wire.response().json() == {"status": "live"}
            assert "label" in wire.response().json()
        sending.result()


PIPELINES = {
    "small requests": (LIVE + b"\r\n",) * 15_000,
    "a large body at the end": (
        (LIVE + b"\r\n") * 2000 + POST + b"Transfer-Encoding: chunked\r\n\r\n",
        *[b"10000\r\n" + bytes(65536) + b"\r\n"] * 800,
    ),
}


@pytest.mark.parametrize("pieces", PIPELINES.values(), ids=PIPELINES)
def test_a_pipeline_waits_in_few_bytes(pieces):
    """uvicorn receives 256 KB more with each response, which no limit of the application counts."""
    with service(workers=1) as (server, client), Wire(client) as wire:
        worker = psutil.Process(server.pid)
        resident = most = worker.memory_info().rss
        for response in transfer(wire, b"".join(pieces)):
            most = max(most, worker.memory_info().rss)
            assert response
        assert most - resident < 20_000_000


def transfer(wire: Wire, data: bytes) -> Iterator[bytes]:
    """Sends what the server takes, and yields what it responds, until half a second passes without either."""
    wire.socket.setblocking(False)
    rest = memoryview(data)
    while True:
        readable, writable, _ = select.select([wire.socket], [wire.socket] if rest else [], [], 0.5)
        if not (readable or writable):
            return
        try:
            if readable:
                yield wire.socket.recv(1 << 16)
            if writable:
                rest = rest[wire.socket.send(rest[: 1 << 18]) :]
        except ConnectionError:
            return


def test_a_rejection_has_the_identifier_of_its_request_and_the_form_of_its_path(client):
    with Wire(client, b"GET /v2 HTTP/1.1\r\nX-Request-ID: mine\r\n\r\n") as wire:
        response = wire.response()
    assert response.headers["x-request-id"] == "mine"
    assert response.json()["error"] == response.json()["detail"]


def test_malformed_http_is_counted_and_not_logged():
    with service(workers=1) as (server, client):
        for _ in range(50):
            with Wire(client, b"\x16\x03\x01\r\n") as wire:
                assert wire.response().status == 400
        assert 'fashionnet_problems_total{type="malformed-request"} 50.0' in client.get("/metrics").text
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=30)
    assert "nvalid" not in log


def test_a_head_may_have_64_kb_and_100_fields(client):
    largest = b"A: " + b"a" * (MAX_HEAD - len(LIVE) - 7) + b"\r\n\r\n"
    with Wire(client, LIVE + b"A: b\r\n" * (MAX_FIELDS - 1) + b"\r\n", LIVE + largest) as wire:
        assert [wire.response().status, wire.response().status] == [200, 200]


TOO_LARGE = {
    "many fields": LIVE + b"A: b\r\n" * MAX_FIELDS + b"\r\n",
    "a long field": LIVE + b"A: " + b"a" * MAX_HEAD,
    "a long field after another request": LIVE + b"\r\n" + LIVE + b"A: " + b"a" * MAX_HEAD + b"\r\n\r\n",
    "a long path": b"GET /" + b"a" * MAX_HEAD,
    "many trailers": CHUNKED + b"0\r\n" + b"A: b\r\n" * (MAX_FIELDS + 1) + b"\r\n",
    "a long trailer": CHUNKED + b"0\r\nA: " + b"a" * 2 * MAX_HEAD,
    "a long chunk extension": CHUNKED + b"1;" + b"a" * 2 * MAX_HEAD,
    "line feeds before a request": b"\r\n" * MAX_HEAD,
}


@pytest.mark.parametrize("request_", TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_head_past_the_limits_is_rejected(client, request_):
    with Wire(client, request_) as wire:
        if request_.startswith(LIVE + b"\r\n"):
            assert wire.response().status == 200
        assert_rejected(wire, 431, "head-too-large")


def test_a_huge_head_costs_neither_memory_nor_time():
    with service(workers=1) as (server, client):
        resident = psutil.Process(server.pid).memory_info().rss
        with Wire(client, LIVE + b"A: ") as wire, ThreadPoolExecutor(1) as pool:
            sending = pool.submit(wire.send, b"a" * 64_000_000)
            assert client.get("/health/live").elapsed.total_seconds() < 1
            assert_rejected(wire, 431, "head-too-large")
            sending.result()
        assert psutil.Process(server.pid).memory_info().rss - resident < 5_000_000


def test_trailers_are_ignored(client):
    with Wire(client, CHUNKED + b"0\r\nX-Request-ID: mine\r\n\r\n" + LIVE + b"\r\n") as wire:
        assert wire.response().headers["x-request-id"] != "mine"
        assert wire.response().status == 200


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_an_upgrade_is_ignored_in_whatever_pieces_it_arrives(client, size):
    request = post(grey_png(), UPGRADE)
    with Wire(client, *(request[i : i + size] for i in range(0, len(request), size)), LIVE + b"\r\n") as wire:
        assert wire.response().json()["label"]
        assert wire.response().json() == {"status": "live"}


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_that_offers_http_2_gets_its_prediction(client, tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(grey_png())
    url = f"{client.base_url}/predict"
    command = ["curl", "-sS", "--http2", "--data-binary", f"@{picture}", "-H", "Content-Type: image/png", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["label"]


@pytest.mark.parametrize(
    "path", ["/", "/health/live", "/health/ready", "/models", "/openapi.json", "/docs", "/nowhere"]
)
def test_head_is_answered_as_get_without_the_body(client, path):
    def fields(response: httpx.Response) -> dict[str, str]:
        return {name: value for name, value in response.headers.items() if name not in ("date", "x-request-id")}

    head, get = client.head(path), client.get(path)
    assert (head.status_code, fields(head)) == (get.status_code, fields(get))
    with Wire(client, f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + LIVE + b"\r\n") as wire:
        wire.response(body=False)
        assert wire.response().json() == {"status": "live"}


def test_head_is_not_allowed_where_get_is_not(client):
    assert client.head("/predict").status_code == 405
    assert 'route="/models",status="200"' in client.get("/metrics").text


def test_a_client_that_keeps_the_server_waiting_is_closed_and_others_are_answered(hasty):
    silent = [Wire(hasty) for _ in range(50)]
    half = [Wire(hasty, LIVE[: 5 + i]) for i in range(30)]
    for _ in range(10):
        assert hasty.get("/health/live").elapsed.total_seconds() < 1
        time.sleep(0.05)
    for wire in half:
        assert_rejected(wire, 408, "slow-head")
    assert all(wire.ends() for wire in silent)
    for wire in silent + half:
        wire.close()


def test_a_head_that_trickles_in_is_closed(hasty):
    start = time.monotonic()
    with Wire(hasty, LIVE) as wire, contextlib.suppress(OSError):
        while time.monotonic() < start + 20 and not wire.socket.recv(1, socket.MSG_DONTWAIT):
            wire.send(b"A: b\r\n")
    assert time.monotonic() < start + 10


def test_an_idle_connection_is_kept_for_the_keep_alive_time(hasty):
    with Wire(hasty, LIVE + b"\r\n") as wire:
        assert wire.response().status == 200
        time.sleep(0.7)  # longer than every other deadline here
        wire.send(LIVE + b"\r\n")
        assert wire.response().status == 200
        wire.send(b"\r\n")  # is no request
        start = time.monotonic()
        assert wire.ends()
        assert time.monotonic() - start > 0.3


def test_a_client_that_does_not_read_is_closed(hasty):
    with Wire(hasty) as wire, contextlib.suppress(OSError):
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.send(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 400)
        wait_until(lambda: wire.socket.getsockname() not in accepted(hasty))


def test_responses_to_more_requests_are_no_progress_of_a_client_that_does_not_read(hasty, monkeypatch):
    requests = 0
    with little_buffered(hasty, monkeypatch) as (ours, _), contextlib.suppress(ConnectionError):
        while requests < 1000:
            ours.sendall(LIVE + b"\r\n")
            requests += 1
            time.sleep(0.02)
    assert requests < 200, "at 64 kB the server responds no more, and the client is closed for that"


def test_a_rejected_body_that_stalls_is_not_waited_for(hasty):
    with Wire(hasty, b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc") as wire:
        assert wire.response().status == 404
        assert wire.ends()


def test_the_rest_of_a_rejected_body_is_discarded_and_the_connection_kept(client):
    body = b"a" * 300_000
    with Wire(client, b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n") as wire:
        assert wire.response().status == 404
        wire.send(body + LIVE + b"\r\n")
        assert wire.response().json() == {"status": "live"}


def test_a_rejected_body_has_a_limit(client, monkeypatch):
    monkeypatch.setattr("app.server.connection.MAX_UNREAD", 1_000_000)
    with Wire(client, b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000\r\n\r\n") as wire:
        assert wire.response().status == 404
        with pytest.raises(ConnectionError):
            wire.send(b"a" * 90_000_000)


def test_urllib_gets_an_early_response(client):
    request = urllib.request.Request(f"{client.base_url}/predict", b"a" * 20_000_000, {"Content-Type": "image/png"})
    for _ in range(20):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=60)
        with caught.value as answer:
            assert answer.code == 413
            assert_problem_body(json.load(answer), 413, "too-large")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl_gets_an_early_response(client, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(b"a" * 20_000_000)
    url = f"{client.base_url}/predict"
    for extra in ["--http1.0", "--http1.1", "-HConnection: close", "-HExpect:"] * 5:
        command = ["curl", "-sS", extra, "--data-binary", f"@{large}", "-HContent-Type: image/png", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert_problem_body(json.loads(done.stdout), 413, "too-large")


def test_a_client_of_http_1_0_that_sends_everything_first_gets_its_early_response(client):
    request = POST.replace(b"1.1", b"1.0") + b"Content-Length: 20000000\r\n\r\n"
    for _ in range(20):
        with Wire(client, request, b"a" * 20_000_000) as wire:
            assert wire.response().status == 413
            assert wire.ends()


def test_more_connections_than_the_limit_wait_for_their_turn():
    with serve(Settings(workers=1, max_connections=3)) as client, contextlib.ExitStack() as stack:
        client.close()
        first, waiting = ([stack.enter_context(Wire(client, LIVE + b"\r\n")) for _ in range(n)] for n in (3, 5))
        assert [wire.response().status for wire in first] == [200] * 3
        waiting[0].socket.settimeout(0.3)
        with pytest.raises(TimeoutError):
            waiting[0].socket.recv(1, socket.MSG_PEEK)
        assert len(accepted(client)) == 3
        for wire in first:
            wire.close()
        for wire in waiting:
            wire.socket.settimeout(30)
            assert wire.response().status == 200
            wire.close()


def test_it_listens_again_although_no_file_could_be_opened(monkeypatch):
    fails, dup = [True, True], socket.socket.dup

    def fail_first(listening: socket.socket) -> socket.socket:
        if fails and fails.pop():
            raise OSError(errno.EMFILE, "Too many open files")
        return dup(listening)

    monkeypatch.setattr("app.server.server.RETRY_SECONDS", 0.1)
    with serve(Settings(workers=1, max_connections=1)) as client:
        client.close()
        monkeypatch.setattr("socket.socket.dup", fail_first)
        for _ in range(3):
            with Wire(client, LIVE + b"\r\n") as wire:
                assert wire.response().status == 200
    assert not fails


def test_fewer_connections_are_accepted_where_fewer_files_may_be_open():
    code = "import resource; _, most = resource.getrlimit(resource.RLIMIT_NOFILE); "
    code += "resource.setrlimit(resource.RLIMIT_NOFILE, (64, most)); from app.__main__ import main; main([])"
    with process("-c", code, FASHIONNET_PORT="0", FASHIONNET_WORKERS="1") as server, client_of(server) as client:
        client.close()
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(Wire(client, LIVE + b"Connection: close\r\n\r\n")) for _ in range(100)]
            assert [wire.response().status for wire in wires] == [200] * 100
        server.send_signal(signal.SIGTERM)
        _, log = server.communicate(timeout=30)
    assert "allows 16 connections instead of 1000" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(("workers", "drain"), [(1, 0), (1, 1), (2, 1)])
def test_a_stop_loses_no_request(workers, drain):
    """Of clients that connect anew for each request, and of those that do as the responses tell them."""
    with service(workers=workers, drain_seconds=drain) as (server, client):
        client.close()
        with ThreadPoolExecutor(16) as pool:
            callers = [pool.submit(call_until_refused, client, keep_alive=bool(i % 2)) for i in range(16)]
            time.sleep(0.5)
            start = time.monotonic()
            server.send_signal(signal.SIGTERM)
            answered = [caller.result() for caller in callers]
        server.communicate(timeout=30)
        assert time.monotonic() - start < 20, "nothing waits for the limit of 30 s"
    assert all(answered)


def call_until_refused(client: httpx.Client, *, keep_alive: bool) -> int:
    """Sends requests until no connection is made any more; returns their number. Each must have its response."""
    answered = 0
    while True:
        try:
            wire = Wire(client)
        except ConnectionRefusedError:
            return answered
        with wire:
            goes_on = True
            while goes_on:
                wire.send(LIVE + b"\r\n")
                response = wire.response()
                assert response.status == 200
                answered += 1
                goes_on = keep_alive and response.headers.get("connection") != "close"


def test_a_draining_service_has_clients_connect_anew():
    with service(workers=1, drain_seconds=2) as (server, client), Wire(client, LIVE + b"\r\n") as wire:
        assert "connection" not in wire.response().headers
        server.send_signal(signal.SIGTERM)
        wait_until(lambda: client.get("/health/ready").status_code == 503)
        wire.send(LIVE + b"\r\n")
        assert wire.response().headers["connection"] == "close"
        assert wire.ends()
        server.communicate(timeout=30)


def test_an_idle_connection_does_not_hold_up_the_stop():
    with service(workers=1) as (server, client), Wire(client), Wire(client, LIVE + b"\r\n"), Wire(client, LIVE):
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=20)
