"""Out-of-distribution detection: how far an image is from all that the network was trained on, by its features.

The features of the training images are summed up in some hundred centres. Three distances are added, each in
units of its spread over the validation images: that of the direction to the nearest centre's (cosine; Sun et al.,
arXiv:2204.06507, with neighbours), that to the nearest centre (Euclidean), and the energy of the logits (Liu et al.,
arXiv:2010.03759). Directions find other objects, lengths find noise and blanks; none finds all by itself
(docs/decisions/0013-out-of-distribution.md).
"""

from typing import NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class Distances(NamedTuple):
    """What the score is made of, each float32 ``[N]``: larger is stranger."""

    direction: Floats
    """1 - cosine of the angle to the nearest centre: 0..2."""
    place: Floats
    """Euclidean distance to the nearest centre."""
    energy: Floats
    """-logsumexp(logits)."""


class Detector:
    """The centres of the training features, and what is usual for images of the distribution."""

    def __init__(self, centres: Floats, typical: Floats, spread: Floats) -> None:
        """Keep what ``model.training.calibrate`` found.

        Args:
            centres: ``[K, F]``.
            typical: ``[3]``, the medians of the distances over the validation images.
            spread: ``[3]``, in what units the distances from there are added.
        """
        self.centres, self.typical, self.spread = centres, typical, spread
        self._squares = (centres**2).sum(1)
        self._weights = 1 / spread
        self._zero = (typical / spread).sum()
        self._inverse_lengths = 1 / np.sqrt(np.maximum(self._squares, 1e-12))

    @classmethod
    def from_bytes(cls, content: bytes) -> "Detector":
        """What ``to_bytes`` wrote."""
        tensors = safetensors.numpy.load(content)
        return cls(tensors["centres"], tensors["typical"], tensors["spread"])

    def to_bytes(self) -> bytes:
        """As safetensors."""
        return safetensors.numpy.save({"centres": self.centres, "typical": self.typical, "spread": self.spread})

    def score(self, logits: Floats, features: Floats) -> Floats:
        """Logits ``[N, C]`` and features ``[N, F]`` -> ``[N]``: 0 is a typical image, above 1 an outlier."""
        direction, place, energy = self.distances(logits, features)
        one, two, three = self._weights
        score: Floats = direction * one + place * two + energy * three - self._zero
        return score

    def distances(self, logits: Floats, features: Floats) -> Distances:
        """Logits ``[N, C]`` and features ``[N, F]`` -> the three distances."""
        # Not a product of matrices: that sums in another order in another batch, and an image must score alike in any.
        products = np.matvec(self.centres, features)
        squares = np.vecdot(features, features)
        cosines = (products * self._inverse_lengths).max(1) / np.sqrt(np.maximum(squares, 1e-12))
        nearest = squares + (self._squares - 2 * products).min(1)
        return Distances(1 - cosines, np.sqrt(np.maximum(nearest, 0)), -np.logaddexp.reduce(logits, axis=1))
