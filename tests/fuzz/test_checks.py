"""The checks find what they are for, and a seed stands for the same requests every time."""

import http.client
import io
import json
from typing import Any

import pytest

from app.problems import MEDIA_TYPE
from tests.fuzz.checks import Checks
from tests.fuzz.connections import Response
from tests.fuzz.heads import refused
from tests.fuzz.inputs import mutated
from tests.fuzz.requests import Request, inference, picture

SCHEMA = {"paths": {path: {"post": {"responses": {"200": {}, "422": {}}}}
                    for path in ("/predict", "/v2/models/{name}/infer")}}  # fmt: skip
PROBLEM = {
    "type": "urn:fashionnet:problem:damaged-image",
    "title": "Damaged image",
    "status": 422,
    "detail": "Send it.",
}
PREDICTION = {"probabilities": {str(number): 0.1 for number in range(10)}}
OUTPUT = {"name": "probabilities", "datatype": "FP32", "shape": [1, 10], "data": [0.1] * 10}
PREDICT, INFER = picture("", b"x"), inference("", b"{}")


def response(body: Any, status: int = 200, media_type: str = "application/json", **changes: Any) -> Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"Content-Type: {media_type}\r\n{changes.pop('field', '')}\r\n\r\n"
    headers = http.client.parse_headers(io.BytesIO(head.encode()))
    return Response(status, headers, content, changes.get("seconds", 0.1), changes.get("closed", False))


def faults(request: Request, given: Response) -> str:
    return "; ".join(Checks(SCHEMA, seconds=1).faults(request, given))


@pytest.mark.parametrize(("request_", "given"), [
    (PREDICT, response(PREDICTION)),
    (PREDICT, response(PROBLEM, 422, MEDIA_TYPE)),
    (INFER, response({"outputs": [OUTPUT]})),
    (INFER, response(PROBLEM | {"error": "Send it."}, 422, MEDIA_TYPE)),
    (refused("two lengths"), response(PROBLEM | {"status": 400}, 400, MEDIA_TYPE, closed=True)),
])  # fmt: skip
def test_a_right_response_has_no_fault(request_: Request, given: Response) -> None:
    assert not faults(request_, given)


@pytest.mark.parametrize(("request_", "given", "words"), [
    (PREDICT, response(PROBLEM | {"status": 500}, 500, MEDIA_TYPE), "status 500 is not documented"),
    (PREDICT, response(PREDICTION, seconds=1.1), "more than 1 s"),
    (PREDICT, response(PREDICTION, field="Server: x"), "names the server"),
    (PREDICT, response(b"Bad request", 422, "text/plain"), "as text/plain"),
    (PREDICT, response(b"{", 422, MEDIA_TYPE), "no JSON"),
    (PREDICT, response({"detail": "Send it."}, 422, MEDIA_TYPE), "the problem has"),
    (PREDICT, response(PROBLEM | {"status": 400}, 422, MEDIA_TYPE), "another status"),
    (PREDICT, response(PROBLEM | {"detail": "ValueError('x') in /home/a.py"}, 422, MEDIA_TYPE), "tells of the inside"),
    (PREDICT, response(PROBLEM | {"detail": "Pillow says no."}, 422, MEDIA_TYPE), "tells of the inside"),
    (INFER, response(PROBLEM, 422, MEDIA_TYPE), "no error"),
    (PREDICT, response(b'{"probabilities": {"a": NaN}}'), "NaN is no JSON"),
    (PREDICT, response(b'{"probabilities": {"\xff": 1}}'), "not as documented"),
    (PREDICT, response({"label": "Bag"}), "not as documented"),
    (PREDICT, response({"probabilities": {"a": 0.9}}), "do not add up"),
    (PREDICT, response(b"GIF89a", media_type="image/png"), "no PNG"),
    (INFER, response({"outputs": [OUTPUT | {"data": [0.2] * 10}]}), "do not add up"),
    (refused("two lengths"), response(PREDICTION, closed=True), "must be refused"),
    (refused("two lengths"), response(PROBLEM | {"status": 400}, 400, MEDIA_TYPE), "left open"),
])  # fmt: skip
def test_a_wrong_response_has_its_fault(request_: Request, given: Response, words: str) -> None:
    assert words in faults(request_, given)


def test_a_seed_gives_the_same_requests_every_time() -> None:
    first, again, other = (list(mutated(50, seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
