"""A full queue: who is refused, how, and what that leaves behind."""

import asyncio
import contextlib
import json
import socket
import threading

import httpx
import pytest

from app.inference.batcher import MicroBatcher
from app.middleware import Telemetry
from app.settings import Settings
from tests.pictures import encode, grey_png, trousers
from tests.problems import assert_problem, assert_problem_body
from tests.servers import serve, wait_for_queue

FORM = {"files": {"file": ("x.png", encode(trousers()))}}


@pytest.fixture
def full(small_data, monkeypatch):
    """A service whose engine is held up with one picture in hand and one that waits, which is all that may."""
    gate, in_hand, statuses = threading.Event(), threading.Event(), []
    with serve(Settings(data_dir=small_data.root, queue_size=1, batch_size=1)) as client:
        compute = MicroBatcher._call

        async def held_up(self, values):
            in_hand.set()
            await asyncio.to_thread(gate.wait, 20)
            return await compute(self, values)

        monkeypatch.setattr(MicroBatcher, "_call", held_up)

        def call():
            with httpx.Client(base_url=client.base_url, timeout=60) as mine:
                statuses.append(mine.post("/predict", **FORM).status_code)

        threads = [threading.Thread(target=call) for _ in range(2)]
        threads[0].start()
        assert in_hand.wait(20)  # else the second one might find the first still in the queue, and be refused
        threads[1].start()
        wait_for_queue(client, 1)
        yield client
        gate.set()
        for thread in threads:
            thread.join()
        assert statuses == [200, 200], "what was accepted is answered"
        assert client.post("/predict", **FORM).json()["label"] == "Trouser", "and all is as before"


@pytest.mark.parametrize("path", ["/predict", "/predict?model=fashionnet"], ids=["by the protocol", "by the route"])
def test_the_next_one_is_refused_at_once_and_told_when_to_come_back(full, path):
    response = full.post(path, **FORM, headers={"X-Request-ID": "mine"})
    assert_problem(response, 429, "overloaded")
    assert response.headers["retry-after"] == "1"
    assert response.headers["x-request-id"] == "mine"
    assert full.get("/health/live").status_code == 200


def test_both_ways_of_refusing_answer_alike(full):
    assert_alike(*(full.post(path, **FORM) for path in ("/predict", "/predict?model=fashionnet")))


def test_both_ways_of_telling_that_it_lives_answer_alike(full):
    one, other = (full.get(path, headers={"X-Request-ID": "mine"}) for path in ("/health/live", "/health/live?"))
    assert_alike(one, other)
    assert one.json() == {"status": "live"}
    assert one.headers["x-request-id"] == "mine"
    assert_problem(full.post("/health/live"), 405, "method-not-allowed")


def test_that_it_lives_is_told_before_the_application_runs(full, monkeypatch):
    """The application's answers wait for the batches that are computed meanwhile."""

    async def never(*_):
        raise AssertionError("the application was asked")

    with monkeypatch.context() as patch:
        patch.setattr(Telemetry, "__call__", never)
        assert full.get("/health/live").status_code == 200


def test_what_needs_no_engine_is_answered_all_the_same(full):
    assert full.get("/models").status_code == 200
    assert_problem(full.get("/predict"), 405, "method-not-allowed")
    assert full.post("/predict?model=nobody", **FORM).status_code == 404


def test_a_refused_connection_goes_on(full):
    """Twice on one connection, the body sent after its head; nothing of it is taken for a request."""
    with contextlib.closing(socket.create_connection((full.base_url.host, full.base_url.port))) as connection:
        body = grey_png()
        for _ in range(2):
            head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(
                body
            )
            connection.sendall(head)
            answer = answer_of(connection)
            assert answer.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
            connection.sendall(body)
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer_of(connection).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("head", ["POST /predict HTTP/1.1\r\nConnection: close", "POST /predict HTTP/1.0"])
def test_a_connection_that_is_to_end_ends(full, head):
    with contextlib.closing(socket.create_connection((full.base_url.host, full.base_url.port))) as connection:
        connection.sendall(head.encode() + b"\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    headers, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in headers
    assert_problem_body(json.loads(body), 429, "overloaded")


def test_a_connection_that_ends_after_a_refusal_leaves_no_error(full, caplog):
    with httpx.Client(base_url=full.base_url) as mine:
        assert_problem(mine.post("/predict", **FORM), 429, "overloaded")
    full.get("/health/live")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_refusals_are_counted(full):
    def counts():
        text = full.get("/metrics").text
        wanted = ('rejections_total{cause="overloaded"}', 'duration_seconds_count{route="/predict",status="429"}')
        return [sum(float(line.split()[-1]) for line in text.splitlines() if want in line) for want in wanted]

    before = counts()
    for path in ("/predict", "/predict", "/predict?model=fashionnet"):
        full.post(path, **FORM)
    assert [after - was for after, was in zip(counts(), before, strict=True)] == [3, 3]


def assert_alike(one: httpx.Response, other: httpx.Response) -> None:
    """The same answer, but for what differs from request to request."""
    assert (one.status_code, one.content) == (other.status_code, other.content)
    differing = dict.fromkeys(("date", "x-request-id"))
    assert dict(one.headers) | differing == dict(other.headers) | differing
    assert set(differing) <= set(one.headers)


def answer_of(connection: socket.socket) -> bytes:
    """One answer: JSON, so it ends with a brace."""
    answer = b""
    while not answer.endswith(b"}"):
        received = connection.recv(65536)
        assert received, f"closed after {answer!r}"
        answer += received
    return answer
