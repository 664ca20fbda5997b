"""How articles lie, as far as their outlines tell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from model import CLASSES
from model.prediction import infer
from model.preprocessing.pipeline import preprocess
from model.preprocessing.pose import SHOE_WIDTHS, WIDTHS, find_pose
from tests.pictures import encode, outline, pair_of_shoes, scene, trousers

SPREAD = outline(
    (120, 90), (180, 90), (280, 120), (275, 150), (190, 140), (190, 230), (110, 230), (110, 140), (25, 150), (20, 120)
)
SNEAKER = outline((40, 120), (90, 115), (130, 165), (240, 190), (265, 215), (40, 215))
DRESS = outline((130, 20), (170, 20), (165, 110), (210, 280), (90, 280), (135, 110))
BAG = outline((40, 110), (260, 110), (260, 240), (40, 240))


def ways(mask: np.ndarray) -> list[tuple[int, tuple[float, ...]]]:
    return [(part.turns, part.widths) for part in find_pose(mask).parts]


@pytest.mark.parametrize("mask", [np.asarray(trousers("L", "white", "black")) > 127, DRESS, BAG, np.ones((9, 9), bool)])
def test_what_hangs_is_narrowed(mask):
    assert ways(mask) == [(0, WIDTHS)]
    assert find_pose(mask).step == "narrowed to 80%"


def test_spread_sleeves_are_brought_to_the_height_first():
    ((turns, widths),) = ways(SPREAD)
    assert turns == 0
    assert widths == pytest.approx([141 / 261 * width for width in WIDTHS])


@pytest.mark.parametrize("mask", [SNEAKER, SNEAKER[:, ::-1]], ids=["toe right", "toe left"])
def test_a_single_shoe_keeps_its_width(mask):
    assert ways(mask) == [(0, (1.0,))]


def test_a_pair_of_shoes_is_cut_between_them_and_each_laid_on_its_inner_side():
    mask = pair_of_shoes()
    pose = find_pose(mask)
    assert [(part.turns, part.widths) for part in pose.parts] == [(3, SHOE_WIDTHS), (1, SHOE_WIDTHS)]
    left, right = (part.mask for part in pose.parts)
    assert (left ^ right == mask).all()
    assert np.flatnonzero(left.any(0)).max() < np.flatnonzero(right.any(0)).min()
    assert abs(int(left.sum()) - int(right.sum())) < 0.05 * mask.sum()


def test_two_shoes_apart_are_a_pair_and_two_that_differ_are_none():
    apart = np.zeros((100, 100), bool)
    apart[10:90, 10:45] = apart[12:90, 55:90] = True
    assert len(ways(apart)) == 2
    apart[12:70, 55:90] = False
    assert len(ways(apart)) == 1


@settings(max_examples=300)
@given(
    arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=30)).filter(lambda mask: mask.any()), st.booleans()
)
def test_any_mask_lies_somehow_and_loses_nothing(mask, mirrored):
    parts = find_pose(mask[:, ::-1] if mirrored else mask).parts
    total = sum(part.mask.astype(int) for part in parts)
    assert (total == (mask[:, ::-1] if mirrored else mask)).all()
    assert all(part.mask.any() and min(part.widths) > 0 for part in parts)


def test_a_photo_of_a_pair_of_shoes_is_answered_as_shoes_and_says_what_was_done(engine):
    picture = preprocess(encode(scene("wood", place=pair_of_shoes())[0]))
    assert "a pair of shoes: each laid on its inner side" in picture.preprocessing.steps
    assert picture.preprocessing.rotation_degrees == 270
    left, top, right, bottom = picture.preprocessing.crop_box
    assert (left, top, right, bottom) == pytest.approx((66, 30, 150, 272), abs=9), (
        "the left shoe's, which is shown first"
    )
    assert CLASSES[next(infer(engine, [picture])).logits.argmax()] in ("Sandal", "Sneaker", "Ankle boot")
