"""Calibration: of 100 predictions with a confidence of 90 %, 90 should be correct."""

import numpy as np
from numpy.typing import NDArray

from model.metrics import ReliabilityBin

BINS = 15
"""Guo et al., arXiv:1706.04599."""


def reliability(probabilities: NDArray[np.floating], labels: NDArray[np.uint8]) -> list[ReliabilityBin]:
    """Sorts predictions into ``BINS`` bins of equal width by confidence, the least confident first.

    Args:
        probabilities: ``[N, C]``.
        labels: true class ids ``[N]``.
    """
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    index = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts, confidences, hits = (np.bincount(index, of, BINS) for of in (None, confidence, correct))
    some = np.maximum(counts, 1)
    return [
        ReliabilityBin(count=int(count), confidence=float(mean), accuracy=float(share))
        for count, mean, share in zip(counts, confidences / some, hits / some, strict=True)
    ]


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Returns the mean distance between confidence and accuracy, weighted by the counts of the bins, 0..1."""
    total = sum(part.count for part in bins)
    return sum(part.count * abs(part.confidence - part.accuracy) for part in bins) / max(1, total)


def brier_score(probabilities: NDArray[np.floating], labels: NDArray[np.uint8]) -> float:
    """Returns the mean squared error of probabilities ``[N, C]``, summed over the classes (Brier, 1950), 0..2."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(1).mean())


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval of the proportion ``hits / count`` (Wilson, 1927)."""
    z = 1.959964
    share, spread = hits / count, z**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
