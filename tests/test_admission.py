"""Overload: who is rejected, how, and what that leaves behind."""

import asyncio
import base64
import contextlib
import json
import re
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from PIL import Image

from app.inference.admission import Admission, batch_cost, picture_cost
from app.inference.decoding import Decoder
from app.inference.errors import Overloaded
from app.middleware import RequestMiddleware
from app.settings import Settings
from tests.held_engines import hold_engines
from tests.pictures import encode, grey_png, scene
from tests.problems import assert_problem, assert_problem_body
from tests.servers import little_buffered, serve, wait_for_queue, wait_until

FORM = {"files": {"file": ("x.png", grey_png())}}
PHOTO = {"files": {"file": encode(scene("wood")[0], "JPEG")}}


def run(use, max_items=3, max_wait=60.0, max_body_bytes=1_000_000):
    """Runs the coroutine function ``use`` with an admission."""

    async def main():
        await use(Admission(max_items, max_wait, max_body_bytes))

    asyncio.run(main())


def test_past_the_bound_an_image_is_rejected_until_another_is_done():
    async def use(admission):
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(admission.images.admit())
            with pytest.raises(Overloaded), admission.images.admit():
                pass
            with pytest.raises(Overloaded):
                admission.images.require()
            admission.pictures.require()
        with admission.images.admit():
            assert admission.images.items == 1

    run(use)


def test_announced_images_count_until_the_next_iteration():
    async def use(admission):
        assert [admission.announce(500) for _ in range(5)] == [True] * 3 + [False] * 2
        assert admission.take_rejected() == 2
        await asyncio.sleep(0)
        with admission.images.admit():
            assert [admission.announce(500) for _ in range(3)] == [True, True, False]
        assert admission.take_rejected() == 1
        assert admission.take_rejected() == 0

    run(use)


def test_work_is_rejected_once_what_is_ahead_of_it_takes_longer_than_the_wait():
    """By cost, not by number: a picture of 50 MB counts as much as 500 small ones."""

    async def use(admission):
        with admission.pictures.reserve(picture_cost(40_000_000)), pytest.raises(Overloaded) as caught:
            admission.pictures.require()
        assert caught.value.seconds == 1
        with contextlib.ExitStack() as stack:
            while not admission.pictures.is_full():
                stack.enter_context(admission.pictures.reserve(picture_cost(0)))
            assert admission.pictures.items in (250, 251)

    run(use, max_wait=0.5)


def test_the_rejection_says_how_many_seconds_the_work_ahead_takes():
    async def use(admission):
        with admission.batches.reserve(7.5), pytest.raises(Overloaded, match="try again in 7 seconds") as caught:
            admission.batches.require()
        assert caught.value.seconds == 7

    run(use, max_wait=1)


def test_the_pace_is_measured():
    """Where work takes ten times its cost, a tenth of it may wait."""

    async def use(admission):
        for _ in range(30):
            with admission.pictures.admit(0.001):
                await asyncio.sleep(0.01)
        with admission.pictures.reserve(0.1):
            assert 0.9 < admission.pictures.wait < 2
        for _ in range(60):
            with admission.pictures.admit(10):
                pass
        with admission.pictures.reserve(0.1):
            assert admission.pictures.wait < 0.01, "the measurement follows"

    run(use, max_wait=100)


def test_work_that_fails_is_no_longer_counted():
    async def use(admission):
        for _ in range(9):
            with pytest.raises(ZeroDivisionError), admission.images.admit():
                raise ZeroDivisionError
        assert admission.images.items == 0
        assert admission.images.wait == 0

    run(use)


def test_bodies_are_rejected_when_there_is_no_room_for_them():
    async def use(admission):
        with admission.body() as first, admission.body() as second:
            first.add(60_000)
            assert admission.body_bytes == 0, "the first bytes of each body are free"
            first.add(700_000)
            second.add(200_000)
            with pytest.raises(Overloaded):
                second.add(200_000)
            first.release(400_000)
            second.add(200_000)
        assert admission.body_bytes == 0

    run(use)


