"""The figures of predictions for labelled photos."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from model.data import CLASSES
from model.evaluation.calibration import expected_calibration_error, reliability
from model.evaluation.ranking import auroc
from model.metrics import ReliabilityBin
from model.photos import ACCEPTED, NONE, Photos, likeliest_answers

RESAMPLES = 1000


class PhotoClass(BaseModel):
    """The predictions for the photos of one class."""

    model_config = ConfigDict(frozen=True)

    count: int
    recall: float
    """Share of correct predictions, 0..1; 0 for photos of none of the ten classes."""
    predicted: list[int]
    """How many photos were predicted as each of the ten classes."""
    in_distribution: float
    """Share with an OOD score of at most 1."""


class PhotoReport(BaseModel):
    """The figures on photos of the ten classes, and of other things (none)."""

    model_config = ConfigDict(frozen=True)

    count: int
    """Photos of the ten classes, shoes of another kind included."""
    senders: int
    accuracy: float
    accuracy_interval: tuple[float, float]
    """95 % interval: percentiles of bootstrap resamples of the senders, because photos of one sender are alike."""
    balanced_accuracy: float | None
    """Mean recall of those of the ten classes that are shown; None if only shoes of another kind are."""
    confidence: float
    """Mean probability of the predicted class."""
    ece: float
    """Expected calibration error, 15 bins, 0..1."""
    reliability: list[ReliabilityBin]
    classes: dict[str, PhotoClass]
    auroc: float | None
    """How well the OOD score tells none from the ten classes; None without such photos."""


class PhotoPredictions(NamedTuple):
    """Predictions for N photos."""

    probabilities: NDArray[np.floating]
    """``[N, 10]``"""
    ood_scores: NDArray[np.floating]
    """``[N]``"""


def photo_report(photos: Photos, predictions: PhotoPredictions) -> PhotoReport:
    """Returns the figures of the predictions for the photos, in the same order."""
    sets, known = photos.sets[:, : len(CLASSES)], photos.classes != NONE
    predicted = predictions.probabilities.argmax(1)
    correct = sets[np.arange(len(sets)), predicted]
    inside = predictions.ood_scores <= 1
    classes = {
        str(name): PhotoClass(
            count=int(rows.sum()),
            recall=float(correct[rows].mean()),
            predicted=np.bincount(predicted[rows], minlength=len(CLASSES)).tolist(),
            in_distribution=float(inside[rows].mean()),
        )
        for name, rows in _rows_by_class(photos)
    }
    recalls = [one.recall for name, one in classes.items() if name in CLASSES]
    labels = likeliest_answers(sets[known], predictions.probabilities[known])
    bins = reliability(predictions.probabilities[known], labels)
    scores = predictions.ood_scores
    return PhotoReport(
        count=int(known.sum()),
        senders=len(np.unique(photos.senders[known])),
        accuracy=float(correct[known].mean()),
        accuracy_interval=sender_interval(correct[known], photos.senders[known]),
        balanced_accuracy=float(np.mean(recalls)) if recalls else None,
        confidence=float(predictions.probabilities[known].max(1).mean()),
        ece=expected_calibration_error(bins),
        reliability=bins,
        classes=classes,
        auroc=None if known.all() else auroc(scores[known], scores[~known]),
    )


def sender_interval(correct: NDArray[np.bool_], senders: NDArray[np.str_]) -> tuple[float, float]:
    """Returns the 95 % interval of the accuracy by resampling the senders (seed 0)."""
    _, positions = np.unique(senders, return_inverse=True)
    hits, counts = np.bincount(positions, correct), np.bincount(positions)
    drawn = np.random.default_rng(0).integers(0, len(counts), (RESAMPLES, len(counts)))
    shares = hits[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(shares, (0.025, 0.975))
    return float(low), float(high)


def as_text(report: PhotoReport) -> str:
    """Returns the report as text."""
    low, high = report.accuracy_interval
    mean = "" if report.balanced_accuracy is None else f", mean recall {report.balanced_accuracy:.1%}"
    lines = [
        f"accuracy {report.accuracy:.1%} ({low:.1%} to {high:.1%}){mean}",
        f"{report.count:,} photos of the ten classes, of {report.senders} people",
        f"mean confidence {report.confidence:.1%}, expected calibration error {report.ece:.1%}",
        f"{'':12} {'photos':>7} {'recall':>7}  in distribution",
    ]
    lines += [
        f"{name:12} {one.count:7,} {'' if name == NONE else format(one.recall, '7.1%'):>7}  {one.in_distribution:.1%}"
        for name, one in report.classes.items()
    ]
    if report.auroc is not None:
        lines.append(f"AUROC of ood_score for other things: {report.auroc:.3f}")
    return "\n".join(lines)


def _rows_by_class(photos: Photos) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    shown = set(photos.classes.tolist())
    return ((name, photos.classes == name) for name in ACCEPTED if name in shown)
