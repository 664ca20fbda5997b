"""Responses on the wire: whole, in one piece where they are short, and nothing of one in another."""

import contextlib
import socket

import pytest

from app.settings import Settings
from tests.pictures import encode, trousers
from tests.servers import serve


@pytest.fixture(scope="module")
def client(small_data):
    with serve(Settings(data_dir=small_data.root)) as client:
        yield client


@contextlib.contextmanager
def connection(client):
    address = (client.base_url.host, client.base_url.port)
    with contextlib.closing(socket.create_connection(address, timeout=20)) as connection:
        yield connection


def head(line, *headers):
    return "\r\n".join([f"{line} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def test_head_and_body_arrive_together(client):
    with connection(client) as wire:
        for _ in range(3):
            wire.sendall(head("GET /health/live"))
            first, _, body = wire.recv(65536).partition(b"\r\n\r\n")
            assert first.startswith(b"HTTP/1.1 200 OK")
            assert f"content-length: {len(body)}".encode() in first
            assert body


def test_requests_sent_at_once_are_answered_one_after_the_other(client):
    with connection(client) as wire:
        wire.sendall(head("GET /health/live") * 3 + head("GET /health/live", "Connection: close"))
        answers = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answers.count(b"HTTP/1.1 200 OK\r\n") == 4
    one, *others = (answer.partition(b"\r\n\r\n")[2] for answer in answers.split(b"HTTP/1.1 200 OK")[1:])
    assert one
    assert others == [one] * 3


def test_a_response_without_a_body_is_sent_too(client):
    whole = client.get("/page/page.js")
    with connection(client) as wire:
        for line, *headers in (
            ["HEAD /page/page.js"],
            ["GET /page/page.js", f"If-None-Match: {whole.headers['etag']}"],
        ):
            wire.sendall(head(line, *headers))
            status = b"200 OK" if line.startswith("HEAD") else b"304 Not Modified"
            answer = wire.recv(65536)
            assert answer.startswith(b"HTTP/1.1 " + status)
            assert answer.endswith(b"\r\n\r\n")


def test_a_client_that_asks_first_is_told_to_go_on(client):
    body = encode(trousers())
    with connection(client) as wire:
        wire.sendall(
            head("POST /predict", "Content-Type: image/png", f"Content-Length: {len(body)}", "Expect: 100-continue")
        )
        assert wire.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(body)
        assert wire.recv(65536).startswith(b"HTTP/1.1 200 OK")


def test_a_long_body_arrives_whole(client):
    path = "/static-offline-docs/swagger-ui-bundle.js"  # in pieces of 64 KiB
    expected = client.get(path)
    with connection(client) as wire:
        wire.sendall(head(f"GET {path}", "Connection: close"))
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert len(expected.content) > 1_000_000
    assert answer.partition(b"\r\n\r\n")[2] == expected.content