@pytest.fixture
def full(small_data, monkeypatch):
    """A service whose engine is held with one picture in hand and one that waits, which is all that may."""
    engines, statuses = hold_engines(monkeypatch), []
    settings = Settings(data_dir=small_data.root, queue_size=2, max_batch_size=1, inference="thread")
    with serve(settings) as client:
        held = engines[0]
        held.hold.set()

        def call():
            with httpx.Client(base_url=client.base_url, timeout=60) as mine:
                statuses.append(mine.post("/predict", **FORM).status_code)

        threads = [threading.Thread(target=call) for _ in range(2)]
        threads[0].start()
        assert held.begun.wait(20)
        threads[1].start()
        wait_for_queue(client, 1)
        yield client
        held.gate.set()
        for thread in threads:
            thread.join()
        assert statuses == [200, 200], "what was admitted is answered"
        assert client.post("/predict", **FORM).status_code == 200, "the service is as before"


def test_photos_are_rejected_before_they_are_decoded(small_data, monkeypatch):
    engines, statuses = hold_engines(monkeypatch), []
    with serve(Settings(data_dir=small_data.root, max_wait_seconds=0.001)) as client:
        for engine in engines:
            engine.hold.set()

        def call():
            with httpx.Client(base_url=client.base_url, timeout=60) as mine:
                statuses.append(mine.post("/predict", **PHOTO).status_code)

        thread = threading.Thread(target=call)
        thread.start()
        wait_until(lambda: any(engine.begun.is_set() for engine in engines))
        monkeypatch.setattr("app.inference.decoding.Decoder.run", None)
        assert_problem(client.post("/predict", **PHOTO), 429, "overloaded")
        assert_problem(client.post("/explain", **PHOTO), 429, "overloaded")
        for engine in engines:
            engine.gate.set()
        thread.join()
    assert statuses == [200]


def test_pictures_that_wait_for_the_decoder_take_no_place_of_those_that_need_none(small_data, monkeypatch):
    """Pictures of the data set's size too: one on a white ground is decoded like any other."""
    gate, decode = threading.Event(), Decoder.run
    white = encode(Image.new("L", (28, 28), 255))

    async def held(*arguments, **options):
        await asyncio.to_thread(gate.wait, 20)
        return await decode(*arguments, **options)

    monkeypatch.setattr(Decoder, "run", held)
    with serve(Settings(data_dir=small_data.root, queue_size=2)) as client, ThreadPoolExecutor() as pool:
        waiting = [pool.submit(client.post, "/predict", files={"file": white}) for _ in range(2)]
        try:
            wait_until(lambda: "in_progress 3.0" in client.get("/metrics").text)
            assert client.post("/predict", **FORM).status_code == 200
        finally:
            gate.set()
        assert [each.result().status_code for each in waiting] == [200, 200]


def raw(client, request: bytes, *more: bytes) -> bytes:
    """Sends a request in pieces; returns the response."""
    with contextlib.closing(socket.create_connection((client.base_url.host, client.base_url.port))) as connection:
        for piece in (request, *more):
            connection.sendall(piece)
            time.sleep(0.05)
        return answer_of(connection)


def head(length: int, *lines: str) -> bytes:
    return "\r\n".join(["POST /predict HTTP/1.1", "Host: x", "Content-Type: image/png", f"Content-Length: {length}",
                        *lines, "", ""]).encode()  # fmt: skip


def test_a_rejection_says_when_to_come_back_whichever_part_rejects(full):
    """The protocol rejects what comes with its head in one piece; the application everything else."""
    body = grey_png()
    by_protocol = raw(full, head(len(body), "X-Request-ID: mine") + body)
    by_application = raw(full, head(len(body), "X-Request-ID: mine", "Connection: x, upgrade") + body)
    for answer in (by_protocol, by_application):
        fields, _, content = answer.partition(b"\r\n\r\n")
        assert fields.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
        assert b"\r\nretry-after: 1\r\n" in fields
        assert b"\r\nx-request-id: mine" in fields
        assert_problem_body(json.loads(content), 429, "overloaded")
    assert names(by_protocol) == names(by_application)
    assert by_protocol.partition(b"\r\n\r\n")[2] == by_application.partition(b"\r\n\r\n")[2]
    assert full.get("/health/live").status_code == 200


