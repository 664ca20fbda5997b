"""What is fitted after the training, on images that it did not see: the temperature, and the detector's limits."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.cluster import MiniBatchKMeans

from model.detector import Detector
from model.engines import EngineOutputs, log_softmax

CENTRES_PER_CLASS = 100
KEPT = 0.95
"""Share of the validation images that the detector takes for images of the distribution."""


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """The temperature with the least negative log-likelihood (Guo et al., arXiv:1706.04599).

    Args:
        logits: ``[N, C]``, of images that were not trained on.
        labels: ``[N]``.
    """
    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        scaled = logits.astype(np.float64) / np.exp(log_temperature)
        return float(-log_softmax(scaled)[rows, labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def fit_detector(train: EngineOutputs, labels: NDArray[np.uint8], validation: EngineOutputs) -> Detector:
    """The detector whose centres are those of the training features, class by class, by k-means.

    Args:
        train: what the network says of the training images.
        labels: ``[N]``, theirs.
        validation: what it says of the validation images, ``KEPT`` of which will score at most 1.
    """
    centres = np.concatenate([_centres(train.features[labels == label]) for label in np.unique(labels)])
    bare = Detector(centres.astype(np.float32), np.zeros(3, np.float32), np.ones(3, np.float32))
    distances = bare.distances(validation.logits, validation.features)
    typical, upper = (np.quantile(distances, q, axis=1).astype(np.float32) for q in (0.5, KEPT))
    spread = np.maximum(upper - typical, 1e-6)
    limit = np.quantile(Detector(bare.centres, typical, spread).score(validation.logits, validation.features), KEPT)
    return Detector(bare.centres, typical, spread * np.float32(limit))


def _centres(features: NDArray[np.float32]) -> NDArray[np.float64]:
    clusters = MiniBatchKMeans(min(CENTRES_PER_CLASS, len(features)), n_init=1, batch_size=1024, random_state=0)
    centres: NDArray[np.float64] = clusters.fit(features).cluster_centers_
    return centres
