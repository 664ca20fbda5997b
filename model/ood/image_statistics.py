"""What a picture looks like before any network has seen it: eleven levels, and how far they are from its class's usual.

Networks that pool take noise and clouds for cloth: their features lie among those of clothes. A glance at the pixels
tells them apart, the better as it asks whether a picture looks like the class that it is taken for: shorts are taken
for trousers, and are too wide. The levels are the roughness across and down, the brightness of the four edges and of
the four quarters, and the share that is not black; each is the square root of a mean, 0..16, as brightness is seen.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

DARK = np.float32(8)
"""Pixels from here on are not black."""
REGIONS = 8
COUNT = 2 + REGIONS + 1
STEPS = 32
"""Steps to a standard deviation over the training images."""
MOST_STEPS = int((2**24 / COUNT) ** 0.5)
"""The most steps of a level: sums of their products stay below 2^24, so float32 holds them exactly."""


def regions() -> Floats:
    """The pixels ``[784, 8]`` of top, bottom, left and right edge, and of the four quarters: each 1 or 0."""
    masks = np.zeros((REGIONS, 28, 28), np.float32)
    masks[0, 0] = masks[1, -1] = masks[2, :, 0] = masks[3, :, -1] = 1
    for quarter, (row, column) in enumerate([(0, 0), (0, 14), (14, 0), (14, 14)]):
        masks[4 + quarter, row : row + 14, column : column + 14] = 1
    return masks.reshape(REGIONS, -1).T.copy()


def sums(images: NDArray[np.uint8]) -> Floats:
    """Images uint8 ``[N, 28, 28]`` -> what the levels are made of, whole numbers ``[N, 11]``."""
    x = images.astype(np.float32)
    corner = x[:, :-1, :-1]
    across, down = (np.abs(other - corner).sum((1, 2)) for other in (x[:, :-1, 1:], x[:, 1:, :-1]))
    flat = x.reshape(len(x), -1)
    lit = np.minimum(flat, DARK).sum(1)
    return np.concatenate([across[:, None], down[:, None], flat @ regions(), lit[:, None]], axis=1)


MEANS: Floats = np.array([1 / 27**2] * 2 + [1 / 28] * 4 + [1 / 14**2] * 4 + [256 / DARK / 28**2], np.float32)
"""``[11]``, what makes means of the sums, 0..256."""


class Appearance:
    """The centres of what the training images of each class look like."""

    def __init__(self, factors: Floats, centres: Floats) -> None:
        """Keep what ``model.ood.fit`` found.

        Args:
            factors: ``[11]``; the roots of the sums times these are levels in steps, ``MOST_STEPS`` at most.
            centres: ``[C, K, 11]``, of every class, in whole steps.
        """
        self.factors, self.centres = factors, centres
        self.squares: Floats = (centres**2).sum(2)

    def distance(self, images: NDArray[np.uint8], classes: NDArray[np.intp]) -> Floats:
        """Images uint8 ``[N, 28, 28]`` -> ``[N]``, the Euclidean distance to the nearest centre, in steps.

        Args:
            images: in the data set's convention.
            classes: ``[N]``, those that they are taken for: only their centres count.
        """
        steps = levels(images, self.factors)
        products = (steps @ self.centres.reshape(-1, COUNT).T).reshape(len(steps), *self.squares.shape)
        nearest = (self.squares - products * np.float32(2)).min(2)[np.arange(len(steps)), classes] + (steps**2).sum(1)
        distance: Floats = np.sqrt(np.maximum(nearest, 0))
        return distance


def levels(images: NDArray[np.uint8], factors: Floats) -> Floats:
    """Images uint8 ``[N, 28, 28]`` -> their levels in whole steps, ``[N, 11]``."""
    steps: Floats = np.rint(np.sqrt(sums(images) * factors))
    return steps
