"""Whether confidences can be believed, and whether strangers are known as such."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from model import WEIGHTS, create_engine, load_artifact
from model.data import Split
from model.engines import EngineOutputs, run_batches, softmax
from model.evaluation.calibration import BINS, brier_score, expected_calibration_error, reliability, wilson_interval
from model.evaluation.ood_sets import OUTLIERS, auroc, measure_detector
from model.evaluation.report import report
from model.ood.detector import MOST_STEPS, STEPS, Detector
from model.ood.fit import Seen, fit_detector, fit_temperature
from tests.data_sets import real_data_set

RNG = np.random.default_rng(0)


def answers(confidences: list[float]) -> np.ndarray:
    """Probabilities whose first class has these confidences."""
    first = np.array(confidences)[:, None]
    return np.concatenate([first, np.repeat((1 - first) / 9, 9, axis=1)], axis=1)


def test_a_bin_holds_count_mean_confidence_and_accuracy():
    bins = reliability(answers([0.95, 0.99, 1.0, 0.5]), np.array([0, 0, 1, 0], np.uint8))
    assert len(bins) == BINS
    assert (bins[-1].count, bins[-1].confidence, bins[-1].accuracy) == pytest.approx((3, 0.98, 2 / 3))
    assert (bins[7].count, bins[7].confidence, bins[7].accuracy) == pytest.approx((1, 0.5, 1))
    assert sum(part.count for part in bins) == 4
    assert expected_calibration_error(bins) == pytest.approx((3 * (0.98 - 2 / 3) + 0.5) / 4)


def test_honest_confidences_have_no_calibration_error_and_boastful_ones_have():
    labels = np.where(RNG.random(100_000) < 0.7, 0, 1).astype(np.uint8)
    assert expected_calibration_error(reliability(answers([0.7] * 100_000), labels)) < 0.01
    assert expected_calibration_error(reliability(answers([0.9] * 100_000), labels)) == pytest.approx(0.2, abs=0.01)


def test_the_brier_score_is_0_at_best_and_2_at_worst():
    certain = np.eye(10)[[3, 4]]
    assert brier_score(certain, np.array([3, 4], np.uint8)) == 0
    assert brier_score(certain, np.array([4, 3], np.uint8)) == 2
    assert brier_score(np.full((1, 10), 0.1), np.array([0], np.uint8)) == pytest.approx(0.81 + 9 * 0.01)


@given(st.integers(1, 10_000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_the_interval_is_wilsons(case):
    hits, count = case
    expected = binomtest(hits, count).proportion_ci(method="wilson")
    assert wilson_interval(hits, count) == pytest.approx((expected.low, expected.high), abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_of_overconfident_logits_is_found(temperature):
    logits = RNG.normal(0, 2, (20_000, 10)).astype(np.float32)
    labels = (softmax(logits).cumsum(1) > RNG.random((20_000, 1))).argmax(1).astype(np.uint8)
    assert fit_temperature(logits * np.float32(temperature), labels) == pytest.approx(temperature, rel=0.05)
    fitted = report(logits * np.float32(temperature), labels, temperature=temperature)
    assert fitted.ece < 0.02


def test_at_the_temperature_that_is_found_the_mean_confidence_is_the_accuracy():
    logits = (RNG.normal(0, 3, (2_000, 10)) + 4 * np.eye(10)[np.arange(2_000) % 10]).astype(np.float32)
    labels = (np.arange(2_000) % 10).astype(np.uint8)
    confidences = softmax(logits / np.float32(fit_temperature(logits, labels))).max(1)
    assert confidences.mean() == pytest.approx((logits.argmax(1) == labels).mean(), abs=1e-3)


def outputs(features: np.ndarray, sharpness: float = 5.0) -> EngineOutputs:
    logits = (features[:, :10] * sharpness).astype(np.float32)
    return EngineOutputs(logits, features.astype(np.float32), np.full(len(features), np.nan, np.float32))


def bars(count: int) -> np.ndarray:
    """Grey bars of several widths on black."""
    images = np.zeros((count, 28, 28), np.uint8)
    for image, edge, grey in zip(images, RNG.integers(4, 12, count), RNG.integers(80, 200, count), strict=True):
        image[4:24, edge : 28 - edge] = grey
    return images


def sample(count: int) -> Seen:
    """Ten clusters of 16 features, none below 0, and their numbers; bars to look at."""
    labels = np.arange(count) % 10
    features = np.maximum(np.eye(16)[labels] * 4 + RNG.normal(0, 0.3, (count, 16)), 0)
    return Seen(Split(bars(count), labels.astype(np.uint8)), outputs(features))


def handed(seen: Seen) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a detector is given of them."""
    return seen.split.images, seen.outputs.logits, seen.outputs.features


@pytest.fixture(scope="module")
def detector() -> Detector:
    return fit_detector(sample(2000), sample(4000))


def test_a_detector_keeps_its_share_of_the_validation_images(detector):
    scores = detector.score(*handed(sample(4000)))
    assert (scores <= 1).mean() == pytest.approx(0.95, abs=0.015)
    assert np.median(scores) == pytest.approx(0, abs=0.25)


@pytest.mark.parametrize(
    "stranger",
    [np.full((50, 16), 2.0), np.zeros((50, 16)), np.eye(16)[[12] * 50] * 4, np.eye(16)[[3] * 50] * 12],
    ids=["between", "nothing", "another direction", "far too much"],
)
def test_strangers_score_above_1(detector, stranger):
    assert (detector.score(bars(50), *outputs(stranger)[:2]) > 1).all()


