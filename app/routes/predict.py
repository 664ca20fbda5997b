"""``POST /predict`` and ``POST /predict/batch``."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic_core import to_json

from app.dependencies import chosen_predictor, find_predictor, image_wanted, wants_image
from app.fast_path import Lane
from app.inference.batch_request import ManyPictures
from app.metrics import StageTimer
from app.problems import (
    IMAGE_ERRORS,
    BodyTooLarge,
    InvalidQuery,
    MalformedBody,
    MissingFile,
    Overloaded,
    SlowBody,
    TooManyFiles,
    UnknownModel,
    UnsupportedBody,
    declare,
    refuse,
)
from app.schemas import BatchAnswer
from app.uploads import Limits, Upload, hand_over_uploads, read_picture
from model import Prediction

router = APIRouter(tags=["prediction"])

LEFT = 499
"""nginx's status for a caller that closed the connection; nobody reads it but the metrics."""

BODY_ERRORS = (
    MalformedBody, UnsupportedBody, BodyTooLarge, SlowBody, TooManyFiles, MissingFile, UnknownModel, InvalidQuery,
    Overloaded,
)  # fmt: skip
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PICTURE_TYPES = [f"image/{kind}" for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff")]


def _form(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return {"multipart/form-data": {"schema": {"type": "object", "required": [name], "properties": {name: schema}}}}


_ONE_FILE = {"type": "string", "format": "binary", "description": "PNG, JPEG, WebP, GIF, BMP or TIFF"}
ONE_BODY = {"required": True, "content": _form(_ONE_FILE, "file") | dict.fromkeys(_PICTURE_TYPES, _BINARY)}
_MANY_BODY = {"required": True, "content": _form({"type": "array", "items": _ONE_FILE}, "files")}


@router.post(
    "/predict",
    response_model=Prediction,
    responses=declare(*BODY_ERRORS, *IMAGE_ERRORS),
    openapi_extra={"requestBody": ONE_BODY},
    response_model_exclude_none=True,
    dependencies=[Depends(chosen_predictor), Depends(image_wanted)],
)
async def predict(request: Request) -> Response:
    """Classify one picture: the form field `file`, or the picture itself as the body.

    A 28x28 greyscale picture is used exactly as it is, light on a dark background as in the data set. Anything else
    is brought into that form first, and photos are answered by a network of their own where the query names none.
    """
    state, timer = request.app.state, StageTimer()
    predictor = find_predictor(request)
    if predictor.batcher.full:  # before the body is read: that is cheapest
        return refuse()
    content = await read_picture(request, state.upload_limits)
    timer.end("read")
    work = predictor.predict(content, timer, with_image=wants_image(request))
    prediction = await (unless_left(request, work) if predictor.is_slow(content) else work)
    if prediction is None:
        return Response(status_code=LEFT)
    response = Response(to_json(prediction, exclude_none=True), media_type="application/json")
    timer.end("encode")
    return response


async def unless_left(request: Request, work: Coroutine[Any, Any, Prediction]) -> Prediction | None:
    """What ``work`` comes to; None, and the work cancelled, where the caller leaves before.

    The server cancels nothing by itself. Watching costs some twenty microseconds, so only slow networks are worth it.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        return await working if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()


@router.post(
    "/predict/batch",
    response_model=BatchAnswer,
    responses=declare(*BODY_ERRORS),
    response_model_exclude_none=True,
    openapi_extra={"requestBody": _MANY_BODY},
    dependencies=[Depends(chosen_predictor), Depends(image_wanted)],
)
async def predict_batch(request: Request) -> Response:
    """Classify many pictures; each file of the form gets its own answer, in their order: a prediction or an `error`."""
    settings, predictor = request.app.state.settings, find_predictor(request)
    pictures = ManyPictures(predictor, with_image=wants_image(request))

    async def take(upload: Upload) -> None:
        await pictures.add(upload.read_or_error(settings.max_upload_bytes))

    await hand_over_uploads(request, Limits.of_batch(settings), take)
    parts = await pictures.answers()
    if not parts:
        raise MissingFile("The form has no file: send them as  -F files=@shirt.png -F files=@bag.png")
    return Response(BatchAnswer.joined(parts), media_type="application/json")


LANES = {"/predict": Lane("/predict", predict), "/predict/batch": Lane("/predict/batch", predict_batch)}
