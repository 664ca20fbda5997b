"""What is fitted after the training, on images that it did not see: the temperature, and the detector's limits."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.cluster import MiniBatchKMeans

from model.data import CLASSES, Split
from model.engines import EngineOutputs, softmax
from model.ood.detector import Detector
from model.ood.image_statistics import MEANS, MOST_STEPS, STEPS, Appearance, levels, sums

CENTRES_PER_CLASS = 100
APPEARANCES_PER_CLASS = 30
APPEARANCE_WEIGHT = 3
"""Of the appearance's distance; the three others, which all come from the network, have 1 each."""
KEPT = 0.95
"""Share of the validation images that the detector takes for images of the distribution."""


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """The temperature by which the mean confidence is the accuracy (expectation consistency, arXiv:2303.02644).

    That of the least negative log-likelihood (Guo et al., arXiv:1706.04599) calibrates as well, but leaves the networks
    here more confident than right on the whole.

    Args:
        logits: ``[N, C]``, of images that were not trained on.
        labels: ``[N]``.
    """
    accuracy = (logits.argmax(1) == labels).mean()

    def difference(log_temperature: float) -> float:
        confidences = softmax(logits.astype(np.float64) / np.exp(log_temperature)).max(1)
        return float((confidences.mean() - accuracy) ** 2)

    return float(np.exp(minimize_scalar(difference, bounds=(-3, 3), method="bounded", options={"xatol": 1e-6}).x))


class Seen(NamedTuple):
    """Images, and what a network says of them."""

    split: Split
    outputs: EngineOutputs


def fit_detector(train: Seen, validation: Seen) -> Detector:
    """The detector whose centres are those of the training images, by k-means: of their features class by class.

    Args:
        train: what the network was trained on.
        validation: other images, ``KEPT`` of which will score at most 1.
    """
    labels, features = train.split.labels, train.outputs.features
    centres = np.concatenate([_centres(features[labels == label], CENTRES_PER_CLASS) for label in np.unique(labels)])
    appearance = fit_appearance(train.split)
    bare = Detector(centres.astype(np.float32), appearance, np.zeros(4, np.float32), np.ones(4, np.float32))
    given = validation.split.images, validation.outputs.logits, validation.outputs.features
    typical, upper = (np.quantile(bare.distances(*given), q, axis=1).astype(np.float32) for q in (0.5, KEPT))
    spread = np.maximum(upper - typical, 1e-6) / np.array([1, 1, 1, APPEARANCE_WEIGHT], np.float32)
    limit = np.quantile(Detector(bare.centres, appearance, typical, spread).score(*given), KEPT)
    return Detector(bare.centres, appearance, typical, spread * np.float32(limit))


def fit_appearance(train: Split) -> Appearance:
    """The centres of what the training images of each class look like; a level counts in units of its deviation."""
    deviation = np.sqrt(sums(train.images) * MEANS).std(0)
    steps = np.minimum(STEPS / np.maximum(deviation, 1e-6), MOST_STEPS / 16)
    factors = (MEANS * steps**2).astype(np.float32)
    steps_seen = levels(train.images, factors)
    centres = [_centres_of_class(steps_seen, train.labels == label) for label in range(len(CLASSES))]
    return Appearance(factors, np.rint(np.stack(centres)).astype(np.float32))


def _centres_of_class(points: NDArray[np.float32], of_class: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``APPEARANCES_PER_CLASS`` of them, some more than once in a class of fewer images; of all, in a class of none."""
    centres = _centres(points[of_class] if of_class.any() else points, APPEARANCES_PER_CLASS)
    return np.resize(centres, (APPEARANCES_PER_CLASS, points.shape[1]))


def _centres(points: NDArray[np.float32], count: int) -> NDArray[np.float64]:
    clusters = MiniBatchKMeans(min(count, len(points)), n_init=1, batch_size=1024, random_state=0)
    centres: NDArray[np.float64] = clusters.fit(points).cluster_centers_
    return centres
