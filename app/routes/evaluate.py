"""``GET /evaluate`` and its picture."""

from fastapi import APIRouter, Response

from app.dependencies import AdmissionDep, EvaluatorDep, PredictorDep
from app.inference.admission import DRAWING_COST
from app.inference.errors import DrawingTooLarge, HelperLost, Overloaded, UnknownModel
from app.inference.evaluator import Evaluation, Progress
from app.problems import InvalidQuery, Responses, problem_responses
from model.errors import DataError
from model.plots import draw_confusion

router = APIRouter(tags=["evaluation"])
ERRORS = (InvalidQuery, UnknownModel, DataError)
FAILURES = problem_responses(*ERRORS)
PICTURE: Responses = {200: {"content": {"image/png": {}}, "description": "rows true, columns predicted"}}


@router.get(
    "/evaluate", summary="Measure a model", response_description="the figures on the test set", responses=FAILURES
)
async def evaluate(evaluator: EvaluatorDep, predictor: PredictorDep) -> Evaluation:
    """Measures a model on the 10,000 test images.

    The first request takes a second, or minutes for a model of photos; the result is kept. Predictions go on meanwhile.
    """
    return await evaluator.evaluate(predictor)


@router.get(
    "/evaluate/progress",
    summary="See how far the measurement is",
    response_description="the images that are measured, and all of them",
    responses=FAILURES,
)
async def progress(evaluator: EvaluatorDep, predictor: PredictorDep) -> Progress:
    """Returns the progress of the measurement in the process that responds."""
    return evaluator.progress(predictor)


@router.get(
    "/evaluate/confusion.png",
    summary="Draw the confusion matrix",
    responses=PICTURE | problem_responses(*ERRORS, Overloaded, DrawingTooLarge, HelperLost),
    response_class=Response,
)
async def confusion(evaluator: EvaluatorDep, predictor: PredictorDep, admission: AdmissionDep) -> Response:
    """Draws the confusion matrix as a heat map."""
    evaluation = await evaluator.evaluate(predictor)
    with admission.drawings.admit(DRAWING_COST):
        png = await predictor.draw(draw_confusion, evaluation.confusion_matrix, predictor.card.classes)
    return Response(png, media_type="image/png")
