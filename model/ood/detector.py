"""Out-of-distribution detection: how far an image is from all that the network was trained on.

The features of the training images are summed up in some hundred centres. Four distances are added, each in
units of its spread over the validation images: that of the direction to the nearest centre's (cosine; Sun et al.,
arXiv:2204.06507, with neighbours), that to the nearest centre (Euclidean), the energy of the logits (Liu et al.,
arXiv:2010.03759), and that of the picture itself from what training images of its class look like
(``model.ood.image_statistics``).
Features find other objects, pixels find noise and blanks; none finds all by itself
(docs/decisions/0013-out-of-distribution.md).

Served graphs carry the same arithmetic (``model.ood.onnx_graph``); this is its definition, and what PyTorch's
engine uses.
"""

from typing import NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from model.ood.image_statistics import Appearance, Floats

TINY = np.float32(1e-12)


class Distances(NamedTuple):
    """What the score is made of, each float32 ``[N]``: larger is stranger."""

    direction: Floats
    """1 - cosine of the angle to the nearest centre: 0..1."""
    place: Floats
    """Euclidean distance to the nearest centre."""
    energy: Floats
    """-logsumexp(logits)."""
    appearance: Floats
    """Distance of the picture's levels to the nearest centre of its class's training images."""


STEPS = 63
"""To how many steps centres are rounded, as bytes that any CPU multiplies exactly: without VNNI the sum of two products
with features, which may be as many as 255 steps, has to fit into 16 bits."""
MOST_STEPS = 255
"""The most that a feature counts: four times the largest of the centres."""


class Detector:
    """The centres of the training images, and what is usual for images of the distribution.

    Features are activations behind ReLU: none is below 0.
    """

    def __init__(self, centres: Floats, appearance: Appearance, typical: Floats, spread: Floats) -> None:
        """Keep what ``model.ood.fit`` found.

        Args:
            centres: ``[K, F]``, none below 0; rounded to ``STEPS`` steps of the largest.
            appearance: what the training images look like.
            typical: ``[4]``, the medians of the distances over the validation images.
            spread: ``[4]``, in what units the distances from there are added.
        """
        self.step = np.float32(max(centres.max(), TINY) / STEPS)
        self.steps = np.rint(centres / self.step)
        """``[K, F]``, the centres in whole steps."""
        self.appearance, self.typical, self.spread = appearance, typical, spread
        self.squares = (self.steps**2).sum(1)
        self.inverse_lengths = 1 / np.sqrt(np.maximum(self.squares, TINY))
        self.weights = 1 / spread
        self.zero = (typical / spread).sum()

    @property
    def centres(self) -> Floats:
        """``[K, F]``, as they are used."""
        centres: Floats = self.steps * self.step
        return centres

    @classmethod
    def from_bytes(cls, content: bytes) -> "Detector":
        """What ``to_bytes`` wrote."""
        tensors = safetensors.numpy.load(content)
        centres = tensors["steps"].astype(np.float32) * tensors["step"]
        appearance = Appearance(tensors["appearance.factors"], tensors["appearance.of_classes"].astype(np.float32))
        return cls(centres, appearance, tensors["typical"], tensors["spread"])

    def to_bytes(self) -> bytes:
        """As safetensors."""
        return safetensors.numpy.save(
            {
                "steps": self.steps.astype(np.uint8),
                "step": self.step.reshape(1),
                "appearance.factors": self.appearance.factors,
                "appearance.of_classes": self.appearance.centres.astype(np.uint16),
                "typical": self.typical,
                "spread": self.spread,
            }
        )

    def score(self, images: NDArray[np.uint8], logits: Floats, features: Floats) -> Floats:
        """Images uint8 ``[N, 28, 28]``, their logits and features -> ``[N]``: 0 is typical, above 1 an outlier."""
        weighted = [
            d * weight for d, weight in zip(self.distances(images, logits, features), self.weights, strict=True)
        ]
        score: Floats = sum(weighted, -self.zero)
        return score

    def distances(self, images: NDArray[np.uint8], logits: Floats, features: Floats) -> Distances:
        """Images uint8 ``[N, 28, 28]``, their logits ``[N, C]`` and features ``[N, F]`` -> the four distances."""
        steps = np.minimum(np.rint(features / self.step), MOST_STEPS)
        products, squares = steps @ self.steps.T, (steps**2).sum(1)
        cosines = (products * self.inverse_lengths).max(1) / np.sqrt(np.maximum(squares, TINY))
        # Of whole numbers, all exact where they are near each other: never below 0.
        nearest = (self.squares - 2 * products).min(1) + squares
        place, energy = np.sqrt(nearest) * self.step, -np.logaddexp.reduce(logits, axis=1)
        return Distances(1 - cosines, place, energy, self.appearance.distance(images, logits.argmax(1)))
