import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model import CLASSES, FashionMnist, evaluate
from model.evaluation import report
from model.evaluation.report import chunks
from model.plots import draw_confusion


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


def test_chunks_are_everything_in_order():
    images = np.arange(7 * 784, dtype=np.uint8).reshape(7, 28, 28)
    pieces = list(chunks(images, 3))
    assert [len(piece) for piece in pieces] == [3, 3, 1]
    assert (np.concatenate(pieces) == images).all()


def test_the_confusion_matrix_is_drawn_with_its_counts_shaded():
    perfect = draw_confusion(np.eye(10, dtype=int).tolist(), CLASSES)
    assert perfect.startswith(b"\x89PNG")
    assert perfect != draw_confusion(np.ones((10, 10), int).tolist(), CLASSES)
