"""Finds images whose labels are probably wrong."""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict


class LabelIssue(BaseModel):
    """An image whose label contradicts a confident prediction."""

    model_config = ConfigDict(frozen=True)

    index: int
    """Index in the split."""
    label: int
    """Class id of the label."""
    predicted: int
    """Predicted class id."""
    label_probability: float
    """Predicted probability of the label, 0..1."""
    predicted_probability: float
    """Probability of the predicted class, 0..1."""


def find_label_issues(probabilities: NDArray[np.floating], labels: NDArray[np.uint8], count: int) -> list[LabelIssue]:
    """Returns at most ``count`` probable label errors, the most probable first.

    The ranking is the normalised margin of confident learning (Northcutt et al., arXiv:1911.00068): the probability
    of the label less that of the predicted class. Images that are predicted as labelled are left out.

    Args:
        probabilities: ``[N, C]``, calibrated, of a model that was not trained on these images.
        labels: class ids ``[N]``.
        count: the maximum number of results.
    """
    rows = np.arange(len(labels))
    predicted = probabilities.argmax(1)
    of_label, of_predicted = probabilities[rows, labels], probabilities[rows, predicted]
    ranked = np.argsort(of_label - of_predicted, kind="stable")
    return [
        LabelIssue(
            index=int(i), label=int(labels[i]), predicted=int(predicted[i]),
            label_probability=float(of_label[i]), predicted_probability=float(of_predicted[i]),
        )
        for i in ranked[:count] if predicted[i] != labels[i]
    ]  # fmt: skip
