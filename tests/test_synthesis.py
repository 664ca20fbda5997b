"""Synthetic photos: Fashion-MNIST on other backgrounds, and outliers."""

import pytest
import torch

from model.training.photo_batches import crop_randomly, vary_colours
from model.training.synthesis import draw_articles, draw_backgrounds, draw_outliers, enlarge

PHOTOS = torch.randint(0, 256, (20, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
SQUARE = torch.zeros(1, 28, 28, dtype=torch.uint8)
SQUARE[:, 4:24, 4:24] = 200


def drawn(function, *arguments, seed=0):
    torch.manual_seed(seed)
    return function(*arguments)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: draw_backgrounds(PHOTOS, 64),
        lambda: draw_articles(SQUARE.expand(20, -1, -1), draw_backgrounds(PHOTOS, 64)),
        lambda: draw_outliers(draw_backgrounds(PHOTOS, 64)),
        lambda: vary_colours(crop_randomly(PHOTOS, 64)),
    ],
    ids=["backgrounds", "articles", "outliers", "photos"],
)
def test_pictures_are_in_range_and_depend_on_the_seed(draw):
    pictures = drawn(draw)
    assert pictures.shape == (20, 3, 64, 64)
    assert 0 <= pictures.min() < pictures.max() <= 255
    assert torch.equal(pictures, drawn(draw))
    assert not torch.equal(pictures, drawn(draw, seed=1))
    assert len({picture.numpy().tobytes() for picture in pictures}) == 20


def test_an_article_covers_its_background_and_leaves_the_rest():
    torch.manual_seed(0)
    backgrounds = torch.full((200, 3, 64, 64), 100.0)
    pictures = draw_articles(SQUARE.expand(200, -1, -1), backgrounds)
    changed = ((pictures - backgrounds).abs().amax(1) > 40).float().mean((1, 2))
    assert 0.05 < changed.mean() < 0.6
    assert (changed > 0.05).float().mean() > 0.7  # a few articles have the background's colour
    assert ((pictures - backgrounds).abs().amax(1) < 1).float().mean() > 0.2


def test_an_enlarged_image_stays_light_on_black():
    picture = enlarge(SQUARE, 56)[0]
    assert torch.equal(picture[0], picture[2])
    assert picture[:, 28, 28].tolist() == [200] * 3
    assert picture[:, 0, 0].tolist() == [0] * 3


def test_a_crop_may_mirror_the_photo():
    ramp = torch.arange(96, dtype=torch.uint8)[None, None, :, None].expand(64, 96, 96, 3)
    crops = drawn(crop_randomly, ramp, 32)
    rising = (crops[:, 0, 16, 24] > crops[:, 0, 16, 8]).float().mean()
    assert 0.3 < rising < 0.7


def test_a_tenth_of_the_crops_lies_on_its_side():
    ramp = torch.arange(96, dtype=torch.uint8)[None, None, :, None].expand(400, 96, 96, 3)
    crops = drawn(crop_randomly, ramp, 32)
    across, down = ((crops[:, 0, *end] - crops[:, 0, *start]).abs() for start, end in (
        ((16, 8), (16, 24)), ((8, 16), (24, 16))
    ))  # fmt: skip
    assert 0.05 < (down > across).float().mean() < 0.15
