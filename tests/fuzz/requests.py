"""A request as the bytes that go over the wire, and what the service must do with it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Request:
    """One hostile request.

    Attributes:
        kind: what is hostile about it; requests of one kind are counted together.
        content: all of its bytes.
        path: of a complete request, without the query. None if the request line itself may be malformed.
        must_answer: whether the service has all that it needs for a response.
        must_refuse: whether a client error and a closed connection is the only right response.
    """

    kind: str
    content: bytes
    path: str | None = None
    must_answer: bool = True
    must_refuse: bool = False

    @property
    def is_raw(self) -> bool:
        """Whether it needs a connection of its own."""
        return self.path is None

    @property
    def method(self) -> str:
        """The method of the request line, if it is one."""
        return self.content.partition(b" ")[0].decode("latin-1")


def post(kind: str, path: str, body: bytes, headers: Mapping[str, str]) -> Request:
    """Returns a POST request whose head is right."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1", "replace")
    return Request(kind, head + body, path.partition("?")[0])


def form(contents: list[bytes], field: str = "files") -> tuple[bytes, dict[str, str]]:
    """Returns the body of a multipart form with these files, and its headers."""
    head = f'--boundary\r\nContent-Disposition: form-data; name="{field}"; filename="x"\r\n\r\n'.encode()
    body = b"".join(head + content + b"\r\n" for content in contents) + b"--boundary--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=boundary"}


def picture(kind: str, content: bytes, path: str = "/predict") -> Request:
    """Returns a request with a picture as its body."""
    return post(kind, path, content, {"Content-Type": "image/png"})


def batch(kind: str, contents: list[bytes]) -> Request:
    """Returns a request for many pictures."""
    return post(kind, "/predict/batch", *form(contents))


def inference(kind: str, body: bytes, model: str = "fashionnet", **headers: str) -> Request:
    """Returns an inference request; ``headers`` by their names with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return post(kind, f"/v2/models/{model}/infer", body, {"Content-Type": "application/json"} | named)


def tensor(**changes: Any) -> dict[str, Any]:
    """Returns one image as an input of the protocol, with ``changes``."""
    return {"name": "images", "shape": [1, 28, 28], "datatype": "UINT8", "data": [7] * 784} | changes


def encoded(**changes: Any) -> bytes:
    """Returns the JSON of a request for one image, with ``changes`` of its input."""
    return json.dumps({"inputs": [tensor(**changes)]}).encode()
