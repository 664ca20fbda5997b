"""The temperature: probabilities are softmax(logits / temperature)."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from model.artifact import TEMPERATURES
from model.engines import log_softmax


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """Returns the temperature with the least negative log-likelihood (Guo et al., arXiv:1706.04599).

    It lies within the range that a card accepts.
    benchmarks/temperature.py compares this rule with another one on held-out folds of the validation images.

    Args:
        logits: ``[N, C]``, of images that the network was not trained on.
        labels: ``[N]``.
    """
    return fit_set_temperature(logits, np.eye(logits.shape[1], dtype=np.bool_)[labels])


def fit_set_temperature(logits: NDArray[np.float32], sets: NDArray[np.bool_]) -> float:
    """As ``fit_temperature``, where any label of a set is right; ``sets`` is ``[N, C]``."""

    def loss(log_temperature: float) -> float:
        probabilities = np.exp(log_softmax(logits / np.float32(np.exp(log_temperature))).astype(np.float64))
        return -float(np.log(np.maximum((probabilities * sets).sum(1), 1e-30)).mean())

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))
