"""Problem details (RFC 9457): the type of every error, and the one function that renders an error as a response.

Errors of the HTTP application are subclasses of ``ServiceError`` and carry their type. Errors of ``model`` and of
``app.inference`` know no HTTP; ``OTHER_ERRORS`` gives each a type.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, ClassVar, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from app.disconnection import CLIENT_CLOSED_REQUEST
from app.inference.errors import DrawingTooLarge, HelperLost, InferenceError, Overloaded, UnknownImage, UnknownModel
from app.metrics import PROBLEMS, MetricsUnavailable
from app.validation import plain_message
from model import FashionNetError
from model.errors import (
    DamagedImage,
    DataError,
    EmptyImage,
    NotAnImage,
    TooComplex,
    TooManyPixels,
    UnknownFormat,
)

logger = logging.getLogger("fashionnet")

TYPE_PREFIX = "urn:fashionnet:problem:"
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = {"Retry-After": "1"}
Responses = dict[int | str, dict[str, Any]]
"""OpenAPI responses by status, as a route takes them."""


class Problem(BaseModel):
    """Problem details for HTTP APIs, RFC 9457."""

    type: str = Field(examples=[TYPE_PREFIX + "not-an-image"])
    title: str = Field(examples=["Not an image"])
    status: int = Field(examples=[415])
    detail: str = Field(description="what happened and what to do about it")


class ProblemType(NamedTuple):
    """The status, slug and title of all problems of one type."""

    status: int
    slug: str
    title: str

    def problem(self, detail: str) -> Problem:
        """Returns a problem of this type."""
        return Problem(type=TYPE_PREFIX + self.slug, title=self.title, status=self.status, detail=detail)


class ServiceError(Exception):
    """The base of the HTTP application's errors; the message is the problem's ``detail``."""

    problem_type: ClassVar[ProblemType]
    headers: ClassVar[Mapping[str, str]] = {}


class MissingFile(ServiceError):
    """A multipart body without the file it should hold."""

    problem_type = ProblemType(422, "missing-file", "No file in the request")


class MalformedBody(ServiceError):
    """A multipart body that does not follow the format."""

    problem_type = ProblemType(400, "malformed-body", "Malformed multipart body")


class UnsupportedBody(ServiceError):
    """A body of a content type that cannot hold a picture."""

    problem_type = ProblemType(415, "unsupported-body", "Unsupported content type")


class BodyTooLarge(ServiceError):
    """More bytes than are accepted."""

    problem_type = ProblemType(413, "too-large", "Upload too large")


class SlowBody(ServiceError):
    """A body that did not arrive in time."""

    problem_type = ProblemType(408, "slow-body", "Request timeout")
    headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}


class TooManyFiles(ServiceError):
    """More files than one request may hold."""

    problem_type = ProblemType(413, "too-many-files", "Too many files")


class InvalidQuery(ServiceError):
    """An invalid query parameter."""

    problem_type = ProblemType(422, "invalid-query", "Invalid query")


class InvalidInference(ServiceError):
    """An inference request that does not follow the Open Inference Protocol, or asks for something unknown."""

    problem_type = ProblemType(400, "invalid-inference", "Invalid inference request")


class NotReady(ServiceError):
    """The service is starting or stopping."""

    problem_type = ProblemType(503, "not-ready", "Not ready")
    headers: ClassVar[Mapping[str, str]] = RETRY_AFTER


OTHER_ERRORS: dict[type[Exception], ProblemType] = {
    EmptyImage: ProblemType(422, "empty-image", "Empty image"),
    NotAnImage: ProblemType(415, "not-an-image", "Not an image"),
    UnknownFormat: ProblemType(415, "unknown-format", "Unsupported image format"),
    DamagedImage: ProblemType(422, "damaged-image", "Damaged image"),
    TooManyPixels: ProblemType(413, "too-many-pixels", "Too many pixels"),
    TooComplex: ProblemType(413, "too-complex", "Picture takes too long to decode"),
    DataError: ProblemType(503, "data-unavailable", "Data set unavailable"),
    MetricsUnavailable: ProblemType(503, "metrics-unavailable", "Metrics unavailable"),
    UnknownModel: ProblemType(404, "unknown-model", "Unknown model"),
    UnknownImage: ProblemType(404, "unknown-image", "Unknown image"),
    Overloaded: ProblemType(429, "overloaded", "Too many requests"),
    DrawingTooLarge: ProblemType(413, "drawing-too-large", "Drawing too large"),
    HelperLost: ProblemType(503, "decoder-unavailable", "Decoder unavailable"),
}
IMAGE_ERRORS = (EmptyImage, NotAnImage, UnknownFormat, DamagedImage, TooManyPixels, TooComplex, HelperLost)
INTERNAL = ProblemType(500, "internal", "Internal error")


def type_of(error: type[BaseException]) -> ProblemType:
    """Returns the problem type of an error class; ``INTERNAL`` for an unforeseen error."""
    if issubclass(error, ServiceError):
        return error.problem_type
    return next((found for base, found in OTHER_ERRORS.items() if issubclass(error, base)), INTERNAL)


def problem_of(error: BaseException, path: str = "") -> Problem:
    """Returns the problem that the client gets; an unforeseen error is logged and discloses nothing."""
    match error:
        case HTTPException():
            title = HTTPStatus(error.status_code).phrase
            slug = title.lower().replace(" ", "-")
            return ProblemType(error.status_code, slug, title).problem(_http_detail(error, path))
        case RequestValidationError():
            return InvalidQuery.problem_type.problem("; ".join(_validation_sentence(e) for e in error.errors()))
        case DataError():
            logger.warning("%s", error)
            return type_of(type(error)).problem(error.public)
        case MetricsUnavailable():
            logger.warning("%s (%s)", error, error.__cause__)
    found = type_of(type(error))
    if found is INTERNAL:
        logger.error("unexpected error", exc_info=error)
    return found.problem("An internal error occurred: the log has the details." if found is INTERNAL else str(error))


def route_path(scope: Scope) -> str:
    """Returns the path of a request without the root path."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def render(error: Exception, path: str) -> Response:
    """Returns the response to a request for ``path`` that failed with ``error``.

    Under ``/v2`` the body also has the Open Inference Protocol's key ``error``.
    """
    if isinstance(error, ClientDisconnect):  # nobody reads this, and nothing went wrong
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    problem = counted_problem(error, path)
    headers = _headers(error)
    members = problem.model_dump() | ({"error": problem.detail} if path.startswith("/v2/") or path == "/v2" else {})
    return Response(to_json(members), problem.status, headers, MEDIA_TYPE)


