"""Hostile heads of HTTP requests, byte by byte."""

import random

from tests.fuzz.mutators import mutate_bytes, mutate_parts
from tests.fuzz.requests import Request

LINE = b"POST /predict HTTP/1.1"
FIELDS = [b"Host: localhost", b"Content-Type: image/png"]
REFUSED = {
    "two lengths": [b"Content-Length: 1", b"Content-Length: 2"],
    "length and chunks": [b"Content-Length: 3", b"Transfer-Encoding: chunked"],
    "chunks and length": [b"Transfer-Encoding: chunked", b"Content-Length: 3"],
    "length with a sign": [b"Content-Length: +1"],
    "negative length": [b"Content-Length: -1"],
    "length in hexadecimal": [b"Content-Length: 0x1"],
    "list of lengths": [b"Content-Length: 1, 1"],
    "length of 40 digits": [b"Content-Length: " + b"9" * 40],
    "NUL in a value": [b"X: a\0b", b"Content-Length: 0"],
    "NUL in a name": [b"a\0b: x", b"Content-Length: 0"],
    "folded line": [b"X: a", b" b", b"Content-Length: 0"],
    "space before the colon": [b"Content-Length : 1"],
    "no colon": [b"nonsense", b"Content-Length: 0"],
    "line feed in a value": [b"X: a\nContent-Length: 5"],
    "carriage return in a value": [b"X: a\rb", b"Content-Length: 0"],
    "1,000 fields": [b"X: y"] * 1000 + [b"Content-Length: 0"],
    "field of 1 MB": [b"X: " + b"y" * 1_000_000, b"Content-Length: 0"],
    "name of 1 MB": [b"x" * 1_000_000 + b": y", b"Content-Length: 0"],
}
"""Fields after which the connection has to be closed."""
LINES = (
    b"GET / HTTP/1.1", b"GET /health/live HTTP/1.0", b"GET /health/live", b"HEAD / HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"CONNECT localhost:1 HTTP/1.1", b"GET http://localhost/health/live HTTP/1.1", b"GET /%00%ff/../.. HTTP/1.1",
    b"GET /" + b"a" * 60_000 + b" HTTP/1.1", b"GET / HTTP/9.9", b"get / http/1.1", b"PRI * HTTP/2.0", b"",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET /gallery/images/" + b"9" * 5000 + b".png HTTP/1.1",
    b"GET /gallery?rows=" + b"9" * 5000 + b" HTTP/1.1", b"DELETE /predict HTTP/1.1", b"GET /?\xff\xfe HTTP/1.1",
    b"POST /predict?model=%00&image=%ff HTTP/1.1", b"POST /v2/models/%2e%2e/infer HTTP/1.1",
)  # fmt: skip
OTHERS = (
    b"Expect: 100-continue", b"Expect: nonsense", b"Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings",
    b"HTTP2-Settings: AAMAAABk", b"Connection: close", b"Connection: keep-alive, close", b"Host: other", b"Host:",
    b"X-Request-ID: " + b"x" * 100, b"X-Request-ID: a b", b"Range: bytes=" + b"0-1," * 500, b"If-None-Match: *",
    b"Accept-Encoding: gzip;q=x", b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: chunked;x", b"Trailer: X", b"Cookie: " + b"a=b; " * 500, b"Content-Encoding: gzip",
)  # fmt: skip
CHUNKS = (
    b"0\r\n\r\n", b"1\r\na\r\n0\r\n\r\n", b"1;x=y\r\na\r\n0\r\n\r\n", b"-1\r\na\r\n0\r\n\r\n", b"0x1\r\na\r\n0\r\n\r\n",
    b"FFFFFFFFFFFFFFFFF\r\na", b"1\r\nab\r\n0\r\n\r\n", b"1\na\n0\n\n", b"\r\n", b" 1\r\na\r\n0\r\n\r\n", b"G\r\n",
    b"1;" + b"x" * 20_000 + b"\r\na\r\n0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    b"1\r\na\r\n" * 500 + b"0\r\n\r\n", b"0\r\n\r\nGET /health/live HTTP/1.1\r\n\r\n",
)  # fmt: skip


def head(lines: list[bytes], end: bytes = b"\r\n") -> bytes:
    """Returns the lines as the head of a request."""
    return end.join([*lines, b"", b""])


def hostile_head(rng: random.Random) -> Request:
    """Returns a request with hostile fields, lines or chunks; nobody knows whether it is complete."""
    match rng.randrange(4):
        case 0:
            return refused(rng.choice(list(REFUSED)))
        case 1:
            content = head([LINE, *FIELDS, b"Transfer-Encoding: chunked"]) + rng.choice(CHUNKS)
        case 2:
            content = head([rng.choice(LINES), *FIELDS, b"Content-Length: 0"], rng.choice((b"\r\n", b"\r\n", b"\n")))
        case _:
            fields = [LINE, *FIELDS, *rng.choices(OTHERS, k=rng.randrange(1, 5)), b"Content-Length: 1"]
            content = head(mutate_parts(rng, fields, lambda: rng.choice(OTHERS))) + b"x"
    if rng.random() < 0.3:
        content = mutate_bytes(rng, content)
    return Request("head", content, must_answer=False)


def refused(kind: str) -> Request:
    """Returns a request that another server may read as two: 400 and a closed connection is the only right response."""
    return Request(f"head: {kind}", head([LINE, *FIELDS, *REFUSED[kind]]) + b"0\r\n\r\n", must_refuse=True)
