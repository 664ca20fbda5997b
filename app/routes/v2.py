"""The Open Inference Protocol v2 under ``/v2``: inference, for the clients of Triton, KServe and MLServer."""

import asyncio
import zlib
from collections.abc import Iterable
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.routing import Route

from app.disconnection import cancel_on_disconnect
from app.fast_path import DirectRoute
from app.inference.admission import BodyMemory
from app.inference.decoding import Decoder
from app.inference.errors import Overloaded, UnknownModel
from app.inference.predictor import Predictor, Predictors
from app.inference.sandbox import CallEnded
from app.metrics import measure_inference
from app.problems import (
    IMAGE_ERRORS,
    BodyTooLarge,
    InvalidInference,
    InvalidQuery,
    SlowBody,
    TooManyFiles,
    problem_responses,
)
from app.routes.v2_codec import InferenceRequest, OutputTensor, encode_response
from app.routes.v2_inference import run_inference
from app.routes.v2_metadata import VERSION_PARAMETER, find, served
from app.routes.v2_request import Body, InferenceLimits, InputImages, read_inference
from app.settings import Settings
from app.uploads import declared_length, read_body
from model.inputs import ModelInput

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

LENGTH_HEADER = "inference-header-content-length"
LARGE_BYTES = 1_000_000
"""A larger body is read in a thread. One of this size, with a binary tensor, takes about a millisecond."""


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """Returns a JSON schema with the definitions in place of the references: FastAPI registers no ``$defs``."""
    match schema:
        case {"$ref": reference}:
            return _inlined(definitions[reference.rpartition("/")[2]], definitions)
        case dict():
            return {key: _inlined(value, definitions) for key, value in schema.items() if key != "$defs"}
        case list():
            return [_inlined(item, definitions) for item in schema]
    return schema


_SCHEMA = InferenceRequest.model_json_schema()
_TROUSER = (
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcCAAAAABXZoBIAAAAJUlEQVR42mNgoAlghLNOwFkWMAYTPp0DL2lhMcgcNCpJoiSNAAD8UgGcyibL9wAAAABJRU5E"
    "rkJggg=="
)
"""A PNG of 94 bytes."""
_ASK = {
    "inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", "data": [_TROUSER]}],
    "outputs": [{"name": "label"}],
}
_JSON = {"schema": _inlined(_SCHEMA, _SCHEMA["$defs"]), "example": _ASK}
_REQUEST: dict[str, Any] = {"requestBody": {"content": {"application/json": _JSON}, "required": True}}
_EXAMPLE = {
    "model_name": "fashionnet",
    "model_version": "0123456789ab",
    "outputs": [{"name": "label", "shape": [1], "datatype": "BYTES", "data": ["Trouser"]}],
}
_ANSWER = {
    "type": "object",
    "required": ["model_name", "model_version", "outputs"],
    "properties": {
        "model_name": {"type": "string"},
        "model_version": {"type": "string"},
        "id": {"type": "string", "description": "that of the request, if it has one"},
        "outputs": {"type": "array", "items": OutputTensor.model_json_schema()},
    },
}
_INFER = problem_responses(
    BodyTooLarge, TooManyFiles, SlowBody, InvalidInference, Overloaded, UnknownModel, InvalidQuery, *IMAGE_ERRORS
) | {
    200: {
        "description": "the outputs that the request names",
        "content": {"application/json": {"schema": _ANSWER, "example": _EXAMPLE}},
    }
}
_infer_route = partial(router.post, responses=_INFER, dependencies=[Depends(served)])


@_infer_route(
    "/models/{name}/versions/{version}/infer",
    summary="Run a version of a model",
    openapi_extra=_REQUEST | VERSION_PARAMETER,
)
@_infer_route("/models/{name}/infer", summary="Run a model", openapi_extra=_REQUEST)
async def infer(request: Request) -> Response:
    """Runs the model on `images`: UINT8 or FP32 (0 to 255) of the shape in its metadata, or encoded as BYTES.

    Grey images may have a channel: `[-1, 1, 28, 28]`.

    Returns `log_probs`, `logits`, `probabilities` and `label`, or those that `outputs` names, as JSON or binary.
    """
    predictors: Predictors = request.app.state.predictors
    predictor = find(predictors, **request.path_params)
    with measure_inference(predictor.card.name):
        return await _respond(request, predictors, predictor)


async def _respond(request: Request, predictors: Predictors, predictor: Predictor) -> Response:
    predictor.admission.queue_of(declared_length(request)).require()
    with predictor.admission.body() as memory:
        requested, images = await _read(request, memory, predictor.card.input)
        work = run_inference(requested, images, predictor, predictors.classifier(predictor.card.name))
        is_quick = not isinstance(images, list) and len(images) == 1
        outputs = await (work if is_quick else cancel_on_disconnect(request, work))
    head = {"model_name": predictor.card.name, "model_version": predictor.card.version}
    head |= {"id": requested.id} if requested.id else {}
    content, json_length = encode_response(head, outputs)
    headers = {} if json_length is None else {LENGTH_HEADER: str(json_length)}
    content, encoding = compress(content, request.headers.get("accept-encoding", ""))
    media_type = "application/json" if json_length is None else "application/octet-stream"
    return Response(content, headers=headers | encoding, media_type=media_type)


async def _read(request: Request, memory: BodyMemory, model_input: ModelInput) -> tuple[InferenceRequest, InputImages]:
    """Returns the request and its images; the helper process reads what takes long."""
    settings: Settings = request.app.state.settings
    decoder: Decoder = request.app.state.predictors.decoder
    encoding = request.headers.get("content-encoding", "identity").lower()
    content = await read_body(request, settings.max_request_bytes, settings.body_timeout_seconds, memory)
    body = Body(content, encoding, _json_length(request))
    limits = InferenceLimits(min(settings.max_json_bytes, settings.max_request_bytes), settings.max_files)
    if body.is_quick and len(content) <= LARGE_BYTES:
        return read_inference(body, model_input, limits)
    if body.is_quick:
        return await asyncio.to_thread(read_inference, body, model_input, limits)
    try:
        result = await decoder.call(read_inference, body, model_input, limits)
    except CallEnded:
        raise BodyTooLarge("The JSON takes too long or too much memory to read: send the tensors binary.") from None
    return result


def compress(content: bytes, accepted: str) -> tuple[bytes, dict[str, str]]:
    """Returns ``content``, compressed if the client accepts gzip or deflate alone, and the header that says so.

    A client that only lists what it could read (browsers, httpx) gets the bytes as they are: on a fast network
    compressing takes longer than sending.
    """
    if accepted not in ("gzip", "deflate"):
        return content, {}
    packer = zlib.compressobj(level=1, wbits=31 if accepted == "gzip" else 15)
    return packer.compress(content) + packer.flush(), {"Content-Encoding": accepted}


def _json_length(request: Request) -> int | None:
    value = request.headers.get(LENGTH_HEADER)
    if value is None:
        return None
    if not (value.isdecimal() and len(value) < 20):
        raise InvalidInference(f"Inference-Header-Content-Length is {value!r:.40}: send a number of bytes.")
    return int(value)


def direct_routes(names: Iterable[str]) -> dict[str, DirectRoute]:
    """Returns the direct routes of this module by path, for the models of these names."""
    route = Route(f"{router.prefix}/models/{{name}}/infer", infer, methods=["POST"])
    return {route.path.format(name=name): DirectRoute(route, {"name": name}) for name in names}
