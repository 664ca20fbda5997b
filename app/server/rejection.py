"""Responses that the server itself writes, without the application: the bytes of a problem, and its errors."""

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from app.problems import ProblemType, ServiceError


class MalformedRequest(ServiceError):
    """Bytes that are not a request of HTTP/1.0 or HTTP/1.1."""

    problem_type = ProblemType(400, "malformed-request", "Malformed HTTP request")

    def __init__(self) -> None:
        super().__init__("The request does not follow HTTP/1.1: send it with an HTTP client such as curl.")


class InvalidHost(ServiceError):
    """A request with no Host field, or with several."""

    problem_type = ProblemType(400, "invalid-host", "Invalid Host field")

    def __init__(self) -> None:
        super().__init__("HTTP/1.1 requires exactly one Host field: send one.")


class HeadTooLarge(ServiceError):
    """A request line and header fields, or trailers, past the limits."""

    problem_type = ProblemType(431, "head-too-large", "Request header fields too large")

    def __init__(self, max_bytes: int, max_fields: int) -> None:
        super().__init__(f"A head may have {max_bytes:,} bytes and {max_fields} fields: send fewer or shorter fields.")


class SlowHead(ServiceError):
    """A request line and header fields that did not arrive in time."""

    problem_type = ProblemType(408, "slow-head", "Request timeout")

    def __init__(self) -> None:
        super().__init__("The head of the request took too long to arrive: send the request again.")


def serialise(response: Response, *fields: tuple[bytes, bytes]) -> bytes:
    """Returns the bytes of a response with additional ``fields`` in its head."""
    head = b"".join(b"%s: %s\r\n" % field for field in (*fields, *response.raw_headers))
    return STATUS_LINE[response.status_code] + head + b"\r\n" + bytes(response.body)
