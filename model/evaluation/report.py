"""Measures a model on labelled images: arrays in, a Report out."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from model.data import CLASSES, Split
from model.engines import Engine, EngineOutputs, log_softmax, run_batches
from model.evaluation.calibration import brier_score, expected_calibration_error, reliability, wilson_interval
from model.inputs import ModelInput
from model.metrics import ClassReport, Report
from model.preprocessing.fit import fit_data_set

IMAGES_AS_THEY_ARE = ModelInput()


def evaluate(
    engine: Engine, split: Split, temperature: float = 1.0, model_input: ModelInput = IMAGES_AS_THEY_ARE
) -> Report:
    """Runs the engine on a split, whose images are enlarged if the model takes larger ones.

    Probabilities are softmax(logits / temperature).
    """
    return report(run_data_set(engine, split.images, model_input).logits, split.labels, temperature)


def run_data_set(
    engine: Engine,
    images: NDArray[np.uint8],
    model_input: ModelInput,
    progress: Callable[[int], object] = lambda _: None,
) -> EngineOutputs:
    """Runs the engine on images uint8 ``[N, 28, 28]``, which are enlarged if the model takes larger ones.

    ``progress`` is called with the number of images of each batch.
    """
    return run_batches(engine, images, prepare=partial(fit_data_set, model_input=model_input), progress=progress)


def report(logits: NDArray[np.float32], labels: NDArray[np.uint8], temperature: float = 1.0) -> Report:
    """Returns the figures of logits ``[N, 10]`` against true labels ``[N]``.

    Probabilities are softmax(logits / temperature).
    """
    log_probs = log_softmax(logits / temperature)
    probabilities = np.exp(log_probs.astype(np.float64))
    bins = reliability(probabilities, labels)
    confusion = confusion_matrix(logits.argmax(1), labels)
    hits = int(np.trace(confusion))
    return Report(
        count=len(labels),
        accuracy=hits / len(labels),
        accuracy_interval=wilson_interval(hits, len(labels)),
        loss=float(-log_probs[np.arange(len(labels)), labels].mean()),
        brier=brier_score(probabilities, labels),
        ece=expected_calibration_error(bins),
        reliability=bins,
        classes=_class_reports(confusion),
        confusion_matrix=confusion.tolist(),
    )


def confusion_matrix(predicted: NDArray[np.int64], labels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Returns counts int64 ``[10, 10]``: true classes in rows, predicted classes in columns."""
    count = len(CLASSES)
    return np.bincount(labels.astype(np.int64) * count + predicted, minlength=count**2).reshape(count, count)


def _class_reports(confusion: NDArray[np.int64]) -> list[ClassReport]:
    hits, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    return [
        ClassReport(label=label, precision=precision[i], recall=recall[i], f1=f1[i], support=support[i])
        for i, label in enumerate(CLASSES)
    ]
