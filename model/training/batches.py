"""The batches of an epoch, from images in memory: shuffled, augmented, mixed, with a teacher's logits."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from model.training import distributed
from model.training.augment import augment, derived_seed
from model.training.distillation import compute_teacher_logits
from model.training.fmix import mix
from model.training.recipes import Recipe

_EPOCH, _DROPOUT, _SET, _MIRRORED = range(1, 5)  # purposes of seeds


class Batch(NamedTuple):
    """Training images and what the network should answer."""

    images: Tensor
    """uint8 ``[N, 28, 28]``, or photos float32 ``[N, S, S, 3]``, 0..255."""
    labels: Tensor
    """int64 ``[N]``, for a mixed image the label of its larger part; of photos the right answers, bool ``[N, 11]``."""
    targets: Tensor
    """The labels, or probabilities float32 ``[N, 10]`` of mixed images."""
    teacher_logits: Tensor | None = None
    """float32 ``[N, 10]``"""

    def to(self, device: torch.device) -> "Batch":
        """Returns the batch on ``device``."""
        return Batch(*(None if rows is None else rows.to(device) for rows in self))  # type: ignore[arg-type]


class BatchSource:
    """Makes the batches of each epoch. They depend on the seed and the epoch only, so a resumed run gets the same.

    With several processes each gets its shard of every batch. All shards of a batch have the same size, so an epoch
    omits up to (processes - 1) images.
    """

    def __init__(
        self,
        recipe: Recipe,
        images: Tensor,
        labels: Tensor,
        seed: int,
        teacher: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        """Create the source.

        Args:
            recipe: batch size, augmentation and mixing.
            images: uint8 ``[N, 28, 28]``, the training images.
            labels: int64 ``[N]``.
            seed: the run's.
            teacher: computes logits ``[N, 10]`` from images, if the recipe has a teacher.
        """
        self.recipe, self.images, self.labels, self.seed, self.teacher = recipe, images, labels, seed, teacher
        self.batch_size = max(1, recipe.batch_size // distributed.world_size())
        """Images in a batch of this process."""
        self._teacher_logits: dict[int, Tensor] = {}
        generator = torch.Generator().manual_seed(derived_seed(_MIRRORED, seed))
        self._mirrored = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)

    @property
    def images_per_epoch(self) -> int:
        """All training images."""
        return len(self.images)

    def __len__(self) -> int:
        """Returns the number of batches in an epoch.

        A last batch of one image is dropped, because batch normalisation needs two.
        """
        return math.ceil((len(self.images) // distributed.world_size() - 1) / self.batch_size)

    def epoch(self, number: int) -> Iterator[Batch]:
        """Yields the batches of the epoch ``number`` (0, 1, ...); seeds torch's random generator."""
        whole = self._whole(number)
        torch.manual_seed(derived_seed(_EPOCH, self.seed, number))
        order = torch.randperm(len(self.images), device=self.images.device)
        order = order[: len(order) // distributed.world_size() * distributed.world_size()]
        torch.manual_seed(derived_seed(_DROPOUT, self.seed, number, distributed.rank()))
        for indices in torch.split(distributed.shard(order), self.batch_size)[: len(self)]:
            yield Batch(*(None if rows is None else rows[indices] for rows in whole))  # type: ignore[arg-type]

    def _whole(self, epoch: int) -> Batch:
        """Returns all images in the data set's order, as this epoch changes them."""
        distillation = self.recipe.distillation
        if distillation is None or self.teacher is None:
            return self._augmented(epoch)
        # Every other set mirrors the other half of the images (Jordan, arXiv:2404.00498).
        number = epoch % distillation.augmentation_sets
        whole = self._augmented(number, self._mirrored ^ bool(number % 2))
        logits = self._teacher_logits.get(number)
        if logits is None:
            logits = compute_teacher_logits(self.teacher, whole.images)
        if epoch + distillation.augmentation_sets < self.recipe.epochs:  # they are used again
            self._teacher_logits[number] = logits
        return whole._replace(teacher_logits=logits)

    def _augmented(self, number: int, mirrored: Tensor | None = None) -> Batch:
        torch.manual_seed(derived_seed(_SET, self.seed, number))
        images = augment(self.images, self.recipe.augmentation, mirrored)
        if self.recipe.fmix is None:
            return Batch(images, self.labels, self.labels)
        images, mixed = mix(images, self.recipe.fmix)
        return Batch(images, self.labels, mixed.probabilities(self.labels))
