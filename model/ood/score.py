"""The out-of-distribution score: how far an image is from the images that the network was trained on.

The training images are summarised by centres. Four distances are added, each in units of its spread over the
validation images:

- the cosine distance of the features to the nearest centre (Sun et al., arXiv:2204.06507, use nearest neighbours),
- their Euclidean distance to the nearest centre,
- the energy of the logits (Liu et al., arXiv:2010.03759),
- the distance of the image statistics to the nearest centre of the predicted class.

Features separate other objects, image statistics separate noise and blank images; no distance separates all of them
(docs/decisions/0013-out-of-distribution.md). ``model.ood.fit`` fits the score, the PyTorch engine runs it, and the
export writes it into the served graphs. ``model.ood.photo_score`` is that of the photo model.
"""

from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor

from model.ood.distance_score import DistanceScore
from model.ood.image_statistics import ImageStatistics
from model.ood.photo_score import PhotoOodScore


class Distances(NamedTuple):
    """The parts of the score, each float32 ``[N, 1]``."""

    cosine_distance: Tensor
    """1 - cosine of the angle between the features and the nearest centre, 0..1."""
    euclidean_distance: Tensor
    """Of the features to the nearest centre."""
    energy: Tensor
    """-logsumexp(logits)."""
    image_statistics: Tensor
    """Euclidean distance of the image statistics to the nearest centre of the predicted class."""


DISTANCE_WEIGHTS = (1, 1, 1, 3)
"""Of the distances in the score: three come from the network, so the image statistics count as much as these."""


class OodScore(DistanceScore):
    """The score of images: 0 is typical, 1 is the threshold, above 1 is out of the distribution.

    Args:
        statistics_centres: of the image statistics of the training images divided by ``deviation``, by class, float32
            ``[C, K', 11]``.
        deviation: of each image statistic over the training images, float32 ``[11]``.
        centres, typical, spread: see ``DistanceScore``; there are four distances.
    """

    statistics_centres: Tensor
    deviation: Tensor

    def __init__(
        self, centres: Tensor, statistics_centres: Tensor, deviation: Tensor, typical: Tensor, spread: Tensor
    ) -> None:
        super().__init__(centres, typical, spread)
        self.statistics = ImageStatistics()
        self.register_buffer("statistics_centres", statistics_centres)
        self.register_buffer("deviation", deviation)

    def forward(self, images: Tensor, logits: Tensor, features: Tensor) -> Tensor:
        """Images uint8 ``[N, 28, 28]``, logits ``[N, C]``, features ``[N, F]`` -> scores float32 ``[N]``."""
        return self.add(self.distances(images, logits, features))

    def distances(self, images: Tensor, logits: Tensor, features: Tensor) -> Distances:
        """Images uint8 ``[N, 28, 28]``, logits ``[N, C]``, features ``[N, F]`` -> the four distances."""
        statistics = (self.statistics(images) / self.deviation).unsqueeze(1)
        offsets = statistics - self.statistics_centres.index_select(0, logits.argmax(1))  # [N, K', 11]
        return Distances(
            *self.centre_distances(features),
            energy=-logits.logsumexp(1, keepdim=True),
            image_statistics=torch.linalg.vector_norm(offsets, dim=2).amin(1, keepdim=True),
        )


def load_score(content: bytes) -> OodScore | PhotoOodScore:
    """Reads what ``to_bytes`` of either score returned; raises TypeError if the tensors are others."""
    tensors = safetensors.torch.load(content)
    return PhotoOodScore(**tensors) if "none_weight" in tensors else OodScore(**tensors)
