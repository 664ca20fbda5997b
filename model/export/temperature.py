"""The temperature: probabilities are softmax(logits / temperature)."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from model.engines import softmax


def fit_temperature(logits: NDArray[np.float32], labels: NDArray[np.uint8]) -> float:
    """Returns the temperature at which the mean confidence is the accuracy (expectation consistency, arXiv:2303.02644).

    Args:
        logits: ``[N, C]``, of images that the network was not trained on.
        labels: ``[N]``.
    """
    accuracy = (logits.argmax(1) == labels).mean()

    def difference(log_temperature: float) -> float:
        confidences = softmax(logits.astype(np.float64) / np.exp(log_temperature)).max(1)
        return float((confidences.mean() - accuracy) ** 2)

    return float(np.exp(minimize_scalar(difference, bounds=(-3, 3), method="bounded", options={"xatol": 1e-6}).x))
