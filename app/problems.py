"""What goes wrong over HTTP, and the one renderer that puts it as problem details (RFC 9457).

Service errors                          Errors of ``model`` (their tree is in model/errors.py)
ServiceError                            are given a status and a slug by the table below.
├── MissingFile         422
├── MalformedBody       400
├── UnsupportedBody     415
├── BodyTooLarge        413
├── SlowBody            408
├── TooManyFiles        413
├── UnknownModel        404
├── UnknownImage        404
├── InvalidQuery        422
├── InvalidInference    400
├── NotReady            503
└── Overloaded          429
"""

import logging
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Any, ClassVar, NamedTuple

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import Counter
from pydantic import BaseModel, Field
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.metrics import REJECTIONS
from model import FashionNetError
from model.errors import (
    DamagedImage,
    DataError,
    EmptyImage,
    NotAnImage,
    TooManyPixels,
    UnknownFormat,
)

logger = logging.getLogger("fashionnet")

TYPE_PREFIX = "urn:fashionnet:problem:"
MEDIA_TYPE = "application/problem+json"
Responses = dict[int | str, dict[str, Any]]
"""OpenAPI responses by status, as a route takes them."""


class Problem(BaseModel):
    """Problem details for HTTP APIs, RFC 9457."""

    type: str = Field(examples=[TYPE_PREFIX + "not-an-image"])
    title: str = Field(examples=["Not an image"])
    status: int = Field(examples=[415])
    detail: str = Field(description="what happened and what to do about it")


class Kind(NamedTuple):
    """What all problems of one type share."""

    status: int
    slug: str
    title: str

    def problem(self, detail: str) -> Problem:
        """The problem of this kind with its own ``detail``."""
        return Problem(type=TYPE_PREFIX + self.slug, title=self.title, status=self.status, detail=detail)


class ServiceError(Exception):
    """The base of what the HTTP service raises on purpose; the message is the problem's ``detail``."""

    kind: ClassVar[Kind]
    headers: ClassVar[Mapping[str, str]] = {}


class MissingFile(ServiceError):
    """A multipart body without the file it should hold."""

    kind = Kind(422, "missing-file", "No file in the request")


class MalformedBody(ServiceError):
    """A multipart body that does not follow the format."""

    kind = Kind(400, "malformed-body", "Malformed multipart body")


class UnsupportedBody(ServiceError):
    """A body of a content type that cannot hold a picture."""

    kind = Kind(415, "unsupported-body", "Unsupported content type")


class BodyTooLarge(ServiceError):
    """More bytes than are accepted."""

    kind = Kind(413, "too-large", "Upload too large")


class SlowBody(ServiceError):
    """A body that did not arrive in time."""

    kind = Kind(408, "slow-body", "Request timeout")
    headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}


class TooManyFiles(ServiceError):
    """More files than one request may hold."""

    kind = Kind(413, "too-many-files", "Too many files")


class UnknownModel(ServiceError):
    """No artefact of that name is served."""

    kind = Kind(404, "unknown-model", "Unknown model")


class UnknownImage(ServiceError):
    """The test set has no image of that number."""

    kind = Kind(404, "unknown-image", "Unknown image")


class InvalidQuery(ServiceError):
    """A query parameter that cannot be."""

    kind = Kind(422, "invalid-query", "Invalid query")


class InvalidInference(ServiceError):
    """An inference request that does not follow the Open Inference Protocol, or asks for what there is not."""

    kind = Kind(400, "invalid-inference", "Invalid inference request")


class NotReady(ServiceError):
    """The service does not answer predictions now."""

    kind = Kind(503, "not-ready", "Not ready")
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class Overloaded(ServiceError):
    """The queue for the engine is full."""

    kind = Kind(429, "overloaded", "Too many requests")
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}

    def __init__(self) -> None:
        super().__init__("As many pictures wait here as may: try again in a second.")


MODEL_ERRORS: dict[type[FashionNetError], Kind] = {
    EmptyImage: Kind(422, "empty-image", "Empty image"),
    NotAnImage: Kind(415, "not-an-image", "Not an image"),
    UnknownFormat: Kind(415, "unknown-format", "Unsupported image format"),
    DamagedImage: Kind(422, "damaged-image", "Damaged image"),
    TooManyPixels: Kind(413, "too-many-pixels", "Too many pixels"),
    DataError: Kind(503, "data-unavailable", "Data set unavailable"),
}
IMAGE_ERRORS = (EmptyImage, NotAnImage, UnknownFormat, DamagedImage, TooManyPixels)
INTERNAL = Kind(500, "internal", "Internal error")


