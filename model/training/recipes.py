"""Recipes: architecture, optimiser, schedule, augmentation and teacher of a training run."""

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from model.training.augment import Augmentation
from model.training.distillation import Distillation
from model.training.fmix import FMixConfig
from model.training.photo_mix import PhotoMix


class Recipe(BaseModel):
    """How to train one architecture, alone or with a teacher.

    The loss is ``F.nll_loss``, for mixed images the cross-entropy, for photos ``smoothed_set_loss``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str
    architecture: str
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    optimizer: Literal["adam", "adamw", "sgd"] = Field(default="adam", description="sgd: with Nesterov momentum 0.9")
    learning_rate: float = Field(gt=0, description="initial rate of schedule step, peak of one-cycle")
    weight_decay: float = Field(default=0.0, ge=0)
    schedule: Literal["step", "one-cycle"] = Field(
        default="step", description="step: StepLR after each epoch; one-cycle: up, then down to 0, after each batch"
    )
    restarts: tuple[int, ...] = Field(
        default=(),
        description="epochs after which one-cycle starts again; the network at each restart becomes a member of the "
        "exported ensemble (snapshot ensemble: Huang et al., arXiv:1704.00109)",
    )
    warm_up: float = Field(default=0.3, gt=0, lt=1, description="share of one-cycle with a rising learning rate")
    step_size: int = Field(default=1, ge=1, description="epochs between two steps of StepLR")
    gamma: float = Field(default=1.0, gt=0, le=1, description="factor of the learning rate at each step")
    augmentation: Augmentation = Augmentation()
    fmix: FMixConfig | None = Field(
        default=None, validation_alias=AliasChoices("fmix", "mixing"), description="mix images with each other"
    )
    distillation: Distillation | None = Field(default=None, description="learn from another network's logits too")
    photos: PhotoMix | None = Field(default=None, description="train on photos, from weights of ImageNet")
    validation_size: int = Field(default=5000, ge=1, description="training images held out, stratified by class")
    validation_seed: int | None = Field(default=None, description="selects the validation images; None: the run's seed")

    def cycle(self, epoch: int) -> tuple[int, int]:
        """Returns (start, end) of the learning-rate cycle that contains ``epoch`` (1, 2, ...), in completed epochs."""
        first = max((end for end in self.restarts if end < epoch), default=0)
        return first, min([self.epochs, *(end for end in self.restarts if end > first)])

    @property
    def photo_mix(self) -> PhotoMix:
        """What the batches consist of; raises ValueError if the recipe does not train on photos."""
        if self.photos is None:
            raise ValueError(f"the recipe {self.name} trains on no photos")
        return self.photos

    @property
    def teachers(self) -> list[str]:
        """Names of the artefacts that the training needs."""
        return [self.distillation.teacher] if self.distillation else []

    def split_seed(self, run_seed: int) -> int:
        """Returns the seed that selects the validation images of a run with ``run_seed``."""
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
        distillation=Distillation(teacher="fashionnet-residual", weight=0.95, augmentation_sets=2),
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
        fmix=FMixConfig(probability=0.5),
        distillation=Distillation(teacher="fashionnet-teacher", weight=0.95, augmentation_sets=200),
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
        fmix=FMixConfig(probability=0.75),
        validation_seed=1,
    ),
    Recipe(
        name="residual",
        architecture="fashionnet-residual",
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
    Recipe(
        name="photo",
        architecture="fashionnet-photo",
        epochs=8,
        batch_size=32,
        optimizer="adamw",
        learning_rate=4e-4,
        weight_decay=0.02,
        schedule="one-cycle",
        warm_up=0.15,
        # Of Fashion-MNIST mostly what the photos do not show: bags and single shoes.
        photos=PhotoMix(
            stored_size=288,
            drawn=8,
            outliers=2,
            class_weights={0: 0.6, 1: 0.7, 2: 0.6, 3: 0.7, 4: 0.6, 5: 1.5, 6: 0.5, 7: 1.5, 8: 2.0, 9: 1.5},
        ),
        validation_seed=1,
    ),
)
RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in _RECIPES}
