"""Distillation: what a student is taught, and runs with a teacher."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from model import create_engine, load_artifact
from model.errors import TrainingError
from model.network import FashionNet
from model.training.augment import Augmentation
from model.training.distillation import Distillation, Teacher
from model.training.fmix import Mixing
from model.training.loop import RunConfig
from model.training.recipes import RECIPES
from model.training.run import Run
from tests.test_training import finished, make_config, state_of


def test_the_loss_is_the_weighted_cross_entropy_with_teacher_and_labels():
    torch.manual_seed(0)
    logits, answers, labels = torch.randn(6, 10), torch.randn(6, 10), torch.arange(6)
    distillation = Distillation(teacher="t", temperature=2, weight=0.75)
    loss = distillation.loss(F.log_softmax(logits, 1), answers, F.cross_entropy(logits, labels))
    soft = -(F.softmax(answers / 2, 1) * F.log_softmax(logits / 2, 1)).sum(1).mean()
    expected = 0.75 * 4 * soft + 0.25 * F.cross_entropy(logits, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.fixture
def teacher() -> Teacher:
    images = torch.randint(0, 256, (12, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return taught(images, Augmentation(shift=4))


def taught(images: torch.Tensor, augmentation: Augmentation, mixing: Mixing | None = None) -> Teacher:
    network = FashionNet().eval()
    distillation = Distillation(teacher="t", views=2)
    return Teacher(lambda chunk: network.outputs(chunk).logits, images, augmentation, distillation, mixing, seed=1)


def test_a_teacher_answers_for_the_very_images_that_the_student_sees(teacher):
    images, answers, _ = teacher.lesson(0)
    assert not torch.equal(images, teacher.images)
    assert torch.equal(answers, teacher.logits(images))


def test_what_one_view_mirrors_the_next_does_not(teacher):
    first, second = (taught(teacher.images, Augmentation(flip=True)).lesson(epoch)[0] for epoch in (0, 1))
    mirrored = teacher.images.flip(2)
    is_mirrored = [bool(torch.equal(view, image)) for view, image in zip(first, mirrored, strict=True)]
    assert 0 < sum(is_mirrored) < 12
    for was, image, other, view in zip(is_mirrored, teacher.images, mirrored, second, strict=True):
        assert torch.equal(view, image if was else other)


def test_epochs_take_turns_at_the_views_whatever_was_drawn_between(teacher):
    first, second = teacher.lesson(0)[0], teacher.lesson(1)[0]
    torch.rand(7)
    assert torch.equal(teacher.lesson(2)[0], first)
    assert torch.equal(teacher.lesson(3)[0], second)
    assert not torch.equal(first, second)


def test_a_teacher_answers_for_mixed_images_and_says_what_they_are_made_of(teacher):
    mixing = taught(teacher.images, Augmentation(), Mixing(share=1))
    images, answers, (partners, kept) = mixing.lesson(0)
    assert torch.equal(answers, mixing.logits(images))
    own = (images == teacher.images).flatten(1).float().mean(1)
    torch.testing.assert_close(own[partners != torch.arange(12)], kept[partners != torch.arange(12)], atol=0.02, rtol=0)
    assert torch.equal(mixing.lesson(2).images, images)
    assert teacher.lesson(0).mixture is None


def test_a_lesson_leaves_the_random_generator_alone(teacher):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    teacher.lesson(0)
    assert torch.equal(torch.rand(3), expected)


@pytest.fixture(scope="module")
def taught_by(small_data, tmp_path_factory):
    """The configuration of a short `best` run, taught by a network trained for it."""
    folder = tmp_path_factory.mktemp("teacher")
    card = finished(Run.start(folder, make_config(small_data, 2, name="fashionnet-photo"), small_data)).release(folder)
    return lambda **changes: best(small_data, str(folder), card.version, **changes)


def best(data_set, folder: str, version: str, validation_seed: int = 3) -> RunConfig:
    changes = {"epochs": 3, "validation_seed": validation_seed}
    changes["distillation"] = RECIPES["best"].distillation.model_copy(update={"views": 2})
    config = make_config(data_set, 3, seed=8, parents_folder=folder, parents={"fashionnet-photo": version})
    return config.model_copy(update={"recipe": RECIPES["best"].model_copy(update=changes)})


@pytest.mark.slow
def test_a_student_learns_resumes_bit_for_bit_and_is_released_as_fashionnet(taught_by, small_data, tmp_path):
    whole = finished(Run.start(tmp_path / "whole", taught_by(), small_data))
    next(Run.start(tmp_path / "interrupted", taught_by(), small_data).epochs())
    resumed = finished(Run.resume(tmp_path / "interrupted", small_data))
    assert state_of(resumed.trainer) == state_of(whole.trainer)
    assert whole.trainer.history[-1].validation_accuracy > 0.5
    card = whole.release(tmp_path)
    assert card.architecture == "fashionnet"
    assert card.parameters == 1_199_882
    assert card.training["parents"] == taught_by().parents
    assert card.metrics["validation"].accuracy == pytest.approx(whole.trainer.history[-1].validation_accuracy)
    logits = [
        create_engine(name, load_artifact(tmp_path, "fashionnet")).run(small_data.load("test").images[:20]).logits
        for name in ("onnx", "torch")
    ]
    np.testing.assert_allclose(*logits, atol=1e-4)


def test_a_teacher_that_saw_the_validation_images_is_refused(taught_by, small_data, tmp_path):
    with pytest.raises(TrainingError, match="was trained on images that this run is validated on"):
        Run.start(tmp_path, taught_by(validation_seed=4), small_data)


def test_another_teacher_than_the_run_began_with_is_refused(taught_by, small_data, tmp_path):
    config = taught_by().model_copy(update={"parents": {"fashionnet-photo": "0123456789ab"}})
    with pytest.raises(TrainingError, match="began with 0123456789ab"):
        Run.start(tmp_path, config, small_data)