def kind_of(error: type[BaseException]) -> Kind:
    """The kind of an error class of ours; ``INTERNAL`` for any other."""
    if issubclass(error, ServiceError):
        return error.kind
    return next((kind for base, kind in MODEL_ERRORS.items() if issubclass(error, base)), INTERNAL)


def problem_of(error: BaseException, path: str = "") -> Problem:
    """The problem that ``error`` is to the client; what is not ours says nothing of itself."""
    match error:
        case HTTPException():
            title = HTTPStatus(error.status_code).phrase
            return Kind(error.status_code, title.lower().replace(" ", "-"), title).problem(_http_detail(error, path))
        case RequestValidationError():
            return InvalidQuery.kind.problem("; ".join(_validation_sentence(e) for e in error.errors()))
        case DataError():
            logger.warning("%s", error)
            return kind_of(type(error)).problem(error.public)
    kind = kind_of(type(error))
    if kind is INTERNAL:
        logger.error("not foreseen", exc_info=error)
    return kind.problem("Something went wrong here; it has been logged." if kind is INTERNAL else str(error))


def render(error: Exception, path: str = "") -> Response:
    """The answer to a request for ``path`` that ended in ``error``.

    Under ``/v2`` it has the Open Inference Protocol's key ``error`` beside the members of a problem.
    """
    problem = problem_of(error, path)
    headers = getattr(error, "headers", None)
    _rejections(problem.type.removeprefix(TYPE_PREFIX)).inc()
    return Response(_body(problem, open_inference=path.startswith("/v2")), problem.status, headers, MEDIA_TYPE)


def refuse() -> Response:
    """The answer of ``render`` to Overloaded, made once: refusing must cost little, or it cannot help."""
    _rejections(Overloaded.kind.slug).inc()
    return _refusal()


@cache
def _refusal() -> Response:
    body = _body(problem_of(Overloaded()), open_inference=False)
    return Response(body, Overloaded.kind.status, Overloaded.headers, MEDIA_TYPE)


@cache
def _rejections(cause: str) -> Counter:
    return REJECTIONS.labels(cause)


def _body(problem: Problem, *, open_inference: bool) -> bytes:
    return to_json(problem.model_dump() | ({"error": problem.detail} if open_inference else {}))


def declare(*errors: type[Exception]) -> Responses:
    """The OpenAPI ``responses`` of a route that can end in ``errors``, with an example each."""
    responses: Responses = {}
    for error in errors:
        kind = kind_of(error)
        response = responses.setdefault(kind.status, _problem_response())
        response["description"] = " or ".join(filter(None, (response["description"], kind.title.lower())))
        example = kind.problem((error.__doc__ or "").split("\n")[0])
        response["content"][MEDIA_TYPE]["examples"][kind.slug] = {"value": example.model_dump()}
    return responses


def install(app: FastAPI) -> None:
    """Let ``render`` answer for everything that goes wrong."""
    for handled in (ServiceError, FashionNetError, HTTPException, RequestValidationError):
        app.add_exception_handler(handled, _handle)
    app.add_middleware(LastResort)


class LastResort:
    """Answers 500 for what nobody foresaw, and leaves the connection fit for the next request.

    Starlette's own last resort raises the error again after its answer. uvicorn then closes the connection
    without having announced it, and a client that sends its next request at that moment loses it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and answer in its place where it failed before its first byte."""
        begun = False

        async def watch(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as error:
            if begun:  # half an answer cannot be mended; the server breaks the connection off
                raise
            await render(error, scope["path"])(scope, receive, send)


async def _handle(request: Request, error: Exception) -> Response:
    return render(error, request.url.path)


def _problem_response() -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": "", "content": {MEDIA_TYPE: {"schema": schema, "examples": {}}}}


def _http_detail(error: HTTPException, path: str) -> str:
    if error.status_code == 404 and path.endswith("/"):
        return "There is no such path; try it without the slash at the end, or see /docs for all paths."
    remedies = {404: "There is no such path; see /docs for all paths.", 405: "This path does not take that method."}
    return remedies.get(error.status_code, str(error.detail))


def _validation_sentence(error: Mapping[str, Any]) -> str:
    return f"{'.'.join(str(part) for part in error['loc'][1:])}: {error['msg']}, not {error['input']!r:.80}"
