"""Compares two models on the same images."""

from math import comb

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict


class Comparison(BaseModel):
    """How two models differ on the same images."""

    model_config = ConfigDict(frozen=True)

    only_first: int
    """Images that only the first model classifies correctly."""
    only_second: int
    """Images that only the second model classifies correctly."""
    difference: float
    """Accuracy of the first model less that of the second, -1..1."""
    interval: tuple[float, float]
    """95 % confidence interval of the difference of paired proportions (Newcombe, 1998, method 1)."""
    p_value: float
    """Two-sided p-value of McNemar's exact test."""


def compare(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Comparison:
    """Compares two models by which images they classify correctly: bool ``[N]`` each, in the same order."""
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
    """Returns the two-sided p-value (McNemar, 1947): the binomial test of the discordant images."""
    tosses, fewer = only_first + only_second, min(only_first, only_second)
    # Integers, because floats would underflow.
    return min(1.0, 2 * sum(comb(tosses, k) for k in range(fewer + 1)) / (1 << tosses))
