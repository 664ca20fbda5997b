"""Drift: how far predictions are from those for the validation images.

Three features of predictions are compared by their histograms: the out-of-distribution score, the confidence and the
class. The measure is the population stability index, the symmetric Kullback-Leibler divergence of two histograms.
Below 0.1 it counts as stable and above 0.25 as drift, whatever the feature.
"""

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

Feature = Literal["ood_score", "confidence", "class_id"]
STABLE, DRIFTED = 0.1, 0.25
"""Below the first index predictions are stable, above the second they have drifted."""
_DECILES = np.linspace(0.1, 0.9, 9)
_PRIOR = 0.5
"""Added to every count, because the index of an empty bin would be infinite."""


class Histogram(BaseModel):
    """Counts of values in the intervals between edges; the first and the last interval are open."""

    model_config = ConfigDict(frozen=True)

    edges: tuple[float, ...]
    """Ascending. An edge belongs to the interval above it."""
    counts: tuple[int, ...]
    """One more than edges."""

    @model_validator(mode="after")
    def _require_order(self) -> Self:
        if len(self.counts) != len(self.edges) + 1 or list(self.edges) != sorted(set(self.edges)):
            raise PydanticCustomError("histogram", "edges must ascend, and there must be one count more than edges")
        return self

    @classmethod
    def of(cls, values: ArrayLike, edges: Sequence[float]) -> Self:
        """Counts the values."""
        counts = np.bincount(np.digitize(np.asarray(values), edges), minlength=len(edges) + 1)
        return cls(edges=tuple(edges), counts=tuple(counts.tolist()))


def reference_histograms(scores: NDArray[np.float32], probabilities: NDArray[np.float32]) -> dict[Feature, Histogram]:
    """Returns the histograms of predictions for validation images, in tenths of the images and by class.

    Args:
        scores: out-of-distribution scores ``[N]``.
        probabilities: ``[N, C]``.
    """
    confidences = probabilities.max(1)
    return {
        "ood_score": Histogram.of(scores, _deciles(scores)),
        "confidence": Histogram.of(confidences, _deciles(confidences)),
        "class_id": Histogram.of(probabilities.argmax(1), range(1, probabilities.shape[1])),
    }


def stability_index(expected: ArrayLike, found: ArrayLike) -> float:
    """Returns the population stability index of two lists of counts for the same bins; 0 if their shares are equal."""
    p, q = _shares(expected), _shares(found)
    return float(((q - p) * np.log(q / p)).sum())


def _deciles(values: NDArray[np.float32]) -> list[float]:
    edges: list[float] = np.unique(np.quantile(values, _DECILES)).tolist()
    return edges


def _shares(counts: ArrayLike) -> NDArray[np.float64]:
    smoothed = np.asarray(counts, np.float64) + _PRIOR
    shares: NDArray[np.float64] = smoothed / smoothed.sum()
    return shares