def names(answer: bytes) -> set[bytes]:
    return {line.partition(b":")[0].lower() for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]}


def test_the_protocol_rejects_before_the_application_runs(full, monkeypatch):
    async def never(*_):
        raise AssertionError("the application was called")

    with monkeypatch.context() as patch:
        patch.setattr(RequestMiddleware, "__call__", never)
        assert_problem(full.post("/predict", **FORM), 429, "overloaded")
        assert_problem(full.post("/predict?model=fashionnet", **FORM), 429, "overloaded")


@pytest.mark.parametrize("path", ["/predict/batch", "/predictions", "/v2/models/other/infer"])
def test_other_paths_are_not_rejected_by_the_protocol(full, path):
    assert full.post(path, content=b"x").status_code in (400, 404, 415)


def test_what_needs_no_engine_is_answered_all_the_same(full):
    assert full.get("/models").status_code == 200
    assert_problem(full.get("/predict"), 405, "method-not-allowed")


def test_the_open_inference_protocol_rejects_too(full):
    tensor = {"name": "images", "shape": [1, 28, 28], "datatype": "UINT8", "data": [0] * 784}
    problem = full.post("/v2/models/fashionnet/infer", json={"inputs": [tensor]})
    assert problem.status_code == 429


def test_a_rejected_connection_goes_on(full):
    """Twice on one connection, the body sent after its head; none of it is taken for a request."""
    with contextlib.closing(socket.create_connection((full.base_url.host, full.base_url.port))) as connection:
        body = grey_png() + head(0)
        for _ in range(2):
            connection.sendall(head(len(body)))
            assert answer_of(connection).startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
            connection.sendall(body[:20])
            time.sleep(0.05)
            connection.sendall(body[20:])
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer_of(connection).startswith(b"HTTP/1.1 200 OK")


def test_rejections_wait_for_a_client_that_does_not_read(full, monkeypatch):
    with little_buffered(full, monkeypatch) as (ours, theirs):
        state = theirs.server_state
        start, sent, answers = state.total_requests, 0, b""
        while sent < 1000 and state.total_requests == start + sent:
            ours.sendall(head(0))
            sent += 1
            with contextlib.suppress(AssertionError):  # one by one, as the parser gets requests that come together
                wait_until(lambda due=start + sent: state.total_requests == due, 0.5)
        assert sent < 1000
        while answers.count(b"HTTP/1.1 429 ") < sent:
            received = ours.recv(65536)
            assert received
            answers += received


