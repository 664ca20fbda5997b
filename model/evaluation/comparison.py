"""Whether one network is better than another on the same images, or luckier."""

from math import comb

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict


class Comparison(BaseModel):
    """Two networks on the same images; only those that one of them alone gets right tell them apart."""

    model_config = ConfigDict(frozen=True)

    only_first: int
    """Images that the first alone gets right."""
    only_second: int
    """Images that the second alone gets right."""
    difference: float
    """Accuracy of the first less that of the second, -1..1."""
    interval: tuple[float, float]
    """Its 95 % confidence interval, from the variance of paired proportions (Newcombe, 1998, method 1)."""
    p_value: float
    """McNemar's exact test, two-sided: how often equally good networks would differ as much, 0..1."""


def compare(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Comparison:
    """What each of two networks gets right, ``[N]`` in the same order -> how they compare."""
    only_first, only_second, count = int((first & ~second).sum()), int((second & ~first).sum()), len(first)
    difference = (only_first - only_second) / count
    half = 1.959964 * (only_first + only_second - difference**2 * count) ** 0.5 / count
    return Comparison(
        only_first=only_first,
        only_second=only_second,
        difference=difference,
        interval=(difference - half, difference + half),
        p_value=mcnemar(only_first, only_second),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact p-value, two-sided (McNemar, 1947): the discordant images are tosses of a fair coin."""
    tosses, fewer = only_first + only_second, min(only_first, only_second)
    # In whole numbers, which do not underflow however many tosses there are.
    return min(1.0, 2 * sum(comb(tosses, k) for k in range(fewer + 1)) / (1 << tosses))
