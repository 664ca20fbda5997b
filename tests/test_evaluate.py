import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from model import CLASSES, WEIGHTS, FashionMnist, create_engine, evaluate, load_artifact
from model.engines import BATCH_SIZE, run_batches
from model.evaluation import report
from model.evaluation.calibration import BINS
from model.metrics import ReliabilityBin
from model.plots import draw_confusion
from model.plots.confusion import CELL, MARGIN
from model.plots.reliability import draw_reliability
from model.plots.style import SERIES
from model.preprocessing.fit import fit_data_set


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=80))
def test_a_report_is_what_counting_by_hand_gives(pairs):
    labels = np.array([true for true, _ in pairs], np.uint8)
    logits = np.eye(10, dtype=np.float32)[[predicted for _, predicted in pairs]] * 5
    figures = report(logits, labels)
    assert figures.count == len(pairs)
    assert figures.accuracy == pytest.approx(sum(t == p for t, p in pairs) / len(pairs))
    for i, entry in enumerate(figures.classes):
        hits = pairs.count((i, i))
        support, predicted = sum(t == i for t, _ in pairs), sum(p == i for _, p in pairs)
        assert entry.support == support
        assert entry.precision == pytest.approx(hits / predicted if predicted else 0)
        assert entry.recall == pytest.approx(hits / support if support else 0)
        assert entry.f1 == pytest.approx(2 * hits / (support + predicted) if support + predicted else 0)
    assert figures.confusion_matrix == [[pairs.count((t, p)) for p in range(10)] for t in range(10)]


def test_the_loss_is_the_mean_negative_log_likelihood():
    logits = np.log(np.array([[0.7] + [0.3 / 9] * 9, [0.1] * 10], np.float32))
    assert report(logits, np.array([0, 3], np.uint8)).loss == pytest.approx(-(np.log(0.7) + np.log(0.1)) / 2, abs=1e-6)


def test_temperature_softens_the_loss_and_leaves_the_accuracy():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(50, 10)).astype(np.float32) * 9, rng.integers(0, 10, 50, np.uint8)
    sharp, soft = report(logits, labels), report(logits, labels, temperature=9)
    assert soft.loss < sharp.loss
    assert soft.accuracy == sharp.accuracy


def test_an_engine_is_evaluated_on_a_split(engine, small_data: FashionMnist):
    split = small_data.load("test")
    figures = evaluate(engine, split)
    assert figures.count == len(split.labels) == 200
    assert [entry.label for entry in figures.classes] == list(CLASSES)


@pytest.mark.parametrize("count", [0, 1, BATCH_SIZE, 2 * BATCH_SIZE + 3])
def test_batches_change_no_output_and_no_order(engine, count):
    images, done = np.random.default_rng(0).integers(0, 256, (count, 28, 28), np.uint8), []
    outputs = run_batches(engine, images, progress=done.append)
    for found, expected in zip(outputs, engine.run(images), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    assert sum(done) == count
    assert max(done) <= BATCH_SIZE


def test_images_are_prepared_by_batches_before_the_engine(engine):
    images, sizes = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE + 3, 28, 28), np.uint8), []
    outputs = run_batches(engine, images, prepare=lambda batch: sizes.append(len(batch)) or 255 - batch)
    np.testing.assert_allclose(outputs.logits, engine.run(255 - images).logits, atol=1e-4)
    assert sizes == [BATCH_SIZE, 3]


def test_images_are_enlarged_for_the_photo_model(small_data: FashionMnist):
    artifact, split = load_artifact(WEIGHTS, "fashionnet-photo"), small_data.load("test").take(np.arange(20))
    engine = create_engine("onnx", artifact)
    figures = evaluate(engine, split, artifact.card.temperature, artifact.card.input)
    logits = engine.run(fit_data_set(split.images, artifact.card.input)).logits
    expected = report(logits, split.labels, temperature=artifact.card.temperature)
    assert figures.confusion_matrix == expected.confusion_matrix
    assert figures.loss == pytest.approx(expected.loss, abs=1e-4)


def test_the_reliability_diagram_shows_its_bins():
    labels = np.arange(200, dtype=np.uint8) % 10
    logits = np.random.default_rng(0).normal(0, 1, (200, 10)).astype(np.float32)
    bins = report(logits, labels).reliability
    nothing = ReliabilityBin(count=0, confidence=0, accuracy=0)
    drawn, empty = (Image.open(io.BytesIO(draw_reliability(some, "x"))) for some in (bins, [nothing] * BINS))
    assert drawn.size == (600, 720)
    blue = [(np.asarray(image) == ImageColor.getrgb(SERIES)).all(-1).sum() for image in (drawn, empty)]
    assert blue[0] > blue[1] + 1000


def test_the_confusion_matrix_shades_each_cell_by_its_share_of_the_row():
    matrix = np.diag([100] * 10)
    matrix[0, :2] = 50, 50
    drawn = Image.open(io.BytesIO(draw_confusion(matrix.tolist(), CLASSES)))
    lightness = {
        (i, j): sum(drawn.getpixel((MARGIN + j * CELL + 2, MARGIN + i * CELL + 2)))
        for i, j in ((0, 0), (0, 1), (0, 2), (1, 1))
    }
    assert lightness[1, 1] < lightness[0, 0] == lightness[0, 1] < lightness[0, 2]
