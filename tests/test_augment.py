import numpy as np
import pytest
import torch
from pydantic import ValidationError

from model.network import PIXEL_MEAN
from model.training.augment import Augmentation, augment

GREY = round(255 * PIXEL_MEAN)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def noise(count: int) -> torch.Tensor:
    """Images without the grey of cutout and the black of shift."""
    return torch.randint(GREY + 1, 256, (count, 28, 28), dtype=torch.uint8)


def test_the_default_changes_nothing():
    images = noise(3)
    assert augment(images, Augmentation()) is images


def test_flip_mirrors_half_of_the_images_only():
    images = noise(400)
    changed = augment(images, Augmentation(flip=True))
    mirrored = (changed == images.flip(2)).flatten(1).all(1)
    same = (changed == images).flatten(1).all(1)
    assert (mirrored ^ same).all()
    assert 150 < mirrored.sum() < 250


def test_shift_moves_each_image_by_whole_pixels_within_the_bound():
    images = noise(400)
    changed = augment(images, Augmentation(shift=2))
    moves = {shift_between(before, after, 2) for before, after in zip(images.numpy(), changed.numpy(), strict=True)}
    assert moves == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}


def shift_between(before: np.ndarray, after: np.ndarray, most: int) -> tuple[int, int]:
    """Returns the one shift (down, right) that turns ``before`` into ``after``, with black edges."""
    canvas = np.pad(before, most)
    found = [
        (most - top, most - left)
        for top in range(2 * most + 1)
        for left in range(2 * most + 1)
        if (canvas[top : top + 28, left : left + 28] == after).all()
    ]
    assert len(found) == 1
    return found[0]


def test_cutout_sets_one_square_of_each_image_to_grey():
    images = noise(200)
    changed = augment(images, Augmentation(cutout=10))
    cut = changed == GREY
    assert torch.equal(changed[~cut], images[~cut])
    for mask in cut:
        height, width = int(mask.any(1).sum()), int(mask.any(0).sum())
        assert mask.sum() == height * width, "a rectangle: the part of the square inside the image"
        assert 5 <= height <= 10
        assert 5 <= width <= 10
    assert len({mask.numpy().tobytes() for mask in cut}) > 100, "each image has its own square"


def test_the_same_seed_draws_the_same_changes():
    images, everything = noise(20), Augmentation(flip=True, shift=3, cutout=8)
    torch.manual_seed(5)
    first = augment(images, everything)
    torch.manual_seed(5)
    assert torch.equal(augment(images, everything), first)
    assert not torch.equal(augment(images, everything), first)
    assert first.dtype == torch.uint8


@pytest.mark.parametrize("wrong", [{"shift": -1}, {"shift": 28}, {"cutout": 29}, {"mirror": True}])
def test_an_impossible_augmentation_is_refused(wrong):
    with pytest.raises(ValidationError):
        Augmentation(**wrong)
