"""Figures on labelled photos: by hand, and by ``scripts/evaluate.py --photos``."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from app.commands import evaluate
from model.evaluation.photos import PhotoPredictions, photo_report, sender_interval
from model.evaluation.ranking import auroc
from model.photos import Photos


def test_the_report_counts_any_shoe_as_right_and_leaves_other_things_out():
    classes = np.array(["Dress", "Dress", "shoe", "none"])
    photos = Photos([], classes, np.array(["a", "a", "b", "c"]), classes)
    probabilities = np.full((4, 10), 0.02)
    probabilities[[0, 1, 2, 3], [3, 4, 7, 0]] = 0.82
    report = photo_report(photos, PhotoPredictions(probabilities, np.array([0.0, 0.5, 2.0, 3.0])))
    assert (report.count, report.senders) == (3, 2)
    assert report.accuracy == pytest.approx(2 / 3)
    assert report.classes["shoe"].recall == 1
    assert report.classes["Dress"].predicted[3:5] == [1, 1]
    assert report.balanced_accuracy == 0.5
    assert report.confidence == pytest.approx(0.82)
    assert report.ece == pytest.approx(0.82 - 2 / 3)
    assert report.auroc == 1
    assert report.classes["shoe"].in_distribution == 0


def test_the_interval_is_that_of_the_senders():
    correct = np.arange(400) < 200
    many, two = np.arange(400).astype(str), np.where(correct, "right", "wrong")
    narrow, wide = sender_interval(correct, many), sender_interval(correct, two)
    assert 0.4 < narrow[0] < 0.5 < narrow[1] < 0.6
    assert wide == (0, 1)


def test_auroc_counts_ties_half():
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 9, 50), rng.integers(3, 12, 70)
    expected = roc_auc_score(np.repeat([0, 1], [50, 70]), np.concatenate([inside, outside]))
    assert auroc(inside.astype(float), outside.astype(float)) == pytest.approx(expected)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for name in ("Dress", "none"):
        (folder / name).mkdir()
        for number in range(3):
            Image.fromarray(rng.integers(0, 256, (60, 40, 3), np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.mark.parametrize("model", [[], ["--model", "fashionnet-photo"], ["--model", "fashionnet"]])
def test_the_command_measures_a_folder_of_each_class(folder, model, tmp_path, capsys):
    assert evaluate.main(["--photos", str(folder), "--plots", str(tmp_path), *model]) == 0
    assert "3 photos of the ten classes" in capsys.readouterr().out
    assert evaluate.main(["--photos", str(folder), "--json", *model]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["classes"]["none"]["count"] == 3
    assert 0 <= figures["tutorial_accuracy"] <= 1
    assert {file.name for file in tmp_path.iterdir()} == {"photo-confusion.png", "photo-reliability.png"}


def test_shoes_of_unknown_kind_alone_have_no_mean_recall(folder, tmp_path, capsys):
    (tmp_path / "shoe").symlink_to(folder / "none")
    assert evaluate.main(["--photos", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["balanced_accuracy"] is None
    assert evaluate.main(["--photos", str(tmp_path)]) == 0
    assert "recall" not in capsys.readouterr().out.splitlines()[0]


def test_the_limit_of_pixels_is_that_of_the_settings(folder, monkeypatch, capsys):
    monkeypatch.setenv("FASHIONNET_MAX_PIXELS", "1000")
    assert evaluate.main(["--photos", str(folder)]) == 2
    assert "1,000 are the most that are decoded" in capsys.readouterr().err
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    Image.new("RGB", (8000, 7000)).save(folder / "Dress" / "large.png")
    try:
        monkeypatch.setenv("FASHIONNET_MAX_PIXELS", "60000000")
        assert evaluate.main(["--photos", str(folder)]) == 0
    finally:
        (folder / "Dress" / "large.png").unlink()


def test_figures_are_printed_though_their_plots_cannot_be_written(folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert evaluate.main(["--photos", str(folder), "--plots", str(tmp_path / "file")]) == 2
    assert "3 photos of the ten classes" in capsys.readouterr().out


def test_photos_of_other_things_alone_are_refused(folder, tmp_path, capsys):
    (tmp_path / "none").symlink_to(folder / "none")
    assert evaluate.main(["--photos", str(tmp_path)]) != 0
    assert "shows one of the ten classes" in capsys.readouterr().err
