"""Distillation: a trained network's logits as targets (Hinton et al., arXiv:1503.02531).

The teacher sees the same augmented images as the student (Beyer et al., arXiv:2106.05237). Computing its logits costs
more than training the student. So the epochs rotate through augmented sets of the images (see ``BatchSource``), and the
logits for each set are computed once.
"""

from collections.abc import Callable

import torch
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from model.data import CLASSES
from model.progress import progress_bar
from model.training import distributed

_CHUNK = 500


class Distillation(BaseModel):
    """The teacher and its share of the loss."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    teacher: str = Field(description="name of an artefact")
    temperature: float = Field(default=4.0, gt=0, description="divides both networks' logits: soft targets")
    weight: float = Field(ge=0, le=1, description="share of the teacher in the loss; the rest is the labels'")
    augmentation_sets: int = Field(
        ge=1,
        validation_alias=AliasChoices("augmentation_sets", "views"),
        description="augmented sets of the images that the epochs rotate through",
    )

    def loss(self, log_probs: Tensor, teacher_logits: Tensor, label_loss: Tensor) -> Tensor:
        """Returns the weighted sum of the mean cross-entropy with the teacher and the loss by the labels.

        Args:
            log_probs: ``[N, 10]``, the student's.
            teacher_logits: ``[N, 10]``, for the same images.
            label_loss: ``[]``, the loss without a teacher.
        """
        # Log-probabilities are logits too. The square restores the gradients' scale, as in the paper.
        soft = F.cross_entropy(log_probs / self.temperature, F.softmax(teacher_logits / self.temperature, dim=1))
        return self.weight * self.temperature**2 * soft + (1 - self.weight) * label_loss


def compute_teacher_logits(teacher: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Returns the teacher's logits ``[N, 10]`` for images uint8 ``[N, 28, 28]``; each process computes a shard."""
    logits = torch.zeros(len(images), len(CLASSES), device=images.device)
    shards = zip(*(torch.split(distributed.shard(rows), _CHUNK) for rows in (images, logits)), strict=True)
    with progress_bar("teacher", len(images), "images", shown=distributed.rank() == 0) as bar:
        for chunk, destination in shards:
            destination.copy_(teacher(chunk))
            bar.update(len(chunk) * distributed.world_size())
    return distributed.all_reduce_sum(logits)
