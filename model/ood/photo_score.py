"""The out-of-distribution score of the photo model.

Four distances are added, each in units of its spread over photos of people whose photos did not train the network:

- the log-odds of "none of the ten classes", which the network learns from hats, shorts, skirts and drawn pictures,
- the energy of the logits (Liu et al., arXiv:2010.03759),
- the cosine distance and the Euclidean distance of the features to the nearest centre of the training photos (Sun et
  al., arXiv:2204.06507, use nearest neighbours), for things that the network has never seen.
"""

from typing import NamedTuple

import safetensors.torch
import torch
from torch import Tensor, nn

TINY = 1e-6


class PhotoDistances(NamedTuple):
    """The parts of the score, each float32 ``[N, 1]``."""

    none_log_odds: Tensor
    energy: Tensor
    cosine_distance: Tensor
    euclidean_distance: Tensor


class PhotoOodScore(nn.Module):
    """The score of photos: 0 is typical, 1 is the threshold, above 1 is out of the distribution.

    Args:
        centres: of the features of the training photos, float32 ``[K, F]``.
        none_weight: of the logit of "none of the ten classes", float32 ``[F]``.
        none_bias: float32 ``[1]``.
        typical: the distances of a photo that scores 0, float32 ``[4]``.
        spread: by how much each distance exceeds the typical one to add 1 to the score, float32 ``[4]``.
    """

    centres: Tensor
    none_weight: Tensor
    none_bias: Tensor
    typical: Tensor
    spread: Tensor

    def __init__(
        self, centres: Tensor, none_weight: Tensor, none_bias: Tensor, typical: Tensor, spread: Tensor
    ) -> None:
        super().__init__()
        self.register_buffer("centres", centres)
        self.register_buffer("none_weight", none_weight)
        self.register_buffer("none_bias", none_bias)
        self.register_buffer("typical", typical)
        self.register_buffer("spread", spread)

    def to_bytes(self) -> bytes:
        """Returns the buffers as safetensors."""
        return safetensors.torch.save(self.state_dict())

    def forward(self, images: Tensor, logits: Tensor, features: Tensor) -> Tensor:  # noqa: ARG002
        """Images (unused), logits ``[N, 10]``, features ``[N, F]`` -> scores float32 ``[N]``."""
        distances = torch.cat(self.distances(logits, features), dim=1)
        return ((distances - self.typical) / self.spread).sum(1)

    def distances(self, logits: Tensor, features: Tensor) -> PhotoDistances:
        """Logits ``[N, 10]``, features ``[N, F]`` -> the four distances."""
        products = features @ self.centres.T
        squares = self.centres.square().sum(1)
        norms = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        cosine = (products / squares.sqrt().clamp(min=TINY)).amax(1, keepdim=True) / norms.clamp(min=TINY)
        square = (squares - 2 * products).amin(1, keepdim=True) + norms * norms
        energy = -logits.logsumexp(1, keepdim=True)
        none = (features * self.none_weight).sum(1, keepdim=True) + self.none_bias
        return PhotoDistances(none + energy, energy, 1 - cosine, square.clamp(min=0).sqrt())
