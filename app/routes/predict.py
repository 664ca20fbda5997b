"""``POST /predict`` and ``POST /predict/batch``."""

from typing import Any

from fastapi import APIRouter, Request

from app.deps import PredictorDep, SettingsDep
from app.errors import (
    IMAGE_ERRORS,
    BodyTooLarge,
    MalformedBody,
    MissingFile,
    Overloaded,
    TooManyFiles,
    UnknownModel,
    UnsupportedBody,
    declare,
)
from app.schemas import BatchAnswer
from app.uploads import Limits, read_picture, read_uploads
from model import Prediction

router = APIRouter(tags=["prediction"])

BODY_ERRORS = (MalformedBody, UnsupportedBody, BodyTooLarge, TooManyFiles, MissingFile, UnknownModel, Overloaded)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PICTURE_TYPES = [f"image/{kind}" for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff")]


def _form(schema: dict[str, Any], name: str) -> dict[str, Any]:
    return {"multipart/form-data": {"schema": {"type": "object", "required": [name], "properties": {name: schema}}}}


_ONE_FILE = {"type": "string", "format": "binary", "description": "PNG, JPEG, WebP, GIF, BMP or TIFF"}
_ONE_BODY = {"required": True, "content": _form(_ONE_FILE, "file") | dict.fromkeys(_PICTURE_TYPES, _BINARY)}
_MANY_BODY = {"required": True, "content": _form({"type": "array", "items": _ONE_FILE}, "files")}


@router.post("/predict", responses=declare(*BODY_ERRORS, *IMAGE_ERRORS), openapi_extra={"requestBody": _ONE_BODY})
async def predict(request: Request, predictor: PredictorDep, settings: SettingsDep) -> Prediction:
    """Classify one picture: the form field `file`, or the picture itself as the body.

    A 28x28 greyscale picture is used exactly as it is, light on a dark background as in the data set. Anything else
    is brought into that form first.
    """
    return await predictor.predict(await read_picture(request, settings.max_upload_bytes))


@router.post("/predict/batch", responses=declare(*BODY_ERRORS), openapi_extra={"requestBody": _MANY_BODY})
async def predict_batch(request: Request, predictor: PredictorDep, settings: SettingsDep) -> BatchAnswer:
    """Classify many pictures; each file of the form gets its own answer, in their order: a prediction or an `error`."""
    limits = Limits(settings.max_upload_bytes, settings.max_batch_bytes, settings.max_batch_files)
    uploads = await read_uploads(request, limits)
    if not uploads:
        raise MissingFile("The form has no file: send them as  -F files=@shirt.png -F files=@bag.png")
    contents = [upload.read_or_error(settings.max_upload_bytes) for upload in uploads]
    return BatchAnswer.of(await predictor.predict_many(contents))
