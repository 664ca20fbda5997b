import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from benchmarks.photos import SERVED, Answers, Photos, figures, interval, measure, read_photos
from model import CLASSES

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


def answers(labels, confidence=0.9, ood_scores=None):
    scores = np.zeros(len(labels)) if ood_scores is None else np.array(ood_scores)
    models = np.array(["fashionnet"] * len(labels))
    return Answers(np.array(labels), np.full(len(labels), confidence), scores, scores <= 1, models)


def photos_of(*classes):
    return Photos([Path()] * len(classes), np.array(classes), np.arange(len(classes)).astype(str))


def write_labels(folder, rows):
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_any_kind_of_shoe_is_right_for_a_shoe_and_for_no_other_class():
    photos = photos_of("shoe", "shoe", "shoe", "shoe", "Sandal", "none")
    found = figures(photos, answers(["Sandal", "Sneaker", "Ankle boot", "Bag", "Sneaker", "Bag"]))
    assert (found["n"], found["accuracy"]) == (5, 3 / 5)
    assert found["recall"] == {"Sandal": 0, "shoe": 3 / 4}


def test_photos_of_none_of_the_classes_count_for_the_scores_alone():
    found = figures(photos_of("Coat", "Coat", "none", "none"), answers(["Coat"] * 4, ood_scores=[0.1, 1.2, 1.1, 2.0]))
    assert (found["n"], found["accuracy"]) == (2, 1)
    assert (found["auroc"], found["in_distribution"], found["in_distribution_of_none"]) == (0.75, 0.5, 0)


@pytest.mark.parametrize(("confidence", "gap"), [(0.9, 0.4), (0.2, -0.3)])
def test_the_gap_is_positive_where_confidence_is_too_high(confidence, gap):
    found = figures(photos_of("Coat", "Coat", "none"), answers(["Coat", "Bag", "Bag"], confidence))
    assert found["confidence_gap"] == pytest.approx(gap)
    assert found["ece"] == pytest.approx(abs(gap))


def test_photos_of_one_sender_that_are_alike_widen_the_interval():
    right = np.repeat([0.0, 1.0], [100, 100])
    low, high = interval(right, np.arange(200).astype(str))
    low_of_ten, high_of_ten = interval(right, np.repeat(np.arange(10), 20).astype(str))
    assert low_of_ten < low < 0.5 < high < high_of_ten
    assert interval(right, np.repeat(np.arange(10), 20).astype(str)) == (low_of_ten, high_of_ten)


def test_photos_are_measured_by_every_network_and_as_served(tmp_path):
    (tmp_path / "images").mkdir()
    rows = [
        {"image": f"photo-{i}", "sender_id": str(i % 2), "class": shown}
        for i, shown in enumerate(["Trouser", "T-shirt/top", "shoe", "none"])
    ]
    write_labels(tmp_path, rows)
    for i, row in enumerate(rows):
        photo = Image.effect_noise((90, 120), 60).convert("RGB")
        ImageDraw.Draw(photo).rectangle((25, 20, 65, 90 + i), "navy")
        photo.save(tmp_path / "images" / f"{row['image']}.jpg")
    found, text = measure(read_photos(tmp_path))
    ways = [SERVED, *found["engines"]]
    assert set(found["results"]) == {*ways, *(f"{name}, tutorial's way" for name in found["engines"])}
    assert found["photos"] == 4
    assert all((one["n"], one["senders"]) == (3, 2) for one in found["results"].values())
    assert "4 photos" in text


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"image": "a", "sender_id": "1"}, "no column 'class'"),
        ({"image": "a", "sender_id": "1", "class": "Hat"}, "unknown classes: Hat"),
        ({"image": "a", "sender_id": "1", "class": "Coat"}, "needs photos"),
        ({"image": "a", "sender_id": "1", "class": "none"}, "needs photos"),
    ],
)
def test_labels_that_cannot_be_used_are_named(tmp_path, row, problem):
    write_labels(tmp_path, [row])
    with pytest.raises(ValueError, match=problem):
        read_photos(tmp_path)


def test_the_kept_report_and_figures_agree():
    found = json.loads((RESULTS / "photos.json").read_text())
    text = (RESULTS / "photos.md").read_text()
    for name, one in found["results"].items():
        assert f"| {name} | {one['accuracy']:.1%} [" in text
        assert set(one["recall"]) <= {*CLASSES, "shoe"}
    assert found["date"] in text
