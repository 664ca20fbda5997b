"""``POST /predict`` and ``POST /predict/batch``."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.routing import Route

from app.dependencies import classifier, find_classifier, image_wanted, wants_image
from app.disconnection import cancel_on_disconnect
from app.fast_path import DirectRoute
from app.inference.admission import Admission, BodyMemory, form_cost
from app.inference.errors import HelperLost, Overloaded, UnknownModel
from app.metrics import StageTimer
from app.problems import (
    IMAGE_ERRORS,
    BodyTooLarge,
    InvalidQuery,
    MalformedBody,
    MissingFile,
    SlowBody,
    TooManyFiles,
    UnsupportedBody,
    problem_responses,
)
from app.schemas import BatchPrediction
from app.settings import Settings
from app.uploads import Limits, declared_length, read_picture, read_uploads
from model import Prediction
from model.prediction import PREDICTION

router = APIRouter(tags=["prediction"])

BODY_ERRORS = (
    MalformedBody, UnsupportedBody, BodyTooLarge, SlowBody, TooManyFiles, MissingFile, UnknownModel, InvalidQuery,
    Overloaded,
)  # fmt: skip
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PICTURE_TYPES = [f"image/{kind}" for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff")]


def _form(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return {"multipart/form-data": {"schema": {"type": "object", "required": [name], "properties": {name: schema}}}}


_ONE_FILE = {"type": "string", "format": "binary", "description": "PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF or HEIC"}
ONE_BODY = {"required": True, "content": _form(_ONE_FILE, "file") | dict.fromkeys(_PICTURE_TYPES, _BINARY)}
_MANY_BODY = {"required": True, "content": _form({"type": "array", "items": _ONE_FILE, "minItems": 1}, "files")}


@router.post(
    "/predict",
    summary="Classify one picture",
    response_description="the prediction",
    response_model=Prediction,
    responses=problem_responses(*BODY_ERRORS, *IMAGE_ERRORS),
    openapi_extra={"requestBody": ONE_BODY},
    response_model_exclude_none=True,
    dependencies=[Depends(classifier), Depends(image_wanted)],
)
async def predict(request: Request) -> Response:
    """Classifies one picture: the form field `file`, or the picture itself as the body.

    A 28x28 greyscale picture is used exactly as it is if it is light on a dark background as in the data set. Any other
    picture is converted to that form first. Photos go to a model of their own if the query names no model.
    """
    state, timer = request.app.state, StageTimer()
    chosen, with_image = find_classifier(request), wants_image(request)
    admission: Admission = state.admission
    admission.queue_of(declared_length(request)).require()  # before the body is read, which is cheapest
    with admission.body() as memory:
        content = await read_picture(request, state.upload_limits, memory)
        timer.end("read")
        prepared = chosen.prepare(content)
        work = chosen.predict(prepared, timer, with_image=with_image)
        prediction = await (cancel_on_disconnect(request, work) if chosen.runs_in_thread(prepared) else work)
    response = Response(PREDICTION.dump_json(prediction, exclude_none=True), media_type="application/json")
    timer.end("encode")
    return response


@router.post(
    "/predict/batch",
    summary="Classify many pictures",
    response_description="a prediction or an error for each picture, in their order",
    response_model=BatchPrediction,
    responses=problem_responses(*BODY_ERRORS, HelperLost),
    response_model_exclude_none=True,
    openapi_extra={"requestBody": _MANY_BODY},
    dependencies=[Depends(classifier), Depends(image_wanted)],
)
async def predict_batch(request: Request) -> Response:
    """Classifies many pictures; each file of the form gets a prediction or an `error`, in the order of the files."""
    state, chosen, with_image = request.app.state, find_classifier(request), wants_image(request)
    admission: Admission = state.admission
    admission.batches.require()
    expected = form_cost(declared_length(request), state.settings.max_files)
    with admission.batches.reserve(0, expected) as work, admission.body() as memory:
        arrived = asyncio.Event()
        contents = read_contents(request, state.settings, memory, arrived)
        predictions = chosen.predict_many(contents, memory, work, with_image=with_image)
        outcomes = await cancel_on_disconnect(request, predictions, arrived)
    if not outcomes:
        raise MissingFile("The form has no file: send them as  -F files=@shirt.png -F files=@bag.png")
    return Response(BatchPrediction.of(outcomes).model_dump_json(exclude_none=True), media_type="application/json")


async def read_contents(
    request: Request, settings: Settings, memory: BodyMemory, arrived: asyncio.Event
) -> AsyncIterator[bytes | Exception]:
    """Yields each file of a form, or the error of one that is too large; sets ``arrived`` after the last."""
    async for upload in read_uploads(request, Limits.of_batch(settings), memory):
        yield upload.read_or_error(settings.max_upload_bytes)
    arrived.set()


def direct_routes() -> dict[str, DirectRoute]:
    """Returns the direct routes of this module by path."""
    handlers = {"/predict": predict, "/predict/batch": predict_batch}
    return {path: DirectRoute(Route(path, handler, methods=["POST"])) for path, handler in handlers.items()}
