"""Batches, distillation, and runs with a teacher."""

import json

import pytest
import torch
from torch.nn import functional as F

from model import WEIGHTS, list_artifacts, load_artifact
from model.artifact import read_card, save_artifact
from model.errors import TrainingError
from model.export.build import describe
from model.network import FashionNet
from model.training.augment import Augmentation
from model.training.batches import Batch, BatchSource
from model.training.distillation import Distillation
from model.training.fmix import FMixConfig
from model.training.loop import RunConfig
from model.training.recipes import Recipe
from model.training.run import Run
from tests.training_runs import changed, finished, make_config, state_of


def test_the_loss_is_the_weighted_cross_entropy_with_teacher_and_labels():
    torch.manual_seed(0)
    logits, teacher_logits, labels = torch.randn(6, 10), torch.randn(6, 10), torch.arange(6)
    distillation = Distillation(teacher="t", temperature=2, weight=0.75, augmentation_sets=1)
    loss = distillation.loss(F.log_softmax(logits, 1), teacher_logits, F.cross_entropy(logits, labels))
    soft = -(F.softmax(teacher_logits / 2, 1) * F.log_softmax(logits / 2, 1)).sum(1).mean()
    expected = 0.75 * 4 * soft + 0.25 * F.cross_entropy(logits, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


IMAGES = torch.randint(0, 256, (12, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(12) % 10


def source(augmentation: Augmentation, fmix: FMixConfig | None = None, sets: int = 0) -> BatchSource:
    """Batches of 5 of twelve images; with augmentation sets, with a teacher's logits."""
    torch.manual_seed(0)
    network = FashionNet().eval()
    distillation = Distillation(teacher="t", weight=0.9, augmentation_sets=sets) if sets else None
    recipe = changed("best", batch_size=5, augmentation=augmentation, fmix=fmix, distillation=distillation)
    teacher = torch.no_grad()(lambda images: network.outputs(images).logits)
    return BatchSource(recipe, IMAGES, LABELS, 1, teacher if sets else None)


def whole(batches: BatchSource, epoch: int) -> Batch:
    """All batches of an epoch as one."""
    return Batch(
        *(torch.cat(rows) if rows[0] is not None else None for rows in zip(*batches.epoch(epoch), strict=True))
    )


def in_order(rows: torch.Tensor) -> list[bytes]:
    return sorted(row.numpy().tobytes() for row in rows)


@pytest.mark.parametrize(("images", "sizes"), [(10, [5, 5]), (11, [5, 5]), (12, [5, 5, 2])])
def test_one_image_alone_is_no_batch(images, sizes):
    """Batch normalisation needs two."""
    batches = BatchSource(changed("best", batch_size=5, distillation=None), IMAGES[:images], LABELS[:images], 1)
    assert [len(batch.labels) for batch in batches.epoch(0)] == sizes
    assert len(batches) == len(sizes)


def test_an_epoch_has_every_image_once_in_another_order_than_the_next():
    batches = source(Augmentation())
    assert [len(batch.labels) for batch in batches.epoch(0)] == [5, 5, 2]
    assert len(batches) == 3
    first, second = whole(batches, 0), whole(batches, 1)
    assert in_order(first.images) == in_order(second.images) == in_order(IMAGES)
    assert not torch.equal(first.images, second.images)
    for image, label, target in zip(first.images, first.labels, first.targets, strict=True):
        (index,) = (index for index in range(12) if torch.equal(IMAGES[index], image))
        assert label == target == LABELS[index]


@pytest.mark.parametrize("sets", [0, 2])
def test_an_epoch_depends_on_its_number_and_the_seed_only(sets):
    """So a resumed run trains on the same batches."""
    one, other = (source(Augmentation(flip=True, shift=4), FMixConfig(probability=0.5), sets) for _ in range(2))
    whole(one, 0)
    torch.rand(7)
    for first, second in zip(whole(one, 3), whole(other, 3), strict=True):
        assert first is second is None or torch.equal(first, second)


def test_a_teacher_gets_the_augmented_images_that_the_student_sees():
    batches = source(Augmentation(shift=4), sets=2)
    for batch in batches.epoch(0):
        torch.testing.assert_close(batch.teacher_logits, batches.teacher(batch.images))
        assert not set(in_order(batch.images)) & set(in_order(IMAGES))


def test_consecutive_sets_mirror_opposite_halves_of_the_images():
    batches = source(Augmentation(flip=True), sets=2)
    first, second = (set(in_order(whole(batches, epoch).images)) for epoch in (0, 1))
    mirrored = [mirror.numpy().tobytes() in first for mirror in IMAGES.flip(2)]
    assert 0 < sum(mirrored) < 12
    for was, image, mirror in zip(mirrored, IMAGES, IMAGES.flip(2), strict=True):
        assert (image if was else mirror).numpy().tobytes() in second


def test_epochs_rotate_through_the_sets_and_a_teacher_computes_each_once():
    batches, calls = source(Augmentation(shift=4), sets=2), []
    teacher = batches.teacher
    batches.teacher = lambda images: calls.append(len(images)) or teacher(images)
    sets = [in_order(whole(batches, epoch).images) for epoch in range(4)]
    assert sets[0] == sets[2] != sets[1] == sets[3]
    assert calls == [12, 12]


def test_a_teacher_gets_mixed_images_and_targets_state_their_shares():
    batches = source(Augmentation(), FMixConfig(probability=1), sets=2)
    for batch in batches.epoch(0):
        torch.testing.assert_close(batch.teacher_logits, batches.teacher(batch.images))
        assert batch.targets.sum(1).tolist() == pytest.approx([1] * len(batch.labels))
        assert (batch.targets.gather(1, batch.labels[:, None]) >= 0.5).all()


@pytest.mark.parametrize("name", list_artifacts(WEIGHTS))
def test_recipes_in_cards_of_version_0_1_are_read(name):
    """They call fmix ``mixing``, its probability ``share``, and augmentation sets ``views``."""
    stored = read_card(WEIGHTS, name).recipe
    recipe = Recipe(**stored)
    if stored.get("distillation"):
        given = stored["distillation"]
        assert recipe.distillation.augmentation_sets == given.get("views", given.get("augmentation_sets"))
    assert Recipe(**recipe.model_dump()) == recipe
    old = {"name": "deep", "architecture": "x", "epochs": 1, "batch_size": 1, "learning_rate": 1}
    assert Recipe(**old, mixing={"share": 0.25}).fmix == FMixConfig(probability=0.25)


@pytest.fixture(scope="module")
def taught_by(small_data, exported_run, tmp_path_factory):
    """The configuration of a short ``best`` run whose teacher is the shared network."""
    folder = tmp_path_factory.mktemp("teacher")
    artifact = load_artifact(exported_run, "fashionnet")
    card = save_artifact(folder, artifact.card.model_copy(update={"name": "fashionnet-residual"}), artifact.content)

    def config(epochs: int = 2, validation_seed: int = 3, version: str = card.version) -> RunConfig:
        recipe = changed("best", validation_seed=validation_seed)
        return make_config(
            small_data, epochs, recipe, seed=8, teacher_dir=str(folder), teachers={"fashionnet-residual": version}
        )

    return config


def test_a_student_learns_resumes_bit_for_bit_and_becomes_fashionnet(taught_by, small_data, tmp_path):
    complete = finished(Run.start(tmp_path / "complete", taught_by(), small_data))
    next(Run.start(tmp_path / "interrupted", taught_by(), small_data).epochs())
    resumed = finished(Run.resume(tmp_path / "interrupted", small_data))
    assert state_of(resumed.trainer) == state_of(complete.trainer)
    assert complete.trainer.history[-1].validation_accuracy > 0.5
    network = complete.trainer.network_to_export()
    card = describe(network, complete.trainer)
    assert (card.architecture, card.parameters) == ("fashionnet", 1_199_882)
    assert card.training["teachers"] == taught_by().teachers
    images = torch.from_numpy(small_data.load("test").images[:20].copy())
    with torch.inference_mode():
        logits = [one.outputs(images).logits for one in (network, complete.trainer.network.eval())]
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


def test_a_run_of_version_0_1_with_a_teacher_is_read(taught_by, small_data, tmp_path):
    run = Run.start(tmp_path, taught_by(), small_data)
    config = json.loads(run.folder.config_file.read_text())
    config["parents"], config["parents_folder"] = config.pop("teachers"), config.pop("teacher_dir")
    run.folder.config_file.write_text(json.dumps(config))
    assert run.folder.read_config() == run.config


def test_a_teacher_that_saw_the_validation_images_is_refused(taught_by, small_data, tmp_path):
    with pytest.raises(TrainingError, match="was trained on images that validate this run"):
        Run.start(tmp_path, taught_by(validation_seed=4), small_data)


def test_another_teacher_than_at_the_start_is_refused(taught_by, small_data, tmp_path):
    with pytest.raises(TrainingError, match="this run started with 0123456789ab"):
        Run.start(tmp_path, taught_by(version="0123456789ab"), small_data)


def test_a_checkpoint_of_another_version_is_named(taught_by, small_data, tmp_path):
    run = Run.start(tmp_path, taught_by(epochs=1), small_data)
    finished(run)
    state = torch.load(run.folder.checkpoints / "epoch-0001.pt", weights_only=True)
    del state["network"]["norm1.weight"]
    torch.save(state, run.folder.checkpoints / "epoch-0001.pt")
    with pytest.raises(TrainingError, match=r"epoch-0001.pt is of another version"):
        Run.resume(run.folder.path, small_data)
