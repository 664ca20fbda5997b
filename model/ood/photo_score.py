"""The out-of-distribution score of the photo model.

Four distances are added, each in units of its spread over photos of people whose photos did not train the network:

- the log-odds of "none of the ten classes", which the network learns from hats, shorts, skirts and drawn pictures,
- the energy of the logits (Liu et al., arXiv:2010.03759),
- the cosine distance and the Euclidean distance of the features to the nearest centre of the training photos (Sun et
  al., arXiv:2204.06507, use nearest neighbours), for things that the network has never seen.
"""

from typing import NamedTuple

from torch import Tensor

from model.ood.distance_score import DistanceScore


class PhotoDistances(NamedTuple):
    """The parts of the score, each float32 ``[N, 1]``."""

    none_log_odds: Tensor
    energy: Tensor
    cosine_distance: Tensor
    euclidean_distance: Tensor


PHOTO_DISTANCE_WEIGHTS = (2, 1, 1, 1)


class PhotoOodScore(DistanceScore):
    """The score of photos: 0 is typical, 1 is the threshold, above 1 is out of the distribution.

    Args:
        none_weight: of the logit of "none of the ten classes", float32 ``[F]``.
        none_bias: float32 ``[1]``.
        centres, typical, spread: see ``DistanceScore``; there are four distances.
    """

    none_weight: Tensor
    none_bias: Tensor

    def __init__(
        self, centres: Tensor, none_weight: Tensor, none_bias: Tensor, typical: Tensor, spread: Tensor
    ) -> None:
        super().__init__(centres, typical, spread)
        self.register_buffer("none_weight", none_weight)
        self.register_buffer("none_bias", none_bias)

    def forward(self, images: Tensor, logits: Tensor, features: Tensor) -> Tensor:  # noqa: ARG002
        """Images (unused), logits ``[N, 10]``, features ``[N, F]`` -> scores float32 ``[N]``."""
        return self.add(self.distances(logits, features))

    def distances(self, logits: Tensor, features: Tensor) -> PhotoDistances:
        """Logits ``[N, 10]``, features ``[N, F]`` -> the four distances."""
        energy = -logits.logsumexp(1, keepdim=True)
        none = (features * self.none_weight).sum(1, keepdim=True) + self.none_bias
        return PhotoDistances(none + energy, energy, *self.centre_distances(features))
