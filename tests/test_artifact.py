import contextlib
import errno
import functools
import itertools
import json
import operator
import os
import re
import shutil

import numpy as np
import pytest

from model import CLASSES, WEIGHTS, Report, create_engine, load_artifact
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


def fields_of(path):
    return json.loads(path.read_text())


def edit_by_hand(path, **changes):
    """Change fields of a card and remove its checksum, as its error message says."""
    fields = fields_of(path) | changes
    path.write_text(json.dumps({name: value for name, value in fields.items() if name != "sha256"}))


def is_one_sentence(text):
    return text.endswith(".") and not re.search(r"\n|\. ", text)


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
    metrics = {
        split: {key: figures[key] for key in Metrics.model_fields}
        for split, figures in fields_of(folder / "fashionnet.json")["metrics"].items()
    }
    edit_by_hand(folder / "fashionnet.json", metrics=metrics)
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
    with pytest.raises(ArtifactCorrupt, match=r"was altered.*restore the files"):
        load_artifact(folder, "fashionnet")


@pytest.mark.parametrize("format_", FORMATS)
def test_a_truncated_file_is_refused(folder, format_):
    path = folder / f"fashionnet.{format_}"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ArtifactCorrupt, match="is truncated to "):
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
    edit_by_hand(folder / "fashionnet.json", **change)
    with pytest.raises(ArtifactCorrupt, match="not the complete card"):
        read_card(folder, "fashionnet")


