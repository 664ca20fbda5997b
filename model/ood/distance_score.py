"""What the two out-of-distribution scores have in common: distances are divided by their spread and added."""

from typing import TypeVar

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Floats = NDArray[np.float32]
Rows = TypeVar("Rows", Tensor, Floats)
TINY = 1e-6


def add_distances(distances: Rows, typical: Rows, spread: Rows) -> Rows:
    """Distances ``[N, D]``, typical ones ``[D]`` and their spread ``[D]`` -> scores ``[N]``."""
    return ((distances - typical) / spread).sum(1)  # type: ignore[no-any-return]


class DistanceScore(nn.Module):
    """A score of D distances, two of which are those of the features to the nearest centre of the training images.

    Args:
        centres: of the features of the training images, float32 ``[K, F]``.
        typical: the distances of an image that scores 0, float32 ``[D]``.
        spread: a distance of ``typical + spread`` adds 1 to the score, float32 ``[D]``.
    """

    centres: Tensor
    typical: Tensor
    spread: Tensor
    twice_centres: Tensor
    squares: Tensor
    half_inverse_norms: Tensor

    def __init__(self, centres: Tensor, typical: Tensor, spread: Tensor) -> None:
        super().__init__()
        self.register_buffer("centres", centres)
        self.register_buffer("typical", typical)
        self.register_buffer("spread", spread)
        # Constants of the exported graph, derived from the centres.
        squares = centres.square().sum(1)
        self.register_buffer("twice_centres", 2 * centres.T.contiguous(), persistent=False)
        self.register_buffer("squares", squares, persistent=False)
        self.register_buffer("half_inverse_norms", 0.5 / squares.sqrt().clamp(min=TINY), persistent=False)

    def to_bytes(self) -> bytes:
        """Returns the buffers as safetensors."""
        return safetensors.torch.save(self.state_dict())

    def add(self, distances: tuple[Tensor, ...]) -> Tensor:
        """Distances, each float32 ``[N, 1]`` -> scores float32 ``[N]``."""
        return add_distances(torch.cat(distances, dim=1), self.typical, self.spread)

    def centre_distances(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[N, F]`` -> cosine distance and Euclidean distance to the nearest centre, each ``[N, 1]``."""
        norms = torch.linalg.vector_norm(features, dim=1, keepdim=True)
        twice_products = features @ self.twice_centres
        cosine = (twice_products * self.half_inverse_norms).amax(1, keepdim=True) / norms.clamp(min=TINY)
        square = (self.squares - twice_products).amin(1, keepdim=True) + norms * norms
        return 1 - cosine, square.clamp(min=0).sqrt()
