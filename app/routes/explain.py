"""``POST /explain``."""

import asyncio
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json

from app.dependencies import PredictorDep, SettingsDep
from app.problems import IMAGE_ERRORS, InvalidQuery, Responses, declare
from app.routes.predict import BODY_ERRORS, ONE_BODY
from app.schemas import ExplanationAnswer
from app.uploads import read_picture
from model.explanation import draw_canvas, draw_heat_map

router = APIRouter(tags=["prediction"])

_RESPONSES: Responses = {
    200: {
        "model": ExplanationAnswer,
        "content": {"image/png": {}},
        "description": "the picture in grey under its heat map, or the numbers",
    }
}


@router.post(
    "/explain",
    responses=_RESPONSES | declare(*BODY_ERRORS, *IMAGE_ERRORS, InvalidQuery),
    response_class=Response,
    openapi_extra={"requestBody": ONE_BODY},
)
async def explain(
    request: Request,
    predictor: PredictorDep,
    settings: SettingsDep,
    format_: Annotated[Literal["png", "json"], Query(alias="format", description="a picture, or the numbers")] = "png",
) -> Response:
    """Which parts of a picture the answer rests on: vermilion speaks for it, blue against it.

    Squares of the picture are hidden one after the other; what makes the answer less likely when hidden spoke for it.
    """
    content = await read_picture(request, request.app.state.upload_limits)
    if format_ == "json":
        answer = ExplanationAnswer.of(await predictor.explain(content))
        return Response(to_json(answer, exclude_none=True), media_type="application/json")

    in_thread = partial(asyncio.get_running_loop().run_in_executor, predictor.executors.decoding)
    # The picture is decoded again, larger and in grey, while the network answers.
    decoding = in_thread(draw_canvas, content, settings.max_pixels)
    canvas, explanation = await asyncio.gather(decoding, predictor.explain(content))
    png = await in_thread(draw_heat_map, canvas, explanation.heat, explanation.prediction.preprocessing)
    return Response(png, media_type="image/png")