def _headers(error: Exception) -> Mapping[str, str] | None:
    match error:
        case Overloaded():
            return {"Retry-After": str(error.seconds)}
        case HelperLost():
            return RETRY_AFTER
        case HTTPException(status_code=405):
            return {"Allow": _allowed(error)}
    return getattr(error, "headers", None)


def _allowed(error: HTTPException) -> str:
    """Returns the methods that the path takes. Routes do not know of HEAD, which works where GET does."""
    methods = set(str((error.headers or {}).get("Allow", "GET")).split(", "))  # FastAPI's static files name none
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def counted_problem(error: BaseException, path: str = "") -> Problem:
    """As ``problem_of``; counts the problem, as one that is sent."""
    problem = problem_of(error, path)
    count_problems(problem.type.removeprefix(TYPE_PREFIX))
    return problem


def count_problems(slug: str, count: int = 1) -> None:
    """Counts responses with a problem of this type."""
    PROBLEMS.labels(slug).inc(count)


def problem_responses(*errors: type[Exception]) -> Responses:
    """Returns the OpenAPI ``responses`` of a route that can fail with ``errors``, with an example of each."""
    responses: Responses = {}
    for error in errors:
        found = type_of(error)
        response = responses.setdefault(found.status, _problem_response())
        response["description"] = " or ".join(filter(None, (response["description"], found.title.lower())))
        example = found.problem((error.__doc__ or "").split("\n")[0])
        response["content"][MEDIA_TYPE]["examples"][found.slug] = {"value": example.model_dump()}
    return responses


def add_exception_handlers(app: FastAPI) -> None:
    """Registers ``render`` for all expected errors."""
    for handled in (
        ClientDisconnect,
        ServiceError,
        InferenceError,
        FashionNetError,
        HTTPException,
        RequestValidationError,
    ):
        app.add_exception_handler(handled, _handle)


async def _handle(request: Request, error: Exception) -> Response:
    return render(error, route_path(request.scope))


def _problem_response() -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": "", "content": {MEDIA_TYPE: {"schema": schema, "examples": {}}}}


def _http_detail(error: HTTPException, path: str) -> str:
    if error.status_code == 404 and path.endswith("/"):
        return "There is no such path; try it without the slash at the end, or see /docs for all paths."
    if error.status_code == 405:
        return f"This path does not take that method: use {_allowed(error).replace(', ', ' or ')}."
    return "There is no such path; see /docs for all paths." if error.status_code == 404 else str(error.detail)


def _validation_sentence(error: Mapping[str, Any]) -> str:
    return (
        f"{'.'.join(str(part) for part in error['loc'][1:])}: {plain_message(error['msg'])}, not {error['input']!r:.80}"
    )