def places(value, place=()):
    """The places of all values in a card: names of fields, and positions in lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*place, key)
        yield from places(inner, (*place, key))


OTHERS = [None, "", "a", 0, -1, 11, 1e308, float("nan"), float("inf"), True, [], ["a"] * 10, {}]


@pytest.mark.parametrize("name", list_artifacts(WEIGHTS))
def test_a_field_of_a_card_that_changes_is_refused(name, tmp_path):
    """Every field at the top, in ``input`` and in ``files``, and some of the others."""
    path, text = tmp_path / f"{name}.json", (WEIGHTS / f"{name}.json").read_text()
    found = list(places(json.loads(text)))
    chosen = [place for place in found if len(place) == 1 or place[0] in ("input", "files")]
    sampled = np.random.default_rng(0).choice(len(found), 12, replace=False)
    for *outer, key in chosen + [found[index] for index in sampled]:
        for other in OTHERS:
            fields = json.loads(text)
            inner = functools.reduce(operator.getitem, outer, fields)
            if json.dumps(inner[key]) == json.dumps(other) or (key, other) == ("sha256", None):
                continue
            inner[key] = other
            path.write_text(json.dumps(fields))
            with pytest.raises(ArtifactCorrupt) as refusal:
                read_card(tmp_path, name)
            assert is_one_sentence(str(refusal.value))
            assert str(path) in str(refusal.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 0), ("temperature", -1), ("temperature", 21), ("temperature", 1e308), ("temperature", "a"),
        ("temperature", float("nan")), ("temperature", float("inf")), ("temperature", None),
        ("classes", CLASSES[:9]), ("classes", [*CLASSES, "Hat"]), ("classes", ["a"] * 10), ("classes", [""] * 10),
        ("classes", CLASSES[::-1]), ("classes", []), ("members", 0), ("parameters", "many"), ("input", {"height": 0}),
        ("input", {"channels": 2}), ("input", {"convention": "x"}), ("files", {"safetensors": {"sha256": "0"}}),
    ],
)  # fmt: skip
def test_a_card_made_by_hand_with_a_wrong_field_is_refused_by_its_name(folder, field, value):
    edit_by_hand(folder / "fashionnet.json", **{field: value})
    with pytest.raises(ArtifactCorrupt, match=rf"fashionnet\.json is not a model card \({field}") as refusal:
        read_card(folder, "fashionnet")
    assert is_one_sentence(str(refusal.value))


@pytest.mark.parametrize("field", ["temperature", "classes", "metrics", "files", "name"])
def test_a_card_without_a_field_is_refused(folder, field):
    path = folder / "fashionnet.json"
    path.write_text(
        json.dumps({name: value for name, value in fields_of(path).items() if name not in (field, "sha256")})
    )
    with pytest.raises(ArtifactCorrupt, match=f"({field}: Field required)|not the complete card"):
        read_card(folder, "fashionnet")


@pytest.mark.parametrize("engine", ["onnx", "onnx-int8", "torch"])
@pytest.mark.parametrize("size", [{"height": 32}, {"channels": 3}])
def test_a_card_that_declares_another_input_than_the_graph_takes_is_refused(folder, engine, size):
    edit_by_hand(folder / "fashionnet.json", input=size)
    with pytest.raises(ArtifactCorrupt, match=r"fashionnet\.json declares an input of shape") as refusal:
        create_engine(engine, load_artifact(folder, "fashionnet"))
    assert is_one_sentence(str(refusal.value))


@pytest.mark.parametrize("change", [{"architecture": "x"}, {"members": 2}])
def test_a_card_of_another_network_than_the_weights_is_refused(folder, change):
    edit_by_hand(folder / "fashionnet.json", **change)
    with pytest.raises(ArtifactCorrupt, match="architecture") as refusal:
        create_engine("torch", load_artifact(folder, "fashionnet"))
    assert is_one_sentence(str(refusal.value))


def test_a_card_made_by_hand_is_accepted(folder, artifact):
    edit_by_hand(folder / "fashionnet.json", description="Mine.")
    assert read_card(folder, "fashionnet") == artifact.card.model_copy(update={"description": "Mine."})


def damaged(content):
    """The content with one bit flipped, near its ends and at random places; and truncated."""
    rng = np.random.default_rng(0)
    near = [*range(16), *range(len(content) - 16, len(content))]
    for place in [*near, *rng.integers(len(content), size=32)]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        yield bytes(flipped)
    yield from (content[: len(content) * part // 8] for part in range(8))
    yield content[:-1]


@pytest.mark.parametrize("suffix", ["json", *FORMATS])
def test_no_damage_goes_unnoticed(folder, suffix):
    path = folder / f"fashionnet.{suffix}"
    content = path.read_bytes()
    fields = json.loads(content) if suffix == "json" else None
    for altered in damaged(content):
        if fields and same_json(altered, fields):  # a space that became a tab, or a line feed
            continue
        path.write_bytes(altered)
        with pytest.raises(ArtifactCorrupt) as refusal:
            load_artifact(folder, "fashionnet", None if suffix == "json" else (suffix,))
        assert is_one_sentence(str(refusal.value))


def same_json(content, fields):
    with contextlib.suppress(ValueError):
        return json.loads(content) == fields
    return False


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("suffix", "damage"), [("json", flip), ("json", replace_by_folder), ("onnx", truncate), ("onnx", replace_by_folder)]
)
def test_a_service_with_a_damaged_model_ends_with_one_sentence(folder, suffix, damage):
    damage(folder / f"fashionnet.{suffix}")
    done = run("-m", "app", FASHIONNET_MODEL_DIR=str(folder), FASHIONNET_PORT="0", FASHIONNET_ENGINE="onnx")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"fashionnet: {folder}/fashionnet.{suffix} ")
    assert is_one_sentence(line)


@pytest.mark.parametrize(("mode", "unreadable"), [(0o100, ""), (0o400, "/fashionnet.json")])
def test_a_folder_of_models_that_cannot_be_listed_or_searched_is_one_sentence(folder, mode, unreadable):
    obeying = obeying_permissions()
    folder.chmod(mode)
    done = run(*obeying, "-m", "app", FASHIONNET_MODEL_DIR=str(folder), FASHIONNET_PORT="0")
    folder.chmod(0o700)
    assert done.returncode == 1
    assert done.stderr.startswith(f"fashionnet: {folder}{unreadable} cannot be read (Permission denied)")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(folder, artifact, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def no_space(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        save_artifact(folder, artifact.card, {"safetensors": b"new", "onnx": b"new"})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_a_killed_write_left_is_removed_by_the_next_one(artifact, tmp_path):
    kept = tmp_path / ".fashionnet-deep.onnx.1234.tmp"
    for path in (kept, tmp_path / ".fashionnet.onnx.1234.tmp"):
        path.touch()
    save_artifact(tmp_path, artifact.card, artifact.content)
    assert list(tmp_path.glob("*.tmp")) == [kept], "the other one is of another artefact"


def test_the_artefacts_of_a_folder_are_listed_by_their_cards(folder):
    for suffix in ("json", "onnx"):
        shutil.copy(folder / f"fashionnet.{suffix}", folder / f"another.{suffix}")
    assert list_artifacts(folder) == ["another", "fashionnet"]


def test_other_files_of_the_folder_are_no_models(folder):
    (folder / "config.json").write_text('{"recipe": {}}')
    (folder / "fashionnet-lost.json").write_text("{}")
    (folder / "notes.txt").write_text("")
    assert list_artifacts(folder) == ["fashionnet"]


@pytest.mark.parametrize("write", range(5))
def test_an_artefact_without_room_for_all_its_files_leaves_the_one_before(folder, monkeypatch, write):
    before, real, calls = load_artifact(folder, "fashionnet"), os.fsync, itertools.count()

    def fsync(handle):
        if next(calls) == write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        save_artifact(folder, before.card, dict.fromkeys(FORMATS, b"other"))
    assert load_artifact(folder, "fashionnet") == before
    assert len(list(folder.iterdir())) == 5


def test_a_graph_that_a_model_has_no_more_is_deleted(folder):
    before = load_artifact(folder, "fashionnet")
    save_artifact(folder, before.card, {key: data for key, data in before.content.items() if key != "int8.onnx"})
    assert not (folder / "fashionnet.int8.onnx").exists()
    assert set(load_artifact(folder, "fashionnet").content) == set(FORMATS) - {"int8.onnx"}
