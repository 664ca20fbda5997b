import io

import numpy as np
import pytest
from PIL import Image, ImageColor

from model import draw_gallery
from model.plots.gallery import CAPTION, GAP, TILE
from model.plots.style import CORRECT, INCORRECT
from tests.pictures import random_image


def draw(labels, predicted, columns):
    images = np.stack([random_image(i) for i in range(len(labels))])
    return Image.open(io.BytesIO(draw_gallery(images, labels, predicted, columns=columns))).convert("RGB"), images


@pytest.mark.parametrize(("count", "columns", "rows"), [(6, 3, 2), (7, 3, 3), (1, 8, 1)])
def test_the_grid_has_a_place_for_every_image(count, columns, rows):
    picture, _ = draw([0] * count, [0] * count, columns)
    assert picture.size == (columns * (TILE + GAP) + GAP, rows * (TILE + CAPTION + GAP) + GAP)


def test_the_images_are_shown_as_they_are():
    picture, images = draw([1, 2], [1, 3], 2)
    tile = picture.crop((GAP, GAP, GAP + TILE, GAP + TILE)).convert("L").resize((28, 28), Image.Resampling.NEAREST)
    assert (np.asarray(tile) == images[0]).all()


def test_right_and_wrong_differ_in_colour_and_in_their_mark():
    right, _ = draw([5], [5], 1)
    wrong, _ = draw([5], [7], 1)
    assert right.getpixel((GAP - 1, GAP)) == ImageColor.getrgb(CORRECT)
    assert wrong.getpixel((GAP - 1, GAP)) == ImageColor.getrgb(INCORRECT)
    mark = (GAP, GAP + TILE + 4, GAP + 13, GAP + TILE + 17)
    ink = [np.asarray(picture.crop(mark).convert("L")) < 200 for picture in (right, wrong)]
    assert (ink[0] != ink[1]).sum() > 10, "the marks have different shapes, not only colours"


def test_captions_name_both_labels():
    caption = (GAP, GAP + TILE + 2, GAP + TILE, GAP + TILE + CAPTION)
    pictures = [draw([true], [predicted], 1)[0].crop(caption).tobytes() for true, predicted in ((0, 1), (0, 2), (3, 1))]
    assert len(set(pictures)) == 3


def test_no_image_is_a_picture_that_says_so():
    picture = Image.open(io.BytesIO(draw_gallery(np.zeros((0, 28, 28), np.uint8), [], [], columns=4)))
    assert picture.getextrema() != ((255, 255),) * 3
