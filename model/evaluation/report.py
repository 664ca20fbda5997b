"""How good a network is on labelled images: arrays in, a Report out."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from model.data import CLASSES, Split
from model.engines import Engine, EngineOutputs, log_softmax
from model.evaluation.calibration import brier_score, expected_calibration_error, reliability, wilson_interval
from model.metrics import ClassReport, Report

CHUNK = 100


def chunks(images: NDArray[np.uint8], size: int = CHUNK) -> Iterator[NDArray[np.uint8]]:
    """Images uint8 ``[N, 28, 28]`` in consecutive pieces of at most ``size``."""
    return (images[start : start + size] for start in range(0, len(images), size))


def compute_outputs(engine: Engine, images: NDArray[np.uint8]) -> EngineOutputs:
    """What the engine says of images uint8 ``[N, 28, 28]``, computed in chunks."""
    outputs = [engine.run(np.ascontiguousarray(chunk)) for chunk in chunks(images)]
    return EngineOutputs(*(np.concatenate(parts) for parts in zip(*outputs, strict=True)))


def evaluate(engine: Engine, split: Split, temperature: float = 1.0) -> Report:
    """Run the engine over a split and report."""
    return report(compute_outputs(engine, split.images).logits, split.labels, temperature=temperature)


def report(
    logits: NDArray[np.float32], labels: NDArray[np.uint8], classes: tuple[str, ...] = CLASSES, temperature: float = 1.0
) -> Report:
    """Logits ``[N, C]`` and true labels ``[N]`` -> the report, of softmax(logits / temperature)."""
    log_probs = log_softmax(logits / temperature)
    probabilities = np.exp(log_probs.astype(np.float64))
    bins = reliability(probabilities, labels)
    confusion = confusion_matrix(logits.argmax(1), labels, len(classes))
    hits = int(np.trace(confusion))
    return Report(
        count=len(labels),
        accuracy=hits / len(labels),
        accuracy_interval=wilson_interval(hits, len(labels)),
        loss=float(-log_probs[np.arange(len(labels)), labels].mean()),
        brier=brier_score(probabilities, labels),
        ece=expected_calibration_error(bins),
        reliability=bins,
        classes=_class_reports(confusion, classes),
        confusion_matrix=confusion.tolist(),
    )


def confusion_matrix(predicted: NDArray[np.int64], labels: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """Counts int64 ``[C, C]``: rows true, columns predicted."""
    cells = labels.astype(np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def _class_reports(confusion: NDArray[np.int64], classes: tuple[str, ...]) -> list[ClassReport]:
    hits, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(support, 1)
    f1 = 2 * hits / np.maximum(support + predicted, 1)
    return [
        ClassReport(label=label, precision=precision[i], recall=recall[i], f1=f1[i], support=support[i])
        for i, label in enumerate(classes)
    ]
