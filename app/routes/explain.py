"""``POST /explain``."""

import asyncio
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from app.dependencies import ClassifierDep, SettingsDep
from app.problems import IMAGE_ERRORS, InvalidQuery, Responses, problem_responses
from app.routes.predict import BODY_ERRORS, ONE_BODY
from app.schemas import ExplainedPrediction
from app.uploads import read_picture
from model.plots import draw_canvas, draw_heat_map

router = APIRouter(tags=["prediction"])

_RESPONSES: Responses = {
    200: {
        "model": ExplainedPrediction,
        "content": {"image/png": {}},
        "description": "the picture in grey under its heat map, or the numbers",
    }
}


@router.post(
    "/explain",
    responses=_RESPONSES | problem_responses(*BODY_ERRORS, *IMAGE_ERRORS, InvalidQuery),
    response_class=Response,
    openapi_extra={"requestBody": ONE_BODY},
)
async def explain(
    request: Request,
    chosen: ClassifierDep,
    settings: SettingsDep,
    format_: Annotated[Literal["png", "json"], Query(alias="format", description="a picture, or the numbers")] = "png",
) -> Response:
    """Shows which parts of a picture the prediction rests on: green supports it, purple opposes it.

    The photo model says how much each place adds to the class. For the other models, squares of the picture are hidden
    one after the other: a square supports the prediction if hiding it makes the prediction less likely.
    """
    content = await read_picture(request, request.app.state.upload_limits)
    if format_ == "json":
        body = ExplainedPrediction.of(await chosen.explain(content))
        return Response(body.model_dump_json(exclude_none=True), media_type="application/json")

    in_thread = partial(asyncio.get_running_loop().run_in_executor, chosen.executors.decoding)
    # The picture is decoded again, larger and in grey, while the network answers.
    decoding = in_thread(draw_canvas, content, settings.max_pixels)
    canvas, explanation = await asyncio.gather(decoding, chosen.explain(content))
    png = await in_thread(draw_heat_map, canvas, explanation.attribution, explanation.prediction.preprocessing)
    return Response(png, media_type="image/png")
