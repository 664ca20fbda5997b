"""How far confidences can be believed: of 100 answers given with 90 %, 90 should be right."""

import numpy as np
from numpy.typing import NDArray

from model.metrics import ReliabilityBin

BINS = 15
"""Guo et al., arXiv:1706.04599."""


def reliability(probabilities: NDArray[np.floating], labels: NDArray[np.uint8]) -> list[ReliabilityBin]:
    """Probabilities ``[N, C]`` and true labels ``[N]`` -> the ``BINS`` bins, from the least confident on."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    index = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    counts, confidences, hits = (np.bincount(index, of, BINS) for of in (None, confidence, right))
    some = np.maximum(counts, 1)
    return [
        ReliabilityBin(count=int(count), confidence=float(mean), accuracy=float(share))
        for count, mean, share in zip(counts, confidences / some, hits / some, strict=True)
    ]


def expected_calibration_error(bins: list[ReliabilityBin]) -> float:
    """Mean distance of confidence and accuracy over the bins, weighted by their counts (Guo et al.), 0..1."""
    total = sum(part.count for part in bins)
    return sum(part.count * abs(part.confidence - part.accuracy) for part in bins) / max(1, total)


def brier_score(probabilities: NDArray[np.floating], labels: NDArray[np.uint8]) -> float:
    """Mean squared distance of ``[N, C]`` to the truth, summed over the classes (Brier, 1950): 0 is best, 2 worst."""
    truth = np.eye(probabilities.shape[1])[labels]
    return float(((probabilities - truth) ** 2).sum(1).mean())


def wilson_interval(hits: int, count: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share by ``hits`` of ``count`` (Wilson, 1927)."""
    z = 1.959964
    share, spread = hits / count, z**2 / count
    centre = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
