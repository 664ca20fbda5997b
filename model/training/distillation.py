"""Distillation: a trained network's answers as the targets of another's training (Hinton et al., arXiv:1503.02531).

The teacher sees the very pixels that the student sees (Beyer et al., arXiv:2106.05237). Its answers would cost more
than the student's own training, so the epochs take turns at a few sets of changed images, each answered once. What one
set mirrors the next one does not, so that no image is seen from one side only (Jordan, arXiv:2404.00498).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from model.training import distributed
from model.training.augment import Augmentation, augment
from model.training.fmix import Mixing, Mixture, mix
from model.training.seeds import derived_seed

_CHUNK = 500
_VIEWS = 1  # tells the seeds of views from those of epochs


class Distillation(BaseModel):
    """Whom to learn from, and how much."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    teacher: str = Field(description="name of an artefact")
    temperature: float = Field(default=4.0, gt=0, description="divides both networks' logits: soft targets")
    weight: float = Field(default=0.9, ge=0, le=1, description="share of the teacher in the loss; the rest is labels'")
    views: int = Field(default=8, ge=1, description="sets of changed images that the epochs take turns at")

    def loss(self, log_probs: Tensor, answers: Tensor, label_loss: Tensor) -> Tensor:
        """The mean cross-entropy with the teacher and the loss by the labels, weighted.

        Args:
            log_probs: ``[N, 10]``, the student's.
            answers: ``[N, 10]``, the teacher's logits for the same images.
            label_loss: ``[]``, what the loss would be without a teacher.
        """
        # Log-probabilities are logits too; the square evens out what the temperature takes from the gradients.
        soft = F.cross_entropy(log_probs / self.temperature, F.softmax(answers / self.temperature, dim=1))
        return self.weight * self.temperature**2 * soft + (1 - self.weight) * label_loss


class Lesson(NamedTuple):
    """What an epoch is taught."""

    images: Tensor
    """uint8 ``[N, 28, 28]``, all of them, changed."""
    answers: Tensor
    """``[N, 10]``, the teacher's logits."""
    mixture: Mixture | None
    """What the images are made of, where they are mixed."""


class Teacher:
    """A trained network and the images that it explains, on one device."""

    def __init__(
        self,
        logits: Callable[[Tensor], Tensor],
        images: Tensor,
        augmentation: Augmentation,
        distillation: Distillation,
        mixing: Mixing | None,
        *,
        seed: int,
    ) -> None:
        """Take on a teacher.

        Args:
            logits: the network in evaluation mode: images uint8 ``[N, 28, 28]`` -> ``[N, 10]``.
            images: all that there is to be taught.
            augmentation: how each set of them is changed.
            distillation: how many sets there are.
            mixing: how they are mixed, if they are.
            seed: the run's.
        """
        self.logits = logits
        self.images = images
        self.augmentation = augmentation
        self.mixing = mixing
        self.views = distillation.views
        self.seed = seed
        self._answers: dict[int, Tensor] = {}
        generator = torch.Generator().manual_seed(derived_seed(seed, _VIEWS))
        self._mirrored = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)

    def lesson(self, epoch: int) -> Lesson:
        """What the epoch of this number is taught."""
        view = epoch % self.views
        with torch.random.fork_rng():  # the view depends on nothing but its number, so a resumed run sees it again
            torch.manual_seed(derived_seed(self.seed, _VIEWS, view))
            images = augment(self.images, self.augmentation, self._mirrored ^ bool(view % 2))
            images, mixture = mix(images, self.mixing) if self.mixing else (images, None)
        if view not in self._answers:
            self._answers[view] = self._answer(images)
        return Lesson(images, self._answers[view], mixture)

    @torch.no_grad()
    def _answer(self, images: Tensor) -> Tensor:
        part = distributed.part(images)
        disable = True if distributed.rank() else None  # as the training's own bar
        with tqdm(
            total=len(part), desc="teacher", unit=" images", unit_scale=True, leave=False, disable=disable
        ) as bar:
            answers = []
            for chunk in torch.split(part, _CHUNK):
                answers.append(self.logits(chunk))
                bar.update(len(chunk))
        return distributed.united(torch.cat(answers))
