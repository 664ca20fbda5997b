"""How well a score separates two groups."""

import numpy as np
from numpy.typing import NDArray


def auroc(inside: NDArray[np.floating], outside: NDArray[np.floating]) -> float:
    """Returns the chance that a score of ``outside`` ``[M]`` exceeds one of ``inside`` ``[N]``, 0..1; ties count half.

    It is the Mann-Whitney statistic, computed from ranks.
    """
    _, positions, counts = np.unique(np.concatenate([inside, outside]), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[positions]
    total, below = len(outside), len(inside)
    return float((ranks[below:].sum() - total * (total + 1) / 2) / (total * below))
