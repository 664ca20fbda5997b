"""What every response has to fulfil, whatever the request was."""

import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from app.problems import MEDIA_TYPE, TYPE_PREFIX
from tests.fuzz.connections import Response
from tests.fuzz.requests import Request
from tests.problems import LEAK

RAW_STATUSES = frozenset({200, 400, 404, 405, 408, 411, 413, 414, 415, 417, 422, 426, 429, 431, 501, 505})
"""What a request may get whose request line may be malformed."""
SOFTWARE = re.compile(r"(?i)uvicorn|gunicorn|starlette|pydantic|pillow|libtiff|httptools|python/")
LENGTH = "Inference-Header-Content-Length"


class Checks:
    """The checks for one service.

    Args:
        schema: its OpenAPI document, which says what statuses a path has.
        seconds: in which every response must be there.
    """

    def __init__(self, schema: Mapping[str, Any], seconds: float) -> None:
        self.seconds = seconds
        self._statuses = [
            (re.compile(re.sub(r"{\w+}", "[^/]+", path)), {int(status) for status in item["post"]["responses"]})
            for path, item in schema["paths"].items()
            if "post" in item
        ]

    def faults(self, request: Request, response: Response) -> Iterator[str]:
        """Yields a sentence for everything that is wrong with a response."""
        if response.status not in self._allowed(request):
            yield f"status {response.status} is not documented"
        if response.seconds > self.seconds:
            yield f"answered after more than {self.seconds:g} s"
        if "server" in response.headers:
            yield "names the server"
        if request.must_refuse and not (400 <= response.status < 500 and response.closed):
            yield f"status {response.status}{'' if response.closed else ', left open'}, but it must be refused"
        if request.method == "HEAD":
            return
        yield from _problem_faults(request, response) if response.status >= 400 else _result_faults(request, response)

    def _allowed(self, request: Request) -> Iterable[int]:
        path = request.path
        if path is None:
            return RAW_STATUSES
        return next(statuses for pattern, statuses in self._statuses if pattern.fullmatch(path))


def _problem_faults(request: Request, response: Response) -> Iterator[str]:
    if response.headers.get_content_type() != MEDIA_TYPE:
        yield f"status {response.status} as {response.headers.get_content_type()}"
        return
    try:
        body = parse(response.body)
    except ValueError as error:
        yield f"the problem is no JSON: {error}"
        return
    if (request.path or "").startswith("/v2") and body.get("error") != body.get("detail"):
        yield "the problem has no error, which clients of /v2 show"
    yield from _member_faults(body, response.status)


def _member_faults(body: dict[str, Any], status: int) -> Iterator[str]:
    if set(body) - {"error"} != {"type", "title", "status", "detail"} or body.get("error") not in (
        None,
        body["detail"],
    ):
        yield f"the problem has {sorted(body)}"
    elif body["status"] != status or not body["type"].startswith(TYPE_PREFIX):
        yield f"the problem is of another status or type: {body['status']}, {body['type']}"
    elif LEAK.search(body["detail"]) or SOFTWARE.search(body["detail"]):
        yield f"the detail tells of the inside: {body['detail']:.200}"


def _result_faults(request: Request, response: Response) -> Iterator[str]:
    kind = response.headers.get_content_type()
    try:
        if kind == "application/json":
            yield from _numbers_faults(request, parse(response.body))
        elif kind == "application/octet-stream":
            length = int(response.headers[LENGTH])
            yield from _outputs_faults(parse(response.body[:length])["outputs"], response.body[length:])
        elif kind == "image/png" and not response.body.startswith(b"\x89PNG"):
            yield "the picture is no PNG"
    except (ValueError, KeyError, TypeError) as error:
        yield f"the result is not as documented: {error!r:.200}"


def _numbers_faults(request: Request, body: dict[str, Any]) -> Iterator[str]:
    if request.path is None:
        return
    if "outputs" in body:
        yield from _outputs_faults(body["outputs"], b"")
        return
    for prediction in body.get("predictions", [body.get("prediction", body)]):
        if "error" in prediction:
            yield from _member_faults(prediction["error"], prediction["error"]["status"])
        elif not is_distribution(prediction["probabilities"].values()):
            yield "the probabilities do not add up to 1"


def _outputs_faults(outputs: list[dict[str, Any]], binary: bytes) -> Iterator[str]:
    for output in outputs:
        size = (output.get("parameters") or {}).get("binary_data_size")
        values = output["data"] if size is None else binary[:size]
        binary = binary[size or 0 :]
        if output["name"] == "probabilities" and output["datatype"] == "FP32":
            numbers = values if size is None else struct.unpack(f"<{size // 4}f", values)
            rows = (numbers[start : start + 10] for start in range(0, len(numbers), 10))
            if not all(map(is_distribution, rows)):
                yield "the probabilities do not add up to 1"


def is_distribution(values: Iterable[float]) -> bool:
    """Whether the values are ten probabilities that add up to 1."""
    values = list(values)
    return len(values) == 10 and all(0 <= value <= 1 for value in values) and abs(sum(values) - 1) < 1e-3


def parse(content: bytes) -> Any:
    """Returns the value of valid UTF-8 JSON; raises ValueError for anything else, and for NaN and Infinity."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(content.decode(), parse_constant=refuse)
