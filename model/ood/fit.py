"""Fits the out-of-distribution score to a trained network."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from model.data import CLASSES
from model.ood.distance_score import TINY, Floats, add_distances
from model.ood.image_statistics import ImageStatistics
from model.ood.photo_score import PhotoOodScore
from model.ood.score import DISTANCE_WEIGHTS, OodScore

Score = TypeVar("Score", OodScore, PhotoOodScore)
CENTRES_PER_CLASS = 100
STATISTICS_CENTRES_PER_CLASS = 30
IN_DISTRIBUTION = 0.95
"""Share of the validation images that score at most 1."""
MIN_DEVIATION = 0.4
"""Of an image statistic, 0..16. It keeps a statistic that is constant in training from outweighing the others."""
CHUNK = 1000
"""Images that are computed at a time."""


class LabelledOutputs(NamedTuple):
    """N labelled images, and the outputs of a network for them."""

    images: NDArray[np.uint8]
    """``[N, 28, 28]``"""
    labels: NDArray[np.uint8]
    """``[N]``"""
    logits: Floats
    """``[N, C]``"""
    features: Floats
    """``[N, F]``"""


def fit_ood_score(train: LabelledOutputs, validation: LabelledOutputs) -> OodScore:
    """Returns the score with k-means centres of ``train``, scaled on ``validation``.

    Args:
        train: images that the network was trained on.
        validation: other images of the same distribution; the share ``IN_DISTRIBUTION`` of them scores at most 1.
    """
    statistics = in_chunks(ImageStatistics(), train.images)
    deviation = np.maximum(statistics.std(0), MIN_DEVIATION)
    centres = [
        kmeans_centroids(train.features[train.labels == label], CENTRES_PER_CLASS) for label in np.unique(train.labels)
    ]
    of_classes = [_centroids_of_class(statistics / deviation, train.labels == label) for label in range(len(CLASSES))]
    score = OodScore(
        centres=torch.from_numpy(np.concatenate(centres)),
        statistics_centres=torch.from_numpy(np.stack(of_classes)),
        deviation=torch.from_numpy(deviation),
        typical=torch.zeros(4),
        spread=torch.ones(4),
    )
    images, _, logits, features = validation
    distances = in_chunks(lambda *parts: torch.cat(score.distances(*parts), dim=1), images, logits, features)
    return with_scale(score, distances, DISTANCE_WEIGHTS)


def with_scale(score: Score, distances: Floats, weights: Sequence[float]) -> Score:
    """Returns ``score`` with ``typical`` and ``spread`` fitted to distances ``[N, D]`` of validation images.

    ``weights`` are those of the D distances.
    """
    scale = fit_scale(distances, weights)
    fitted = {name: torch.from_numpy(values).float() for name, values in scale._asdict().items()}
    return type(score)(**(score.state_dict() | fitted))


class Scale(NamedTuple):
    """What turns distances into a score."""

    typical: Floats
    """``[D]``"""
    spread: Floats
    """``[D]``"""


def fit_scale(distances: Floats, weights: Sequence[float]) -> Scale:
    """Returns the scale by which the median distances ``[D]`` score 0 and ``IN_DISTRIBUTION`` of the rows at most 1."""
    typical, upper = np.quantile(distances, (0.5, IN_DISTRIBUTION), axis=0)
    spread = np.maximum(upper - typical, TINY) / np.array(weights)
    threshold = max(np.quantile(add_distances(distances, typical, spread), IN_DISTRIBUTION), TINY)
    return Scale(typical, spread * threshold)


def in_chunks(function: Callable[..., Tensor], *arrays: NDArray[np.generic], size: int = CHUNK) -> Floats:
    """Returns ``function`` of the arrays, computed by ``size`` rows at a time to bound the memory."""
    with torch.inference_mode():
        parts = [
            function(*(torch.from_numpy(array[start : start + size].copy()) for array in arrays))
            for start in range(0, len(arrays[0]), size)
        ]
        return torch.cat(parts).numpy()


def _centroids_of_class(points: Floats, of_class: NDArray[np.bool_]) -> Floats:
    """``STATISTICS_CENTRES_PER_CLASS`` centres: repeated if the class is smaller, of all images if it has none."""
    centres = kmeans_centroids(points[of_class] if of_class.any() else points, STATISTICS_CENTRES_PER_CLASS)
    return np.resize(centres, (STATISTICS_CENTRES_PER_CLASS, points.shape[1]))


def kmeans_centroids(points: Floats, count: int) -> Floats:
    """Returns at most ``count`` k-means centres of points ``[N, F]``."""
    clusters = MiniBatchKMeans(min(count, len(points)), n_init=1, batch_size=1024, random_state=0)
    centres: Floats = clusters.fit(points).cluster_centers_.astype(np.float32)
    return centres
