"""Images whose labels are probably wrong, by what a network that never saw them says."""

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict


class Suspect(BaseModel):
    """An image that the network is sure does not show what its label says."""

    model_config = ConfigDict(frozen=True)

    index: int
    """Its place in the set."""
    label: int
    """The class id it is labelled with."""
    predicted: int
    """The class id that the network sees."""
    label_probability: float
    """What the network gives the label, 0..1."""
    predicted_probability: float
    """What it gives its own answer, 0..1."""


def find_suspects(probabilities: NDArray[np.floating], labels: NDArray[np.uint8], count: int) -> list[Suspect]:
    """The ``count`` likeliest wrong labels, the likeliest first.

    Ranked by how much likelier the network finds its own answer than the label (the normalised margin of confident
    learning, Northcutt et al., arXiv:1911.00068); images that it answers with the label are none.

    Args:
        probabilities: ``[N, C]``, calibrated, of a network that was not trained on these images.
        labels: class ids ``[N]``.
        count: how many at most.
    """
    everywhere = np.arange(len(labels))
    predicted = probabilities.argmax(1)
    of_label, of_answer = probabilities[everywhere, labels], probabilities[everywhere, predicted]
    ranked = np.argsort(of_label - of_answer, kind="stable")
    return [
        Suspect(
            index=int(i), label=int(labels[i]), predicted=int(predicted[i]),
            label_probability=float(of_label[i]), predicted_probability=float(of_answer[i]),
        )
        for i in ranked[:count] if predicted[i] != labels[i]
    ]  # fmt: skip
