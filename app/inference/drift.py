"""Drift of a model: its last predictions, in all workers, against those for its validation images.

Each worker keeps its last predictions and sets gauges once a second: how many there are in each bin of the validation
histograms. The workers' gauges are added up like all metrics, so the index is that of the service.
"""

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from pydantic import BaseModel, Field

from app.metrics import RECENT, RECENT_NAME
from model import ModelCard, Prediction
from model.drift import DRIFTED, STABLE, Feature, Histogram, stability_index
from model.engines import ImageOutput

WINDOW = 1000
"""Predictions of each model that a worker keeps."""
MIN_PREDICTIONS = 300
"""With fewer predictions there is no index, because chance alone lifts it above 0.1."""


Status = Literal["unknown", "stable", "shifted", "drifted"]


class FeatureDrift(BaseModel):
    """One feature of the predictions, by the bins of its validation histogram."""

    status: Status = Field(description=f"stable below {STABLE}, drifted above {DRIFTED}; unknown without an index")
    psi: float | None = Field(
        description=f"population stability index; null with fewer than {MIN_PREDICTIONS} predictions"
    )
    edges: tuple[float, ...] = Field(description="where one bin ends and the next begins")
    expected: tuple[int, ...] = Field(description="validation images in each bin")
    found: tuple[int, ...] = Field(description="predictions in each bin")


class Drift(BaseModel):
    """How far the last predictions of a model are from those for its validation images."""

    model: str
    status: Status = Field(description="that of the largest index")
    predictions: int = Field(description=f"the last predictions, at most {WINDOW} of each worker")
    predictions_needed: int = Field(MIN_PREDICTIONS, description="the predictions from which on there is an index")
    features: dict[Feature, FeatureDrift]


class RecentPredictions:
    """The last predictions of one model in this process."""

    def __init__(self, card: ModelCard) -> None:
        self._last: deque[tuple[float, float, int]] = deque(maxlen=WINDOW)
        self._changed = True
        self._temperature = card.temperature
        self._expected = card.histograms
        self._gauges = {
            feature: [RECENT.labels(card.name, feature, number) for number in range(len(histogram.counts))]
            for feature, histogram in card.histograms.items()
        }

    def add(self, prediction: Prediction) -> None:
        """Adds a prediction, in place of the oldest one if there are ``WINDOW``."""
        self._last.append((prediction.ood_score, prediction.confidence, prediction.class_id))
        self._changed = True

    def add_output(self, output: ImageOutput) -> None:
        """Adds the prediction that an output of the engine stands for."""
        values = output.logits.tolist()
        best = max(values)
        confidence = 1 / sum(math.exp((value - best) / self._temperature) for value in values)
        self._last.append((float(output.ood_score), confidence, values.index(best)))
        self._changed = True

    def set_gauges(self) -> None:
        """Sets the gauges to the number of predictions in each bin, if there are new ones."""
        if not self._changed:
            return
        self._changed = False
        values = dict(zip(get_args(Feature), np.reshape(self._last, (-1, 3)).T, strict=True))
        for feature, gauges in self._gauges.items():
            found = Histogram.of(values[feature], self._expected[feature].edges)
            for gauge, count in zip(gauges, found.counts, strict=True):
                gauge.set(count)


def measure_drift(card: ModelCard, metrics: Iterable[Metric]) -> Drift:
    """Returns the drift of a model, given the metrics of all workers; no features if its card has no histograms."""
    counts = _counts(card.name, metrics)
    features = {
        feature: _compare(expected, [counts[feature, str(number)] for number in range(len(expected.counts))])
        for feature, expected in card.histograms.items()
    }
    return Drift(
        model=card.name,
        status=_status(max((f.psi for f in features.values() if f.psi is not None), default=None)),
        predictions=min((sum(feature.found) for feature in features.values()), default=0),
        features=features,
    )


def drift_metric(cards: Iterable[ModelCard], metrics: Iterable[Metric]) -> Metric:
    """Returns the index of every model and feature that has one, as a metric."""
    family = GaugeMetricFamily(
        "fashionnet_drift_psi",
        f"Population stability index of the last predictions; above {DRIFTED} they have drifted.",
        labels=["model", "feature"],
    )
    for card in cards:
        for feature, found in measure_drift(card, metrics).features.items():
            if found.psi is not None:
                family.add_metric([card.name, feature], found.psi)
    return family


def _counts(model: str, metrics: Iterable[Metric]) -> Mapping[tuple[str, str], int]:
    """Returns the number of recent predictions of a model by feature and bin."""
    samples = (sample for metric in metrics if metric.name == RECENT_NAME for sample in metric.samples)
    counts = {(s.labels["feature"], s.labels["bin"]): int(s.value) for s in samples if s.labels["model"] == model}
    return defaultdict(int, counts)


def _compare(expected: Histogram, found: Sequence[int]) -> FeatureDrift:
    psi = stability_index(expected.counts, found) if sum(found) >= MIN_PREDICTIONS else None
    return FeatureDrift(
        status=_status(psi), psi=psi, edges=expected.edges, expected=expected.counts, found=tuple(found)
    )


def _status(index: float | None) -> Status:
    if index is None:
        return "unknown"
    if index > DRIFTED:
        return "drifted"
    return "shifted" if index >= STABLE else "stable"
