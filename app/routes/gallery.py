"""``GET /gallery``, as one picture and image by image."""

import hashlib
import io
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Response
from PIL import Image

from app import VERSION
from app.dependencies import AdmissionDep, EvaluatorDep, PredictorDep
from app.inference.admission import DRAWING_COST, IMAGE_COST
from app.inference.errors import DrawingTooLarge, HelperLost, Overloaded, UnknownImage, UnknownModel
from app.inference.evaluator import GalleryItems, Selection
from app.problems import InvalidQuery, Responses, problem_responses
from model.errors import DataError

router = APIRouter(tags=["evaluation"])

_RESPONSES: Responses = {
    200: {"content": {"image/png": {}}, "description": "a grid of captioned test images"},
    304: {"description": "the picture is the one whose ETag the request names"},
}


_IMAGE: Responses = {200: {"content": {"image/png": {}}, "description": "28x28 pixels, grey"}}


@router.get(
    "/gallery",
    summary="Draw test images with their predictions",
    responses=_RESPONSES
    | problem_responses(InvalidQuery, UnknownModel, Overloaded, DataError, DrawingTooLarge, HelperLost),
    response_class=Response,
)
async def gallery(
    evaluator: EvaluatorDep,
    predictor: PredictorDep,
    admission: AdmissionDep,
    selection: Annotated[Selection, Query()],
    if_none_match: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Draws test images with their predicted and true labels: blue and a tick if correct, else vermilion and a cross.

    The same query returns the same picture.
    """
    depends_on = (VERSION, evaluator.key(predictor), selection)
    etag = f'"{hashlib.sha256(repr(depends_on).encode()).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if if_none_match and etag in if_none_match:
        return Response(status_code=304, headers=headers)
    await evaluator.prepare(predictor, selection)
    with admission.drawings.admit(DRAWING_COST):
        png = await evaluator.draw_gallery(predictor, selection)
    return Response(png, headers=headers, media_type="image/png")


@router.get(
    "/gallery/items",
    summary="List test images with their predictions",
    response_description="the images in the order of the picture",
    responses=problem_responses(InvalidQuery, UnknownModel, Overloaded, DataError),
)
async def items(
    evaluator: EvaluatorDep,
    predictor: PredictorDep,
    admission: AdmissionDep,
    selection: Annotated[Selection, Query()],
) -> GalleryItems:
    """Lists the test images that `/gallery` draws for the same query."""
    await evaluator.prepare(predictor, selection)
    with admission.drawings.admit(IMAGE_COST * selection.page_size):
        return await evaluator.gallery(predictor, selection)


@router.get(
    "/gallery/images/{index}.png",
    summary="Get one test image",
    responses=_IMAGE | problem_responses(InvalidQuery, UnknownImage, DataError),
    response_class=Response,
)
async def image(evaluator: EvaluatorDep, index: Annotated[int, Path(description="index in the test set")]) -> Response:
    """Returns one test image, 28x28 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(await evaluator.image(index)).save(buffer, "PNG")
    return Response(buffer.getvalue(), headers={"Cache-Control": "max-age=86400"}, media_type="image/png")
