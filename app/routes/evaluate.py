"""``GET /evaluate`` and its picture."""

from fastapi import APIRouter, Response

from app.dependencies import EvaluatorDep, PredictorDep
from app.problems import InvalidQuery, Responses, UnknownModel, declare
from app.schemas import Evaluation, Progress
from model.errors import DataError
from model.plots import draw_confusion

router = APIRouter(tags=["evaluation"])
FAILURES = declare(InvalidQuery, UnknownModel, DataError)
PICTURE: Responses = {200: {"content": {"image/png": {}}, "description": "rows true, columns predicted"}}


@router.get("/evaluate", responses=FAILURES)
async def evaluate(evaluator: EvaluatorDep, predictor: PredictorDep) -> Evaluation:
    """How the served network does on the 10,000 test images.

    It is measured when first asked for, which takes some seconds, and kept; predictions go on meanwhile.
    """
    return await evaluator.evaluate(predictor)


@router.get("/evaluate/progress", responses=declare(InvalidQuery, UnknownModel, DataError))
async def progress(evaluator: EvaluatorDep, predictor: PredictorDep) -> Progress:
    """How far the measurement has come in the process that answers."""
    return evaluator.progress(predictor)


@router.get(
    "/evaluate/confusion.png",
    responses=PICTURE | FAILURES,
    response_class=Response,
)
async def confusion(evaluator: EvaluatorDep, predictor: PredictorDep) -> Response:
    """The confusion matrix as a heat map."""
    evaluation = await evaluator.evaluate(predictor)
    return Response(draw_confusion(evaluation.confusion_matrix, predictor.card.classes), media_type="image/png")
