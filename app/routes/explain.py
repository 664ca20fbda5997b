"""``POST /explain``."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from app.dependencies import ClassifierDep
from app.disconnection import cancel_on_disconnect
from app.inference.admission import Admission
from app.problems import IMAGE_ERRORS, Responses, problem_responses
from app.routes.predict import BODY_ERRORS, ONE_BODY
from app.schemas import ExplainedPrediction
from app.uploads import read_picture

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
    summary="Explain a prediction",
    responses=_RESPONSES | problem_responses(*BODY_ERRORS, *IMAGE_ERRORS),
    response_class=Response,
    openapi_extra={"requestBody": ONE_BODY},
)
async def explain(
    request: Request,
    chosen: ClassifierDep,
    format_: Annotated[Literal["png", "json"], Query(alias="format", description="a picture, or the numbers")] = "png",
) -> Response:
    """Shows which parts of a picture the prediction rests on: green supports it, purple opposes it.

    The photo model says how much each place adds to the class. For the other models, squares of the picture are hidden
    one after the other: a square supports the prediction if hiding it makes the prediction less likely.
    """
    admission: Admission = request.app.state.admission
    admission.pictures.require()
    with admission.body() as memory:
        content = await read_picture(request, request.app.state.upload_limits, memory)
        explanation = await cancel_on_disconnect(request, chosen.explain(content, drawn=format_ == "png"))
    if explanation.drawing is not None:
        return Response(explanation.drawing, media_type="image/png")
    body = ExplainedPrediction.of(explanation)
    return Response(body.model_dump_json(exclude_none=True), media_type="application/json")
