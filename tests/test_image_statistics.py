"""Statistics of the pixels, and the distance to those of the training images."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model.ood.fit import LabelledOutputs, fit_ood_score, in_chunks
from model.ood.image_statistics import COUNT, MIN_LIT, ImageStatistics
from model.ood.score import OodScore

RNG = np.random.default_rng(0)
BLACK = np.zeros((1, 28, 28), np.uint8)
WHITE = np.full((1, 28, 28), 255, np.uint8)
CHESS = (np.indices((28, 28)).sum(0) % 2 * 255).astype(np.uint8)[None]


def means(images: np.ndarray) -> np.ndarray:
    """The eleven means, of which the statistics are the square roots."""
    return ImageStatistics()(torch.from_numpy(images)).double().numpy() ** 2


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (BLACK, [0] * COUNT),
        (WHITE, [0, 0, *[255] * 8, MIN_LIT]),
        (CHESS, [255, 255, *[127.5] * 8, MIN_LIT / 2]),
    ],
    ids=["black", "white", "chess board"],
)
def test_means_of_simple_images(image, expected):
    np.testing.assert_allclose(means(image)[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("pixel", "region"),
    [((0, 14), 0), ((27, 14), 1), ((14, 0), 2), ((14, 27), 3), ((5, 5), 4), ((5, 20), 5), ((20, 5), 6), ((20, 20), 7)],
)
def test_a_pixel_counts_in_its_edge_and_its_quarter(pixel, region):
    image = BLACK.copy()
    image[0][pixel] = 200
    sums = means(image)[0, 2:10] * ([28] * 4 + [14**2] * 4)
    assert sums[region] == pytest.approx(200, rel=1e-5)
    assert sums.sum() == pytest.approx(200 * (1 + (region < 4)), rel=1e-5)


@given(arrays(np.uint8, (3, 28, 28)), st.integers(0, 2))
def test_means_are_those_of_their_definitions_alone_and_in_a_batch(images, index):
    found, x = means(images), images.astype(float)
    np.testing.assert_allclose(found[:, 0], np.abs(np.diff(x, axis=2))[:, :-1].mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found[:, 1], np.abs(np.diff(x, axis=1))[:, :, :-1].mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found[:, 4], x[:, :, 0].mean(1), rtol=1e-5)
    np.testing.assert_allclose(found[:, 9], x[:, 14:, 14:].mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found[:, 10], np.minimum(x, MIN_LIT).mean((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(means(images[index : index + 1])[0], found[index], rtol=1e-5)


def outputs(images: np.ndarray, labels: np.ndarray) -> LabelledOutputs:
    """Of a network that is always right and has one feature."""
    logits = np.eye(10, dtype=np.float32)[labels]
    return LabelledOutputs(images, labels.astype(np.uint8), logits, np.ones((len(images), 1), np.float32))


def fit(images: np.ndarray, labels: np.ndarray) -> OodScore:
    given = outputs(images, labels)
    return fit_ood_score(given, given)


def distance(score: OodScore, images: np.ndarray, label: int) -> np.ndarray:
    given = outputs(images, np.full(len(images), label))
    return in_chunks(
        lambda *parts: score.distances(*parts).image_statistics, given.images, given.logits, given.features
    )


def test_training_images_are_near_and_others_far():
    images = np.zeros((200, 28, 28), np.uint8)
    images[:, 6:22, 6:22] = RNG.integers(90, 200, (200, 1, 1))
    score = fit(images, np.zeros(200, int))
    near, far = (distance(score, some, 0) for some in (images, np.concatenate([WHITE, CHESS, 255 - images])))
    assert near.max() < far.min() / 3


def test_an_image_is_far_from_the_centres_of_another_class():
    narrow, wide = np.zeros((2, 60, 28, 28), np.uint8)
    narrow[:, :, 10:18] = RNG.integers(90, 200, (60, 1, 1))
    wide[:, :, 2:26] = RNG.integers(90, 200, (60, 1, 1))
    score = fit(np.concatenate([narrow, wide]), np.repeat([1, 3], 60))
    own, other, unseen = (distance(score, wide, label) for label in (3, 1, 7))
    assert own.max() < other.min() / 3
    assert unseen.max() < other.min() / 3, "a class without training images has the centres of all"


def test_constant_training_images_give_finite_scores():
    score = fit(np.zeros((9, 28, 28), np.uint8), np.zeros(9, int))
    assert np.isfinite(distance(score, np.concatenate([WHITE, CHESS]), 0)).all()
    given = outputs(WHITE, np.zeros(1, int))
    assert np.isfinite(in_chunks(score, given.images, given.logits, given.features)).all()
