"""What to train and how: everything that decides the weights, apart from the data and the machine."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from model.training.augment import Augmentation
from model.training.distillation import Distillation
from model.training.fmix import Mixing


class Recipe(BaseModel):
    """One way to train one architecture on ``F.nll_loss``, alone or with what other networks have learnt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    architecture: str
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    optimizer: Literal["adam", "sgd"] = Field(default="adam", description="sgd: with Nesterov momentum of .9")
    learning_rate: float = Field(gt=0, description="the first of schedule step, the highest of one-cycle")
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["step", "one-cycle"] = Field(
        default="step", description="step: StepLR by epochs; one-cycle: up and down to 0 by batches, over all epochs"
    )
    restarts: tuple[int, ...] = Field(
        default=(),
        description="epochs after which one-cycle begins anew; what was reached becomes a member of the released "
        "network (snapshot ensemble: Huang et al., arXiv:1704.00109)",
    )
    warm_up: float = Field(default=0.3, gt=0, lt=1, description="share of one-cycle in which the learning rate rises")
    step_size: int = Field(default=1, ge=1, description="epochs between two steps of StepLR")
    gamma: float = Field(default=1.0, gt=0, le=1, description="factor of the learning rate at each step")
    augmentation: Augmentation = Augmentation()
    mixing: Mixing | None = Field(default=None, description="make images of two")
    distillation: Distillation | None = Field(default=None, description="learn from another network's answers too")
    validation_size: int = Field(default=5000, ge=1, description="training images held out, stratified by class")
    validation_seed: int | None = Field(default=None, description="which images are held out; None: the run's seed")

    def cycle(self, epoch: int) -> tuple[int, int]:
        """Between which two numbers of completed epochs a one-cycle ends and begins, that the ``epoch``-th is in."""
        first = max((end for end in self.restarts if end < epoch), default=0)
        return first, min([self.epochs, *(end for end in self.restarts if end > first)])

    @property
    def parents(self) -> list[str]:
        """Names of the artefacts that the training needs."""
        return [self.distillation.teacher] if self.distillation else []

    def split_seed(self, run_seed: int) -> int:
        """The seed that the held-out images of a run with ``run_seed`` are drawn by."""
        return run_seed if self.validation_seed is None else self.validation_seed


_RECIPES = (
    Recipe(name="baseline", architecture="fashionnet", epochs=12, batch_size=128, learning_rate=1e-3, gamma=0.8),
    Recipe(
        name="fast",
        architecture="fashionnet-normalised",
        epochs=2,
        batch_size=128,
        optimizer="sgd",
        learning_rate=0.1,
        weight_decay=5e-4,
        schedule="one-cycle",
    ),
    Recipe(
        name="best",
        architecture="fashionnet-normalised",
        epochs=48,
        batch_size=128,
        optimizer="sgd",
        learning_rate=0.1,
        weight_decay=3e-4,
        schedule="one-cycle",
        augmentation=Augmentation(flip=True),
        distillation=Distillation(teacher="fashionnet-photo", weight=0.95, views=2),
        validation_seed=1,
    ),
    Recipe(
        name="deep",
        architecture="fashionnet-deep",
        epochs=200,
        batch_size=256,
        optimizer="sgd",
        learning_rate=0.2,
        weight_decay=3e-4,
        schedule="one-cycle",
        warm_up=0.1,
        augmentation=Augmentation(flip=True, shift=3, cutout=12),
        mixing=Mixing(share=0.5),
        distillation=Distillation(teacher="fashionnet-teacher", weight=0.95, views=200),
        validation_seed=1,
    ),
    Recipe(
        name="teacher",
        architecture="fashionnet-teacher",
        epochs=280,
        batch_size=256,
        optimizer="sgd",
        learning_rate=0.2,
        weight_decay=5e-4,
        schedule="one-cycle",
        warm_up=0.1,
        augmentation=Augmentation(flip=True, shift=3),
        mixing=Mixing(share=0.75),
        validation_seed=1,
    ),
    Recipe(
        name="photo",
        architecture="fashionnet-photo",
        epochs=190,
        batch_size=128,
        optimizer="sgd",
        learning_rate=0.1,
        weight_decay=5e-4,
        schedule="one-cycle",
        warm_up=0.1,
        restarts=(80, 130),
        augmentation=Augmentation(flip=True, shift=2, cutout=14),
        validation_seed=1,
    ),
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}
