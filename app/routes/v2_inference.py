"""From the images of an inference request to the outputs that it names, over HTTP and gRPC alike."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.inference.admission import IMAGE_COST, batch_cost
from app.inference.predictor import Classifier, Predictor
from app.problems import InvalidInference
from app.routes.v2_codec import OUTPUTS, InferenceRequest, Output, RequestedOutput
from app.routes.v2_request import InputImages
from model import ModelCard, Picture
from model.engines import ImageOutput, log_softmax, softmax
from model.prediction import stack
from model.preprocessing import IDENTITY


async def run_inference(
    requested: InferenceRequest, images: InputImages, predictor: Predictor, classifier: Classifier
) -> list[Output]:
    """Returns the outputs for these images, and counts them.

    Raises:
        InvalidInference: the request names an unknown output, or classifications that it does not have.
        ImageError: an encoded picture cannot be used.
        Overloaded: the images would wait too long.
    """
    wanted = _wanted(requested)
    results = await _infer(images, predictor, classifier)
    predictor.observe_outputs(results)
    logits = np.array([output.logits for output in results], np.float32).reshape(-1, len(predictor.card.classes))
    return [_output(output, requested.wants_binary(output), logits, predictor.card) for output in wanted]


async def _infer(images: InputImages, predictor: Predictor, classifier: Classifier) -> list[ImageOutput]:
    """Returns the output for each image; one image goes through the micro-batcher, many in batches."""
    admission = predictor.admission
    if isinstance(images, list) and len(images) == 1:
        return [(await classifier.infer(classifier.prepare(images[0]))).output]
    if not isinstance(images, list) and len(images) == 1:
        with admission.images.admit():
            return [(await predictor.submit(Picture(images[0], IDENTITY))).output]
    cost = batch_cost(sum(map(len, images)), len(images)) if isinstance(images, list) else IMAGE_COST * len(images)
    admission.batches.require()
    with admission.batches.reserve(cost):
        async with admission.chunk_turns:
            with admission.batches.measure(cost):
                return await _infer_many(images, predictor, classifier)


async def _infer_many(images: InputImages, predictor: Predictor, classifier: Classifier) -> list[ImageOutput]:
    if isinstance(images, list) and images:
        decoder, budget = classifier.decoder, classifier.decoder.budget()
        stacked = stack([await decoder.preprocess(content, classifier.inputs, budget) for content in images])
    else:
        stacked = np.asarray(images, np.uint8).reshape(-1, *predictor.card.input.shape)
    return list((await predictor.run(stacked)).image_outputs())


def _wanted(requested: InferenceRequest) -> list[RequestedOutput]:
    """Returns the outputs that the request names, or all; raises InvalidInference, before the images cost anything."""
    if requested.outputs is None:
        return [RequestedOutput(name=name) for name in OUTPUTS]
    for output in requested.outputs:
        if output.name not in OUTPUTS:
            raise InvalidInference(f"There is no output {output.name!r:.40}; there are {', '.join(OUTPUTS)}.")
        best = output.parameters.get("classification")
        if best is not None and (OUTPUTS[output.name] == "BYTES" or type(best) is not int or best < 1):
            raise InvalidInference(
                f"{output.name}: classification is a positive whole number, for logits, log_probs or probabilities "
                "only."
            )
    return requested.outputs


def _output(output: RequestedOutput, binary: bool, logits: NDArray[np.float32], card: ModelCard) -> Output:
    calibrated = logits / np.float32(card.temperature)
    match output.name:
        case "label":
            values = _labels(logits, card)
        case "logits":
            values = logits
        case "log_probs":
            values = log_softmax(calibrated)
        case _:
            values = softmax(calibrated)
    best = output.parameters.get("classification")
    return Output(output.name, values if best is None else _classification(best, values, card), binary)


def _labels(logits: NDArray[np.float32], card: ModelCard) -> NDArray[Any]:
    names = np.array([label.encode() for label in card.classes], object)
    labels: NDArray[Any] = names[logits.argmax(1)]
    return labels


def _classification(best: int, values: NDArray[Any], card: ModelCard) -> NDArray[Any]:
    """Returns the ``best`` highest values of each row as BYTES ``value:index:label``."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :best]
    cells = [
        [f"{row[i]:f}:{i}:{card.classes[i]}".encode() for i in ids] for row, ids in zip(values, order, strict=True)
    ]
    return np.array(cells, object).reshape(order.shape)
