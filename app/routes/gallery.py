"""``GET /gallery``."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from app.deps import EvaluatorDep, PredictorDep
from app.errors import InvalidQuery, Responses, UnknownModel, declare
from app.evaluator import Selection
from model import DataError

router = APIRouter(tags=["evaluation"])

_RESPONSES: Responses = {
    200: {"content": {"image/png": {}}, "description": "a grid of captioned test images"},
    304: {"description": "the picture is the one whose ETag the request names"},
}


@router.get("/gallery", responses=_RESPONSES | declare(InvalidQuery, UnknownModel, DataError), response_class=Response)
async def gallery(
    evaluator: EvaluatorDep,
    predictor: PredictorDep,
    selection: Annotated[Selection, Query()],
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Test images with their predicted and true labels: a tick and blue where right, a cross and vermilion where wrong.

    The same query gives the same picture.
    """
    etag = f'"{hashlib.sha256(repr((evaluator.key(predictor), selection)).encode()).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if if_none_match and etag in if_none_match:
        return Response(status_code=304, headers=headers)
    return Response(await evaluator.draw_gallery(predictor, selection), headers=headers, media_type="image/png")
