"""The loss and the accuracy for labels, and for sets of labels any of which is right.

A photo of a shoe of unknown kind has the set {Sandal, Sneaker, Ankle boot}. The loss of a set is the negative
logarithm of its probability: the sum of its members' probabilities. A set of one label gives ``F.nll_loss``.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def negative_log_likelihoods(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Returns the loss of each image, ``[N]``.

    Args:
        log_probs: ``[N, C]``.
        labels: int64 ``[N]``, or sets of labels, bool ``[N, C]``.
    """
    if labels.dtype != torch.bool:
        return F.nll_loss(log_probs, labels, reduction="none")
    return -log_probs.masked_fill(~labels, -torch.inf).logsumexp(1)


def smoothed_set_loss(log_probs: Tensor, sets: Tensor, smoothing: float) -> Tensor:
    """Returns the mean loss with label smoothing (Szegedy et al., arXiv:1512.00567), ``[]``.

    Args:
        log_probs: ``[N, C]``.
        sets: bool ``[N, C]``.
        smoothing: share of the loss, 0..1, that is the mean over all classes.
    """
    losses = negative_log_likelihoods(log_probs, sets)
    return ((1 - smoothing) * losses - smoothing * log_probs.mean(1)).mean()


def correct(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Returns for each image whether the most probable class is right, bool ``[N]``; arguments as above."""
    predicted = log_probs.argmax(1)
    return labels.gather(1, predicted[:, None])[:, 0] if labels.dtype == torch.bool else predicted == labels
