"""The photo model from photos to answers: a short run on drawn photos, its artefact, and the set-valued loss."""

import contextlib
import json
import os
import shutil
import signal
import sys
import time
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from app.commands import export, train
from benchmarks.photo_cross_validation import measure
from model import WEIGHTS, load_artifact
from model.artifact import read_card, save_artifact, save_card
from model.engines import create_engine
from model.errors import DataMissing, TrainingError
from model.export.photo import HeldOut, read_held_out
from model.photos import read_training_photos
from model.training import distributed
from model.training.command import find_recipe, photos_of
from model.training.losses import correct, negative_log_likelihoods, smoothed_set_loss
from model.training.photo_batches import PhotoBatches, PhotoTensors
from model.training.photo_examples import checksum, training_rows
from model.training.photo_mix import PhotoMix
from model.training.run import HELD_OUT_FILE, Run
from tests.data_sets import make_data_set
from tests.servers import process, run, wait_until
from tests.training_runs import changed, finished, make_config, state_of

COLOURS = {"Dress": (180, 30, 60), "Trouser": (30, 40, 120), "shoe": (60, 50, 40), "none": (90, 160, 70)}


@pytest.fixture(scope="module")
def photos_dir(tmp_path_factory):
    """Forty photos of ten senders: a coloured rectangle on a grey floor."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = ["image,sender_id,class,label"]
    for number in range(40):
        name = list(COLOURS)[number % 4]
        photo = Image.fromarray(rng.integers(120, 140, (120, 90, 3), np.uint8))
        photo.paste(COLOURS[name], (20, 10 + number, 70, 60 + number))
        photo.save(folder / "images" / f"{number}.jpg")
        rows.append(f"{number},{number // 4},{name},{'Hat' if name == 'none' and number % 8 < 4 else name}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def configured(small_data, photos_dir, epochs=1, **changes):
    photos = checksum(read_training_photos(photos_dir))
    recipe = changed("photo", validation_size=100)
    settings = {"photos_dir": str(photos_dir), "photos": photos, "fold": 0, "name": "fashionnet-photo", "limit": 400}
    return make_config(small_data, epochs, recipe, **settings | changes)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """The folder of a data set of 200 images."""
    return make_data_set(tmp_path_factory.mktemp("smaller"), train=160, test=40).root


@pytest.fixture(scope="module")
def exported(photos_dir, data_dir, tmp_path_factory):
    """The folder of a run of one epoch, by the command line."""
    folder = tmp_path_factory.mktemp("photo") / "run"
    arguments = ["--recipe", "photo", "--photos-dir", photos_dir, "--data-dir", data_dir, "--out", folder]
    assert train.main([*map(str, arguments), "--epochs", "1", "--threads", "1"]) == 0
    return folder


@pytest.mark.slow
def test_one_command_trains_calibrates_and_exports(exported):
    artifact = load_artifact(exported, "fashionnet-photo")
    card = artifact.card
    assert card.input.shape == (224, 224, 3)
    assert card.license == "Apache-2.0"
    assert (card.training["fold"], len(card.training["photos"])) == (0, 64)
    assert "ImageNet" in card.notice
    assert "None was measured on photos of bags" in card.notice
    assert card.metrics["photos"].count == 6  # eight photos of the fold, two of them of none of the classes
    assert card.metrics["test"].count == 40
    assert {sum(histogram.counts) for histogram in card.histograms.values()} == {6}
    assert all(len(content) < 16e6 for content in artifact.content.values())
    assert read_held_out([exported / HELD_OUT_FILE]).sets.shape == (8, 11)


@pytest.mark.slow
@pytest.mark.parametrize("in_8_bits", [True, False])
def test_the_figures_of_held_out_photos_come_with_their_temperature(exported, data_dir, tmp_path, in_8_bits):
    held_out = read_held_out([exported / HELD_OUT_FILE])
    (tmp_path / "sure.npz").write_bytes(held_out._replace(logits=10 * held_out.logits).to_bytes())
    artifact = load_artifact(exported, "fashionnet-photo")
    graphs = {"int8.onnx": (WEIGHTS / "fashionnet-photo.int8.onnx").read_bytes()} if in_8_bits else {}
    content = {name: part for name, part in artifact.content.items() if name != "int8.onnx"} | graphs
    (tmp_path / "before").mkdir()
    save_artifact(tmp_path / "before", artifact.card.model_copy(update={"int8_metrics": {}}), content)
    folders = ["--model-dir", tmp_path / "before", "--data-dir", data_dir, "--out", tmp_path]
    command = ["scripts/export.py", "fashionnet-photo", "--figures", "--held-out", tmp_path / "sure.npz", *folders]
    assert run(*map(str, command)).returncode == 0
    before, after = (json.loads((folder / "fashionnet-photo.json").read_text()) for folder in (exported, tmp_path))
    assert after["temperature"] == pytest.approx(10 * before["temperature"], rel=0.01)
    assert set(after["int8_metrics"]) == ({"validation", "test"} if in_8_bits else set())
    assert after["metrics"]["photos"]["loss"] == pytest.approx(before["metrics"]["photos"]["loss"], rel=0.01)


@pytest.mark.slow
def test_another_data_set_measures_no_model(exported, small_data, tmp_path, capsys):
    folders = ["--model-dir", exported, "--data-dir", small_data.root, "--out", tmp_path]
    command = ["fashionnet-photo", "--figures", "--held-out", exported / HELD_OUT_FILE, *folders]
    assert export.main([*map(str, command)]) == 2
    assert "holds another data set than the one that fashionnet-photo was trained on" in capsys.readouterr().err


@pytest.mark.slow
def test_all_engines_give_the_same_logits_scores_and_maps(exported):
    artifact = load_artifact(exported, "fashionnet-photo")
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), np.uint8)
    torch_, onnx = (create_engine(name, artifact) for name in ("torch", "onnx"))
    for ours, theirs in zip(onnx.run(images), torch_.run(images), strict=True):
        assert np.allclose(ours, theirs, rtol=1e-3, atol=1e-2)
    maps, network = onnx.class_maps(images), torch_.network
    assert np.allclose(maps, torch_.class_maps(images), atol=1e-3)
    biases = network.fc.bias[:10].detach().numpy()
    assert np.allclose(maps.sum((2, 3)) + biases, onnx.run(images).logits, atol=1e-3)


def test_a_run_on_photos_resumes_exactly(small_data, photos_dir, tmp_path):
    config = configured(small_data, photos_dir, 2)
    whole = finished(Run.start(tmp_path / "whole", config, small_data))
    next(Run.start(tmp_path / "stopped", config, small_data).epochs())
    resumed = finished(Run.resume(tmp_path / "stopped", small_data))
    assert state_of(resumed.trainer) == state_of(whole.trainer)


def test_the_progress_of_an_epoch_counts_photos_and_drawn_images():
    photos, sets = torch.zeros(5, 64, 64, 3, dtype=torch.uint8), torch.eye(11)[:5].bool()
    tensors = PhotoTensors(photos, sets, torch.zeros(9, 28, 28, dtype=torch.uint8), torch.arange(9))
    batches = PhotoBatches(PhotoMix(stored_size=64, drawn=2, outliers=1), 5, tensors, seed=1)
    assert batches.images_per_epoch == sum(len(batch.labels) for batch in batches.epoch(0)) == 5 + 3 * 3


def test_the_photos_of_the_validating_senders_do_not_train(small_data, photos_dir, tmp_path):
    run = Run.start(tmp_path, configured(small_data, photos_dir, limit=None), small_data)
    tensors, validation = run.photos
    trained = {photo.numpy().tobytes() for photo in tensors.photos}
    held_out = [photo for photo in validation.images if photo.numpy().tobytes() in trained]
    assert len(tensors.photos) == 32
    assert not held_out


def test_a_kind_can_be_left_out_of_training(small_data, photos_dir, tmp_path):
    run = Run.start(tmp_path, configured(small_data, photos_dir, limit=None, left_out="Hat"), small_data)
    assert int(run.photos[0].sets[:, -1].sum()) == 4  # half of eight
    assert int(run.photos[1].labels[:, -1].sum()) == 6  # its four, and two of the fold


def test_other_photos_do_not_continue_a_run(small_data, photos_dir, tmp_path):
    Run.start(tmp_path, configured(small_data, photos_dir), small_data)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"photos": "0" * 64}))
    with pytest.raises(TrainingError, match="holds other photos than the run started with: name the"):
        Run.resume(tmp_path, small_data)


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS has no file names that are not UTF-8")
def test_a_file_name_that_is_not_utf_8_distinguishes_its_photo(tmp_path):
    sums = []
    for name in (b"Dress/\xfe.jpg", b"Dress/\xff.jpg"):
        file = tmp_path / os.fsdecode(name)
        file.parent.mkdir(exist_ok=True)
        file.touch()
        sums.append(checksum(read_training_photos(tmp_path)))
    assert sums[0] != sums[1]


def test_the_cross_validation_leaves_out_kinds_that_the_folder_does_not_have(tmp_path, small_data):
    rng = np.random.default_rng(0)
    for number in range(40):
        file = tmp_path / list(COLOURS)[number % 4] / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.touch()
    photos = read_training_photos(tmp_path)
    configs = [
        make_config(small_data, 1, changed("photo"), fold=fold, left_out=kind)
        for fold, kind in ((0, "Hat"), (1, "none"))
    ]
    card = read_card(WEIGHTS, "fashionnet-photo").model_copy(update={"int8_metrics": {}})
    paths = [tmp_path / f"run-{config.fold}" for config in configs]
    for config, path in zip(configs, paths, strict=True):
        path.mkdir()
        save_card(path, card)
        sets = photos.sets[~training_rows(photos, config)]
        held_out = HeldOut(rng.normal(size=(len(sets), 10)), sets, rng.normal(size=(len(sets), 4)))
        (path / HELD_OUT_FILE).write_bytes(held_out.to_bytes())
    assert list(measure(photos, configs, paths).unknown_kinds) == ["none"]


def test_photos_that_have_moved_are_named_at_resumption(small_data, photos_dir, tmp_path, capsys):
    shutil.copytree(photos_dir, tmp_path / "before")
    Run.start(tmp_path / "run", configured(small_data, tmp_path / "before"), small_data)
    (tmp_path / "before").rename(tmp_path / "after")
    resume = ["--resume", str(tmp_path / "run"), "--data-dir", str(small_data.root), "--no-export"]
    assert train.main(resume) == 2
    assert "There are no labelled photos in" in capsys.readouterr().err
    assert train.main([*resume, "--photos-dir", str(tmp_path / "after")]) == 0
    assert train.main(resume) == 0, "the new folder is kept"


def test_a_run_on_all_photos_is_refused_before_it_trains_if_nothing_calibrates_it(
    small_data, photos_dir, tmp_path, capsys
):
    Run.start(tmp_path, configured(small_data, photos_dir, fold=None), small_data)
    assert train.main(["--resume", str(tmp_path), "--data-dir", str(small_data.root)]) == 2
    assert "name the files held-out.npz of others by --held-out" in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()


def test_held_out_photos_of_others_do_not_calibrate_a_fold(small_data, photos_dir, tmp_path, capsys):
    Run.start(tmp_path, configured(small_data, photos_dir), small_data)
    resume = ["--resume", str(tmp_path), "--data-dir", str(small_data.root), "--held-out", "a.npz"]
    assert train.main(resume) == 2
    assert "is calibrated on the photos of its own fold" in capsys.readouterr().err


def test_a_damaged_photo_is_named(small_data, photos_dir, tmp_path):
    shutil.copytree(photos_dir, tmp_path / "photos")
    (tmp_path / "photos" / "images" / "7.jpg").write_bytes(b"no photo")
    with pytest.raises(TrainingError, match=r"7\.jpg cannot be used: "):
        Run.start(tmp_path / "run", configured(small_data, tmp_path / "photos", limit=None), small_data)


@pytest.mark.slow
def test_a_signal_while_the_photos_are_loaded_is_one_sentence(photos_dir, data_dir, tmp_path):
    shutil.copytree(photos_dir, tmp_path / "photos")
    pipe = tmp_path / "photos/images/39.jpg"
    pipe.unlink()
    os.mkfifo(pipe)
    arguments = ["--photos-dir", tmp_path / "photos", "--data-dir", data_dir, "--out", tmp_path / "run"]
    with process("scripts/train.py", "--recipe", "photo", *map(str, arguments)) as child:
        writers: list[int] = []

        def is_read() -> bool:
            with contextlib.suppress(OSError):  # nobody reads it yet
                writers.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
            return bool(writers) or child.poll() is not None

        wait_until(is_read, 120)
        child.send_signal(signal.SIGINT)
        time.sleep(1)
        for writer in writers:
            os.close(writer)
        _, errors = child.communicate(timeout=180)
    assert child.returncode == 130
    sentence = "Stopped before the first epoch; nothing was kept: start again by the same command."
    assert errors.splitlines()[-1] == sentence


@pytest.mark.parametrize(("people", "fold"), [(1, 0), (3, 4)])
def test_photos_of_too_few_people_are_told_at_the_start(small_data, photos_dir, tmp_path, people, fold):
    lines = (photos_dir / "labels.csv").read_text().splitlines()
    cells = [line.split(",") for line in lines[1:]]
    rows = [f"{image},{int(image) % people},{name},{name}" for image, _, name, _ in cells]
    shutil.copytree(photos_dir, tmp_path / "photos")
    (tmp_path / "photos/labels.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    with pytest.raises(TrainingError, match=r"leaves no photo of the ten classes to .*: add photos of other people"):
        Run.start(tmp_path / "run", configured(small_data, tmp_path / "photos", fold=fold), small_data)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"words", "array", "shapes", "packed", "header"])
def test_a_file_without_outputs_is_named_before_the_training(data_dir, photos_dir, tmp_path, capsys, content):
    path = tmp_path / "held-out.npz"
    arrays = {"array": np.zeros(3), "shapes": HeldOut(np.zeros((2, 10)), np.zeros((3, 11), bool), np.zeros((3, 4)))}
    match content:
        case "array":
            np.save(path.with_suffix(".npy"), arrays[content])
            path.with_suffix(".npy").rename(path)
        case "shapes":
            path.write_bytes(arrays[content].to_bytes())
        case "packed":  # 0xff begins no block of a deflate stream
            whole = bytearray(HeldOut(np.zeros((2, 10)), np.zeros((2, 11), bool), np.zeros((2, 4))).to_bytes())
            start = 30 + int.from_bytes(whole[26:28], "little") + int.from_bytes(whole[28:30], "little")
            whole[start] = 0xFF
            path.write_bytes(whole)
        case "header":
            with zipfile.ZipFile(path, "w") as archive:
                for name in HeldOut._fields:
                    archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00\x02\x00((")
        case _:
            path.write_bytes(content)
    arguments = ["--recipe", "photo", "--photos-dir", photos_dir, "--data-dir", data_dir, "--out", tmp_path / "run"]
    assert train.main([*map(str, arguments), "--fold", "none", "--held-out", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"{path} cannot be read as held-out outputs (" in error
    assert error.endswith("): name a held-out.npz that a photo run wrote.\n")
    assert not (tmp_path / "run/config.json").exists()


def test_several_processes_do_not_train_on_photos(photos_dir, monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    arguments = train.parse_arguments(["--recipe", "photo", "--photos-dir", str(photos_dir)])
    with pytest.raises(TrainingError, match="trains in one process"):
        photos_of(arguments, find_recipe("photo"))


def test_a_missing_folder_is_named(small_data, tmp_path):
    with pytest.raises(DataMissing, match="no labelled photos in"):
        configured(small_data, tmp_path / "missing")


def test_the_loss_of_a_set_is_that_of_its_probability():
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    sets = torch.tensor([[True, False, True], [False, True, False]])
    losses = negative_log_likelihoods(probabilities.log(), sets)
    assert torch.allclose(losses, -torch.tensor([0.7, 0.1]).log())
    assert correct(probabilities.log(), sets).tolist() == [True, False]
    labels = torch.tensor([0, 1])
    single = torch.nn.functional.one_hot(labels, 3).bool()
    expected = torch.nn.functional.nll_loss(probabilities.log(), labels)
    assert torch.allclose(negative_log_likelihoods(probabilities.log(), single).mean(), expected)
    smoothed = torch.nn.functional.cross_entropy(probabilities.log(), labels, label_smoothing=0.1)
    assert torch.allclose(smoothed_set_loss(probabilities.log(), single, 0.1), smoothed)
