import json
import shutil

import numpy as np
import pytest

from model import WEIGHTS, Report, load_artifact
from model.artifact import list_artifacts, read_card, save_artifact, save_card
from model.errors import ArtifactCorrupt, ArtifactError, ArtifactMissing
from model.evaluation import Metrics
from model.evaluation.calibration import expected_calibration_error
from tests.permissions import obeying_permissions
from tests.servers import run

FORMATS = ("safetensors", "onnx", "int8.onnx", "detector.safetensors")


@pytest.fixture
def folder(tmp_path):
    """A copy of the committed artefact that may be damaged."""
    for path in WEIGHTS.glob("fashionnet.*"):
        shutil.copy(path, tmp_path)
    return tmp_path


def test_the_committed_artefact_is_whole_and_says_what_it_is(artifact):
    card = artifact.card
    assert card.parameters == 1_199_882
    assert card.recipe["name"] == "best"
    assert card.metrics["test"].count == 10_000
    assert card.metrics["test"].accuracy >= 0.94
    assert all(len(artifact.content[format_]) == card.files[format_].bytes < 16e6 for format_ in FORMATS)


@pytest.mark.parametrize("name", [path.stem for path in WEIGHTS.glob("*.json")])
@pytest.mark.parametrize("engine", ["onnx", "onnx-int8"])
def test_the_committed_cards_hold_all_figures_of_the_test_images(name, engine):
    figures = read_card(WEIGHTS, name).measured_with(engine)["test"]
    assert isinstance(figures, Report)
    low, high = figures.accuracy_interval
    assert low < figures.accuracy < high
    matrix = np.array(figures.confusion_matrix)
    assert np.trace(matrix) == round(figures.accuracy * figures.count)
    assert matrix.sum(1).tolist() == [one.support for one in figures.classes]
    assert matrix.sum() == figures.count == (2_000 if name == "fashionnet-photo" else 10_000)
    assert expected_calibration_error(figures.reliability) == pytest.approx(figures.ece)


def test_a_card_of_an_earlier_version_has_the_short_figures(folder, artifact):
    path = folder / "fashionnet.json"
    card = json.loads(path.read_text())
    for split, figures in card["metrics"].items():
        card["metrics"][split] = {key: figures[key] for key in Metrics.model_fields}
    path.write_text(json.dumps(card))
    figures = read_card(folder, "fashionnet").metrics["test"]
    assert figures == Metrics(**artifact.card.metrics["test"].model_dump())


def test_a_row_of_the_confusion_matrix_is_a_line_of_the_card(artifact, tmp_path):
    save_card(tmp_path, artifact.card)
    text = (tmp_path / "fashionnet.json").read_text()
    for row in artifact.card.metrics["test"].confusion_matrix:
        assert f"{row}" in text
    assert read_card(tmp_path, "fashionnet") == artifact.card


def test_an_artefact_is_read_back_as_it_was_written(artifact, tmp_path):
    card = save_artifact(tmp_path, artifact.card, artifact.content)
    assert card == artifact.card
    assert load_artifact(tmp_path, "fashionnet") == artifact
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "fashionnet.detector.safetensors",
        "fashionnet.int8.onnx", "fashionnet.json", "fashionnet.onnx", "fashionnet.safetensors",
    ]  # fmt: skip


def test_the_version_follows_the_weights(artifact, tmp_path):
    content = artifact.content | {"safetensors": artifact.content["safetensors"] + b" "}
    assert save_artifact(tmp_path, artifact.card, content).version != artifact.card.version


@pytest.mark.parametrize("format_", FORMATS)
def test_an_altered_file_is_refused(folder, format_):
    path = folder / f"fashionnet.{format_}"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactCorrupt, match=r"was altered.*Restore the files"):
        load_artifact(folder, "fashionnet")


@pytest.mark.parametrize("format_", FORMATS)
def test_a_truncated_file_is_refused(folder, format_):
    path = folder / f"fashionnet.{format_}"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactCorrupt, match="is truncated: "):
        load_artifact(folder, "fashionnet")


@pytest.mark.parametrize("suffix", ["json", *FORMATS])
def test_a_missing_file_is_named(folder, suffix):
    (folder / f"fashionnet.{suffix}").unlink()
    with pytest.raises(ArtifactMissing, match=rf"fashionnet\.{suffix} is missing"):
        load_artifact(folder, "fashionnet")


@pytest.mark.parametrize("name", ["fashionnet.json", "fashionnet.safetensors"])
@pytest.mark.parametrize("by", ["folder", "loop"])
def test_a_file_that_cannot_be_read_is_named(folder, name, by):
    (folder / name).unlink()
    (folder / name).mkdir() if by == "folder" else (folder / name).symlink_to(name)
    with pytest.raises(ArtifactError, match=f"{name} cannot be read .*: let the user that runs FashionNet read it"):
        load_artifact(folder, "fashionnet")


@pytest.mark.parametrize("command", [("-m", "app"), ("scripts/predict.py", "x.png")])
def test_a_file_of_another_user_is_one_sentence(folder, command):
    obeying = obeying_permissions()
    (folder / "fashionnet.onnx").chmod(0)
    done = run(*obeying, *command, FASHIONNET_MODEL_DIR=str(folder), FASHIONNET_PORT="0", FASHIONNET_ENGINE="onnx")
    assert done.returncode > 0
    assert len(done.stderr.splitlines()) == 1
    assert f"{folder}/fashionnet.onnx cannot be read (Permission denied)" in done.stderr


def test_only_the_file_that_the_engine_needs_is_read(folder):
    (folder / "fashionnet.safetensors").unlink()
    assert set(load_artifact(folder, "fashionnet", ("onnx",)).content) == {"onnx"}


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"name": "fashionnet"}'])
def test_a_card_that_is_none_is_refused(folder, content):
    (folder / "fashionnet.json").write_text(content)
    with pytest.raises(ArtifactCorrupt, match="not a model card"):
        read_card(folder, "fashionnet")


@pytest.mark.parametrize("change", [{"name": "other"}, {"files": {}}])
def test_a_card_of_something_else_is_refused(folder, change):
    path = folder / "fashionnet.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ArtifactCorrupt, match="not the complete card"):
        read_card(folder, "fashionnet")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(folder, artifact, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def no_space(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        save_artifact(folder, artifact.card, {"safetensors": b"new", "onnx": b"new"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_artefacts_of_a_folder_are_listed_by_their_cards(folder):
    for suffix in ("json", "onnx"):
        shutil.copy(folder / f"fashionnet.{suffix}", folder / f"another.{suffix}")
    assert list_artifacts(folder) == ["another", "fashionnet"]


def test_other_files_of_the_folder_are_no_models(folder):
    (folder / "config.json").write_text('{"recipe": {}}')
    (folder / "fashionnet-lost.json").write_text("{}")
    (folder / "notes.txt").write_text("")
    assert list_artifacts(folder) == ["fashionnet"]
