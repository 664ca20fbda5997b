import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from scipy import ndimage

from model.prediction import PHOTO_ALLOWANCE, infer
from model.preprocessing.foreground import find_foreground, label
from model.preprocessing.pipeline import CONTRASTS, preprocess
from model.preprocessing.pose import WIDTHS
from tests.pictures import encode, scene, trousers

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12))


@settings(max_examples=300)
@given(MASKS)
def test_parts_are_labelled_as_scipy_labels_them(mask):
    labels, count = label(mask)
    expected, expected_count = ndimage.label(mask)
    assert count == expected_count
    assert (labels == expected).all()


@pytest.mark.parametrize("background", ["shaded", "wood", "tiles", "dark"])
def test_an_article_is_cut_out_of_a_busy_background(background):
    image, place = scene(background, ink="#c8d0e8" if background == "dark" else "#2d3a5c")
    small = image.resize((128, 128), Image.Resampling.BOX)
    truth = np.asarray(Image.fromarray(place).resize((128, 128)))
    found = find_foreground(np.asarray(small))
    assert not found.plain
    overlap = (found.mask & truth).sum() / (found.mask | truth).sum()
    assert overlap > 0.85


@pytest.mark.parametrize("background", ["shaded", "wood", "tiles"])
def test_a_photo_is_answered_as_the_drawing_is(engine, background):
    pictures = [preprocess(encode(image)) for image in (scene(background)[0], trousers())]
    assert [finding.logits.argmax() for finding in infer(engine, pictures)] == [1, 1], "trousers"


def test_a_photo_is_seen_in_several_ways_and_the_answers_averaged(engine):
    photo, drawing = (preprocess(encode(image)) for image in (scene("wood")[0], trousers()))
    assert len(photo.views) == len(WIDTHS) * len(CONTRASTS)
    assert len({view.tobytes() for view in photo.views}) == len(photo.views)
    assert len(drawing.views) == 1
    found = list(infer(engine, [drawing, photo, drawing]))
    alone, several = engine.run(drawing.views), engine.run(photo.views)
    np.testing.assert_allclose(found[1].logits, several.logits.mean(0), rtol=1e-5)
    assert found[1].ood_score == pytest.approx(several.ood_scores.mean() - PHOTO_ALLOWANCE, abs=1e-5)
    for finding in (found[0], found[2]):
        assert (finding.logits == alone.logits[0]).all()
        assert finding.ood_score == alone.ood_scores[0]


def test_no_pictures_have_no_findings(engine):
    assert list(infer(engine, [])) == []


def test_the_steps_of_a_photo_are_told():
    told = preprocess(encode(scene("wood")[0])).preprocessing
    assert told.steps[0] == "background told from the article by colour, place and edges, and removed"
    assert told.inverted


def test_holes_of_a_plain_background_stay_and_those_of_a_busy_one_are_filled():
    ring = trousers(ink="black", paper="white")
    ring.paste("white", (130, 40, 170, 60))
    assert not find_foreground(np.asarray(ring)).mask[50, 150]
    photo = scene("wood")[0]
    photo.paste(photo.crop((0, 0, 12, 12)), (140, 45))
    assert find_foreground(np.asarray(photo.resize((128, 128), Image.Resampling.BOX))).mask[21, 62]


@settings(max_examples=100, deadline=None)
@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3))))
def test_any_pixels_have_a_foreground_or_none(pixels):
    found = find_foreground(pixels)
    assert found.mask.shape == pixels.shape[:2]
    assert 0 <= found.contrast <= 1
    assert (found.contrast == 0) or found.mask.any()
