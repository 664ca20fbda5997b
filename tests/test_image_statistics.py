"""What pictures look like, in numbers that float32 holds exactly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.data import Split
from model.ood.fit import fit_appearance
from model.ood.image_statistics import COUNT, MEANS, MOST_STEPS, levels, sums

RNG = np.random.default_rng(0)
WHITE = np.full((1, 28, 28), 255, np.uint8)
CHESS = (np.indices((28, 28)).sum(0) % 2 * 255).astype(np.uint8)[None]


def means(image: np.ndarray) -> np.ndarray:
    return sums(image)[0] * MEANS


def test_black_has_no_levels():
    np.testing.assert_array_equal(means(np.zeros((1, 28, 28), np.uint8)), np.zeros(COUNT))


def test_white_is_smooth_bright_everywhere_and_nowhere_black():
    np.testing.assert_allclose(means(WHITE), [0, 0, *[255] * 8, 256], rtol=1e-6)


def test_a_chess_board_is_rough():
    np.testing.assert_allclose(means(CHESS), [255, 255, *[127.5] * 8, 128], rtol=1e-6)


@pytest.mark.parametrize(
    ("place", "region"),
    [((0, 14), 0), ((27, 14), 1), ((14, 0), 2), ((14, 27), 3), ((5, 5), 4), ((5, 20), 5), ((20, 5), 6), ((20, 20), 7)],
)
def test_a_spot_is_seen_in_its_region(place, region):
    image = np.zeros((1, 28, 28), np.uint8)
    image[0][place] = 200
    assert means(image)[2 + region] > 0
    assert sums(image)[0, 2:10].sum() == 200 * (1 + (region < 4))


@given(arrays(np.uint8, (3, 28, 28)), st.integers(0, 2))
def test_sums_are_whole_and_alike_alone_and_in_a_batch(images, index):
    together = sums(images)
    x = images.astype(np.int64)
    np.testing.assert_array_equal(together[:, 0], np.abs(np.diff(x, axis=2))[:, :-1].sum((1, 2)))
    np.testing.assert_array_equal(together[:, 1], np.abs(np.diff(x, axis=1))[:, :, :-1].sum((1, 2)))
    np.testing.assert_array_equal(together[:, -1], np.minimum(x, 8).sum((1, 2)))
    np.testing.assert_array_equal(sums(images[index : index + 1]), together[index : index + 1])


def of_class(images: np.ndarray, label: int = 0) -> Split:
    return Split(images, np.full(len(images), label, np.uint8))


@pytest.mark.parametrize("images", [np.zeros((9, 28, 28), np.uint8), RNG.integers(0, 256, (400, 28, 28), np.uint8)])
def test_levels_have_so_few_steps_that_their_products_are_summed_exactly(images):
    """Where all training images are alike, a step would be infinitely small."""
    appearance = fit_appearance(of_class(images))
    most = levels(np.concatenate([WHITE, CHESS]), appearance.factors).max()
    assert most <= MOST_STEPS
    assert COUNT * MOST_STEPS**2 <= 2**24
    assert np.isfinite(appearance.distance(WHITE, np.array([0]))).all()


def test_what_was_seen_is_near_and_the_rest_is_far():
    seen = np.zeros((200, 28, 28), np.uint8)
    seen[:, 6:22, 6:22] = RNG.integers(90, 200, (200, 1, 1))
    appearance = fit_appearance(of_class(seen))
    strangers = np.concatenate([WHITE, CHESS, 255 - seen])
    near, far = (appearance.distance(images, np.zeros(len(images), int)) for images in (seen, strangers))
    assert near.max() < far.min() / 3


def test_a_picture_is_far_from_a_class_that_looks_otherwise():
    narrow, wide = np.zeros((2, 60, 28, 28), np.uint8)
    narrow[:, :, 10:18] = RNG.integers(90, 200, (60, 1, 1))
    wide[:, :, 2:26] = RNG.integers(90, 200, (60, 1, 1))
    appearance = fit_appearance(Split(np.concatenate([narrow, wide]), np.repeat([1, 3], 60).astype(np.uint8)))
    own, other, unseen = (appearance.distance(wide, np.full(60, label)) for label in (3, 1, 7))
    assert own.max() < other.min() / 3
    assert unseen.max() < other.min() / 3  # nobody has seen a 7: it may look like anything
