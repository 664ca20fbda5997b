import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image, ImageFilter
from scipy import ndimage

from model.foreground import find_foreground, label
from model.preprocess import preprocess
from tests.pictures import encode, trousers

MASKS = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=12))


@settings(max_examples=300)
@given(MASKS)
def test_parts_are_labelled_as_scipy_labels_them(mask):
    labels, count = label(mask)
    expected, expected_count = ndimage.label(mask)
    assert count == expected_count
    assert (labels == expected).all()


def scene(background: str, ink: str = "#2d3a5c", size: int = 300, seed: int = 0) -> tuple[Image.Image, np.ndarray]:
    """Trousers photographed on something, and where they are."""
    rng = np.random.default_rng(seed)
    place = np.asarray(trousers("L", "white", "black", size)) > 127
    ground = {
        "shaded": np.linspace(110, 230, size)[None, :, None] + rng.normal(0, 5, (size, size, 3)),
        "wood": 150
        + 30 * np.sin(np.arange(size) / 6)[:, None, None] * [1, 0.8, 0.5]
        + rng.normal(0, 8, (size, size, 3)),
        "tiles": np.where(np.add.outer(np.arange(size) // 50, np.arange(size) // 50)[..., None] % 2, 200, 170)
        + rng.normal(0, 6, (size, size, 3)),
        "dark": np.full((size, size, 3), 45) + rng.normal(0, 20, (size, size, 3)),
    }[background]
    cloth = np.array(Image.new("RGB", (1, 1), ink))[0, 0] + rng.normal(0, 8, (size, size, 3))
    pixels = np.where(place[..., None], cloth, ground).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(1)), place


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
    photo, _ = scene(background)
    pictures = [preprocess(encode(image)).image for image in (photo, trousers())]
    logits = engine.run(np.stack(pictures)).logits
    assert logits.argmax(1).tolist() == [1, 1], "trousers"


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