@pytest.mark.parametrize(
    "stranger",
    [RNG.integers(0, 256, (50, 28, 28), np.uint8), np.full((50, 28, 28), 128, np.uint8), 255 - bars(50)],
    ids=["noise", "grey", "inverted"],
)
def test_pictures_that_look_otherwise_score_above_1_whatever_the_features(detector, stranger):
    _, logits, features = handed(sample(50))
    assert (detector.score(stranger, logits, features) > 1).all()


def test_a_detector_is_read_as_it_was_written(detector):
    found = Detector.from_bytes(detector.to_bytes())
    some = handed(sample(20))
    np.testing.assert_array_equal(found.score(*some), detector.score(*some))


def test_distances_are_those_of_their_definitions(detector):
    images, logits, features = handed(sample(20))
    direction, place, energy, appearance = detector.distances(images, logits, features)
    centres = detector.centres
    cosines = features @ centres.T / np.linalg.norm(features, axis=1)[:, None] / np.linalg.norm(centres, axis=1)
    np.testing.assert_allclose(direction, 1 - cosines.max(1), atol=2e-3)  # both are rounded to 63 steps
    np.testing.assert_allclose(place, np.linalg.norm(features[:, None] - centres, axis=2).min(1), atol=0.05)
    np.testing.assert_allclose(energy, -np.log(np.exp(logits).sum(1)), rtol=1e-4)
    np.testing.assert_array_equal(appearance, detector.appearance.distance(images, logits.argmax(1)))


def test_an_image_scores_alike_alone_and_in_a_batch(detector):
    some = handed(sample(33))
    alone = [detector.score(*(part[i : i + 1] for part in some))[0] for i in range(33)]
    np.testing.assert_array_equal(detector.score(*some), alone)


def test_two_products_of_bytes_fit_into_16_bits():
    """What a CPU without VNNI adds them in; it would say 32,767 of all that is more."""
    assert 2 * STEPS * MOST_STEPS < 2**15


def test_a_detector_of_three_networks_features_scores_alike_in_any_order_of_them(detector):
    """Sums that are exact do not depend on their order."""
    centres = RNG.uniform(0, 9, (50, 384)).astype(np.float32)
    features = RNG.uniform(0, 9, (20, 384)).astype(np.float32)
    images, logits, _ = handed(sample(20))
    limits = detector.typical, detector.spread
    scores = [
        Detector(centres[:, order], detector.appearance, *limits).score(images, logits, features[:, order])
        for order in (np.arange(384), RNG.permutation(384))
    ]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("name", [path.stem for path in WEIGHTS.glob("*.json")])
@pytest.mark.parametrize("kind", ["onnx", "onnx-int8"])
def test_the_graph_scores_as_the_detector_does_and_alike_in_any_company(name, kind):
    artifact = load_artifact(WEIGHTS, name)
    engine, detector = create_engine(kind, artifact), Detector.from_bytes(artifact.content["detector.safetensors"])
    images = np.concatenate([RNG.integers(0, 256, (20, 28, 28), np.uint8), np.zeros((1, 28, 28), np.uint8)])
    together = engine.run(images)
    np.testing.assert_allclose(
        together.ood_scores, detector.score(images, together.logits, together.features), atol=1e-5
    )
    for size in (1, 2, 3, 8):
        parts = [engine.run(images[start : start + size]).ood_scores for start in range(0, len(images), size)]
        np.testing.assert_array_equal(np.concatenate(parts), together.ood_scores)


def test_outliers_are_images_like_any_other_and_the_same_every_time():
    images = RNG.integers(0, 256, (300, 28, 28), np.uint8)
    for make in OUTLIERS.values():
        made = make(images)
        assert made.dtype == np.uint8
        assert made.shape[1:] == (28, 28)
        assert len(made) >= 256
        np.testing.assert_array_equal(made, make(images))


def test_auroc_is_1_apart_and_a_half_together():
    assert auroc(np.array([0.0, 1]), np.array([2.0, 3])) == 1
    assert auroc(np.array([0.0, 1]), np.array([0.0, 1])) == 0.5


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("name", [path.stem for path in WEIGHTS.glob("*.json")])
def test_the_committed_networks_are_calibrated_and_know_strangers(name):
    """The bars of the project, on the real test images, with the graphs that are served."""
    test = real_data_set().load("test")
    artifact = load_artifact(WEIGHTS, name)
    for kind in ("onnx", "onnx-int8"):
        engine = create_engine(kind, artifact, 2)
        found = run_batches(engine, test.images)
        figures = report(found.logits, test.labels, temperature=artifact.card.temperature)
        card = artifact.card.measured_with(kind)["test"]
        assert (figures.accuracy, figures.ece, figures.brier) == pytest.approx(
            (card.accuracy, card.ece, card.brier), abs=5e-4
        )
        assert figures.ece <= 0.01
        assert (found.ood_scores <= 1).mean() == pytest.approx(0.95, abs=0.015)
    told_apart = measure_detector(engine, test.images)
    assert min(told_apart[kind] for kind in ("digits", "inverted", "noise", "smooth", "blank")) >= 0.98
    assert artifact.card.ood_auroc == pytest.approx(told_apart, abs=0.01)
