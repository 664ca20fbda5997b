"""How good a network is on labelled images: arrays in, a Report out."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model.data import CLASSES, Split
from model.engines import Engine, log_softmax

CHUNK = 100


class ClassReport(BaseModel):
    """One class: precision, recall and F1 in 0..1 (0 where undefined), support = true images of it."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


class Report(BaseModel):
    """What the network got right and wrong."""

    model_config = ConfigDict(frozen=True)

    count: int
    accuracy: float
    """0..1"""
    loss: float
    """Mean negative log-likelihood of the true class, in nats."""
    classes: list[ClassReport]
    confusion_matrix: list[list[int]]
    """Rows true, columns predicted."""


def chunks(images: NDArray[np.uint8], size: int = CHUNK) -> Iterator[NDArray[np.uint8]]:
    """Images uint8 ``[N, 28, 28]`` in consecutive pieces of at most ``size``."""
    return (images[start : start + size] for start in range(0, len(images), size))


def compute_logits(engine: Engine, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Logits float32 ``[N, 10]`` of images uint8 ``[N, 28, 28]``, computed in chunks."""
    return np.concatenate([engine.run(chunk).logits for chunk in chunks(images)])


def evaluate(engine: Engine, split: Split) -> Report:
    """Run the engine over a split and report."""
    return report(compute_logits(engine, split.images), split.labels)


def report(
    logits: NDArray[np.float32], labels: NDArray[np.uint8], classes: tuple[str, ...] = CLASSES, temperature: float = 1.0
) -> Report:
    """Logits ``[N, C]`` and true labels ``[N]`` -> the report; the loss is that of softmax(logits / temperature)."""
    log_probs = log_softmax(logits / temperature)
    confusion = confusion_matrix(logits.argmax(1), labels, len(classes))
    return Report(
        count=len(labels),
        accuracy=float(np.trace(confusion) / len(labels)),
        loss=float(-log_probs[np.arange(len(labels)), labels].mean()),
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
