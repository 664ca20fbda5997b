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
    """Images without a pixel of the grey that cutout leaves, or of the black that a shift brings in."""
    return torch.randint(GREY + 1, 256, (count, 28, 28), dtype=torch.uint8)


def test_nothing_is_changed_where_nothing_is_asked_for():
    images = noise(3)
    assert augment(images, Augmentation()) is images


def test_half_of_the_images_are_mirrored_and_the_rest_stays():
    images = noise(400)
    changed = augment(images, Augmentation(flip=True))
    mirrored = (changed == images.flip(2)).flatten(1).all(1)
    same = (changed == images).flatten(1).all(1)
    assert (mirrored ^ same).all()
    assert 150 < mirrored.sum() < 250


def test_every_image_is_shifted_by_its_own_whole_pixels_within_the_bound():
    images = noise(400)
    changed = augment(images, Augmentation(shift=2))
    moves = {shift_between(before, after, 2) for before, after in zip(images.numpy(), changed.numpy(), strict=True)}
    assert moves == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}


def shift_between(before: np.ndarray, after: np.ndarray, most: int) -> tuple[int, int]:
    """The one move that makes ``before`` into ``after``, black coming in at the edges."""
    canvas = np.pad(before, most)
    found = [
        (most - top, most - left)
        for top in range(2 * most + 1)
        for left in range(2 * most + 1)
        if (canvas[top : top + 28, left : left + 28] == after).all()
    ]
    assert len(found) == 1
    return found[0]


def test_cutout_makes_one_grey_square_and_leaves_the_rest():
    images = noise(200)
    changed = augment(images, Augmentation(cutout=10))
    cut = changed == GREY
    assert torch.equal(changed[~cut], images[~cut])
    for mask in cut:
        height, width = int(mask.any(1).sum()), int(mask.any(0).sum())
        assert mask.sum() == height * width, "a rectangle: the square, or what of it lies in the image"
        assert 5 <= height <= 10
        assert 5 <= width <= 10
    assert len({mask.numpy().tobytes() for mask in cut}) > 100, "every image has its own"


def test_the_same_seed_draws_the_same_changes():
    images, everything = noise(20), Augmentation(flip=True, shift=3, cutout=8)
    torch.manual_seed(5)
    first = augment(images, everything)
    torch.manual_seed(5)
    assert torch.equal(augment(images, everything), first)
    assert not torch.equal(augment(images, everything), first)
    assert first.dtype == torch.uint8


@pytest.mark.parametrize("wrong", [{"shift": -1}, {"shift": 28}, {"cutout": 29}, {"mirror": True}])
def test_an_augmentation_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValidationError):
        Augmentation(**wrong)