@pytest.mark.parametrize(
    "request_",
    [
        head(5, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        head(5, "Content-Length: 50") + b"12345",
        head(5).replace(b"Content-Length", b"X: y\nTransfer-Encoding") + b"12345",
        head(1).replace(b"Length: 1", b"Length: +1") + b"1",
        head(1).replace(b"Length: 1", b"Length: 1" + b"0" * 30) + b"1",
    ],
    ids=["two framings", "two lengths", "bare line feed", "signed", "long"],
)
def test_requests_whose_length_is_in_doubt_are_left_to_the_parser(full, request_):
    """Whoever is wrong about where a request ends takes its body for the next request."""
    answer = raw(full, request_)
    assert not answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert full.get("/health/live").status_code == 200


def test_the_rest_of_a_body_that_was_answered_early_is_no_request(client):
    """The response to a body of a wrong type comes before its end, which looks like a request here."""
    with contextlib.closing(socket.create_connection((client.base_url.host, client.base_url.port))) as connection:
        rest = head(3) + b"abc"
        wrong = head(1000 + len(rest)).replace(b"image/png", b"text/plain")
        connection.sendall(wrong + bytes(1000))
        assert answer_of(connection).startswith(b"HTTP/1.1 415 ")
        connection.sendall(rest)
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer_of(connection).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("first", ["POST /predict HTTP/1.1\r\nConnection: close", "POST /predict HTTP/1.0"])
def test_a_connection_that_is_to_end_ends(full, first):
    with contextlib.closing(socket.create_connection((full.base_url.host, full.base_url.port))) as connection:
        connection.sendall(first.encode() + b"\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    headers, _, body = answer.partition(b"\r\n\r\n")
    assert b"\r\nconnection: close" in headers
    assert_problem_body(json.loads(body), 429, "overloaded")


def test_a_connection_that_ends_after_a_rejection_leaves_no_error(full, caplog):
    with httpx.Client(base_url=full.base_url) as mine:
        assert_problem(mine.post("/predict", **FORM), 429, "overloaded")
    full.get("/health/live")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_rejections_are_counted(full):
    def count():
        lines = full.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if 'problems_total{type="overloaded"}' in line)

    before = count()
    body = grey_png()
    for lines in ((), (), ("Connection: x, upgrade",)):
        raw(full, head(len(body), *lines) + body)
    assert count() - before == 3


def test_a_few_requests_for_many_pictures_wait_and_the_next_is_rejected(small_data, monkeypatch):
    engines, statuses = hold_engines(monkeypatch), []
    wait = 2.5 * batch_cost(2 * len(grey_png()), 2)
    with serve(Settings(data_dir=small_data.root, max_wait_seconds=wait)) as client:
        engines[0].hold.set()

        def call():
            with httpx.Client(base_url=client.base_url, timeout=60) as mine:
                statuses.append(mine.post("/predict/batch", files=[("files", grey_png())] * 2).status_code)

        threads = [threading.Thread(target=call) for _ in range(5)]
        for thread in threads:
            thread.start()
            time.sleep(0.2)  # the pictures of a form count once they have arrived
        wait_until(lambda: statuses == [429, 429])
        engines[0].gate.set()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [200, 200, 200, 429, 429]
        assert client.post("/predict/batch", files={"files": grey_png()}).status_code == 200


def test_a_form_counts_whole_while_its_chunks_take_turns(small_data, monkeypatch):
    """Of a form of four chunks two have turns and one waits; the fourth has not been read."""
    engines, pictures = hold_engines(monkeypatch), 128
    settings = Settings(
        data_dir=small_data.root, workers=1, max_wait_seconds=batch_cost(pictures * len(grey_png()), 110)
    )
    with serve(settings) as client, ThreadPoolExecutor() as pool:
        for engine in engines:
            engine.hold.set()
        form = {"files": [("files", grey_png(number)) for number in range(pictures)]}
        waiting = pool.submit(client.post, "/predict/batch", **form, timeout=30)
        wait_until(lambda: any(engine.begun.is_set() for engine in engines))
        assert_problem(client.post("/predict/batch", files={"files": grey_png()}), 429, "overloaded")
        for engine in engines:
            engine.gate.set()
        assert waiting.result().status_code == 200
        assert client.post("/predict/batch", files={"files": grey_png()}).status_code == 200


NOISE = encode(Image.effect_noise((1000, 1000), 90))
"""A picture of about a megabyte."""


def begin_form(connection: socket.socket, length: int, pictures: int) -> None:
    """Sends the head of a form of so many bytes, and its first pictures."""
    connection.sendall(
        b"POST /predict/batch HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: %d\r\n\r\n" % length
    )
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n' + NOISE + b"\r\n"
    connection.sendall(part * pictures)


@pytest.mark.parametrize("pictures", [0, 8], ids=["nothing yet", "eight pictures"])
def test_a_form_that_arrives_slowly_keeps_no_other_out(small_data, pictures):
    """Eight pictures, of which more than half are classified while the form arrives, cost 0.8 seconds."""
    with (
        serve(Settings(data_dir=small_data.root, workers=1, max_wait_seconds=0.6)) as client,
        contextlib.closing(socket.create_connection((client.base_url.host, client.base_url.port))) as connection,
    ):
        begin_form(connection, 40_000_000, pictures)
        wait_until(lambda: "in_progress 2.0" in client.get("/metrics").text)
        form = {"files": {"files": grey_png()}}
        wait_until(lambda: client.post("/predict/batch", **form).status_code == 200, 10)


def test_a_declared_length_alone_keeps_no_other_out(small_data):
    with (
        serve(Settings(data_dir=small_data.root, workers=1, max_wait_seconds=0.6)) as client,
        contextlib.closing(socket.create_connection((client.base_url.host, client.base_url.port))) as connection,
    ):
        begin_form(connection, 40_000_000, 0)
        wait_until(lambda: "in_progress 2.0" in client.get("/metrics").text)
        assert client.post("/predict/batch", files={"files": grey_png()}).status_code == 200


def test_the_bytes_of_a_form_count_whether_or_not_its_length_is_declared(small_data, monkeypatch):
    engines = hold_engines(monkeypatch)
    form = httpx.Request("POST", "http://x", files={"files": NOISE})
    settings = Settings(data_dir=small_data.root, workers=1, max_wait_seconds=0.05)
    with serve(settings) as client, ThreadPoolExecutor() as pool:
        for engine in engines:
            engine.hold.set()
        chunked = {"content": iter([form.read()]), "headers": {"content-type": form.headers["content-type"]}}
        waiting = pool.submit(client.post, "/predict/batch", **chunked)
        wait_until(lambda: any(engine.begun.is_set() for engine in engines))
        assert_problem(client.post("/predict/batch", files={"files": grey_png()}), 429, "overloaded")
        for engine in engines:
            engine.gate.set()
        assert waiting.result().status_code == 200


@pytest.mark.parametrize("content", [grey_png(), b"x"], ids=["an image", "no picture"])
def test_forms_of_small_files_do_not_make_the_service_look_busy(small_data, monkeypatch, content):
    engines = hold_engines(monkeypatch)
    large = encode(Image.effect_noise((1000, 1000), 90))
    settings = Settings(data_dir=small_data.root, workers=1, max_wait_seconds=3)  # for slow machines
    with serve(settings) as client, ThreadPoolExecutor() as pool:
        for _ in range(10):
            assert client.post("/predict/batch", files={"files": content}).status_code == 200
        for engine in engines:
            engine.hold.set()
        waiting = pool.submit(client.post, "/predict/batch", files={"files": large})
        wait_until(lambda: any(engine.begun.is_set() for engine in engines))
        another = pool.submit(client.post, "/predict/batch", files={"files": content})
        time.sleep(0.2)
        for engine in engines:
            engine.gate.set()
        assert [waiting.result().status_code, another.result().status_code] == [200, 200]


def slow_picture() -> bytes:
    """A BMP of 62 bytes in run-length encoding, whose 24 million pixels Pillow fills up one by one."""
    pixels = b"\x01\x00\x00\x00"
    head = struct.pack("<IiiHHIIiiII", 40, 24_000_000, 1, 1, 8, 1, len(pixels), 0, 0, 1, 0)
    return b"BM" + struct.pack("<IHHI", 58 + len(pixels), 0, 0, 58) + head + bytes(4) + pixels


def test_many_slow_pictures_take_the_decoder_for_the_time_of_a_few(small_data):
    settings = Settings(data_dir=small_data.root, workers=1, decode_seconds=0.1)
    with serve(settings) as client:
        response = client.post("/predict/batch", files=[("files", slow_picture())] * 100)
        details = [one["error"]["detail"] for one in response.json()["predictions"]]
        assert details[0].startswith("Decoding this picture takes longer than 0.1 s")
        assert details[-1].startswith("The pictures before this one took too long to decode")
        assert response.elapsed.total_seconds() < 3
        assert client.post("/predict/batch", files={"files": grey_png()}).status_code in (200, 429)


@pytest.mark.parametrize("path", ["/predict/batch", "/v2/models/fashionnet/infer"])
def test_the_pictures_of_a_client_that_leaves_are_not_decoded(small_data, path):
    settings = Settings(data_dir=small_data.root, workers=1, decode_seconds=1.5)
    picture = base64.b64encode(slow_picture()).decode()
    tensor = {"name": "images", "shape": [50], "datatype": "BYTES", "data": [picture] * 50}
    body = {"json": {"inputs": [tensor]}} if path.startswith("/v2") else {"files": [("files", slow_picture())] * 50}
    with serve(settings) as client:
        with contextlib.suppress(httpx.ReadTimeout):
            client.post(path, timeout=0.2, **body)
        start = time.monotonic()
        wait_until(lambda: 'status="499"' in client.get("/metrics").text)
        assert client.post("/predict/batch", files={"files": grey_png()}).status_code in (200, 429)
        assert time.monotonic() - start < 5, "the pictures may take 7.7 seconds"


IMAGES = {"name": "images", "shape": [2, 28, 28], "datatype": "UINT8", "data": [0] * 2 * 28 * 28}


@pytest.mark.parametrize(
    ("path", "body"),
    [("/explain", FORM), ("/v2/models/fashionnet/infer", {"json": {"inputs": [IMAGES]}})],
    ids=["explanation", "tensor"],
)
def test_work_that_is_not_quick_ends_when_its_client_leaves(small_data, monkeypatch, path, body):
    engines = hold_engines(monkeypatch)

    def count(label: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if "duration_seconds_count{" in line and label in line)

    with serve(Settings(data_dir=small_data.root, workers=1, inference="thread")) as client:
        left, failed = count('"499"'), count('"fail"')
        engines[0].hold.set()
        with contextlib.suppress(httpx.ReadTimeout):
            client.post(path, timeout=0.5, **body)
        try:
            assert engines[0].begun.is_set()
            wait_until(lambda: count('"499"') == left + 1, 10)
            assert count('"fail"') == failed + path.startswith("/v2")
        finally:
            engines[0].gate.set()


def test_a_client_that_leaves_while_it_sends_is_no_problem(small_data):
    with serve(Settings(data_dir=small_data.root, workers=1)) as client:

        def counted(label: str) -> list[str]:
            return re.findall(
                rf"^fashionnet_\w+_(?:count|total){{.*{label}.*$", client.get("/metrics").text, re.MULTILINE
            )

        left, malformed = counted('status="499"'), counted("malformed-body")
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(head(5000) + b"abc")
        wait_until(lambda: counted('status="499"') != left)
        assert counted("malformed-body") == malformed


def test_a_form_is_classified_while_it_arrives_and_takes_little_memory(small_data):
    """Its pictures are larger in sum than all bodies that may be in memory."""
    settings = Settings(
        data_dir=small_data.root, workers=1, memory_bytes=15_000_000, max_request_bytes=5_000_000,
        max_upload_bytes=1_000_000,
    )  # fmt: skip
    with serve(settings) as client:
        photo = encode(Image.effect_noise((900, 900), 90))
        assert 700_000 < len(photo) < 1_000_000
        answers = client.post("/predict/batch", files=[("files", photo)] * 5).json()["predictions"]
        assert [set(answer) >= {"label"} for answer in answers] == [True] * 5


def test_bodies_that_there_is_no_room_for_are_429(small_data):
    settings = Settings(
        data_dir=small_data.root, workers=1, memory_bytes=3_000_000, max_request_bytes=1_000_000,
        max_upload_bytes=1_000_000,
    )  # fmt: skip
    with serve(settings) as client, contextlib.ExitStack() as stack:
        for _ in range(2):
            address = (client.base_url.host, client.base_url.port)
            connection = stack.enter_context(contextlib.closing(socket.create_connection(address)))
            connection.sendall(head(900_000) + bytes(450_000))
        time.sleep(0.3)
        photo = encode(Image.effect_noise((700, 700), 90))
        assert_problem(client.post("/predict", content=photo, headers={"Content-Type": "image/png"}), 429, "overloaded")


def answer_of(connection: socket.socket) -> bytes:
    """One response: JSON or plain text, so it ends with a brace or a full stop."""
    answer = b""
    while not answer.endswith((b"}", b".")):
        received = connection.recv(65536)
        assert received, f"closed after {answer!r}"
        answer += received
    return answer
