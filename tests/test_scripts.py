import json
from collections import Counter

import numpy as np
import onnx
import pytest
from PIL import Image, ImageChops

from app.commands import evaluate as evaluate_script
from app.commands import export
from model import CLASSES, WEIGHTS, create_engine, evaluate, load_artifact
from model.artifact import save_artifact
from model.export.build import PARITY
from tests.data_sets import real_data_set
from tests.in_process import call
from tests.pictures import encode, trousers
from tests.servers import ROOT, run


def test_predict_prints_a_row_a_file_and_goes_on_after_a_bad_one(tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(encode(trousers()))
    bad.write_bytes(b"nonsense")
    done = run("scripts/predict.py", str(bad), str(tmp_path / "absent.png"), str(good))
    assert done.returncode == 1
    rows = done.stdout.splitlines()
    assert "error: This is not a picture" in rows[0]
    assert "No such file" in rows[1]
    assert " Trouser " in rows[2]


@pytest.mark.parametrize(
    "command",
    ["predict x.png --model nope", "evaluate --model nope", "evaluate --compare-with nope", "export nope"],
)
def test_an_unknown_model_is_answered_with_those_that_are_there(command):
    done = call(*command.split())
    assert (done.returncode, done.stdout) == (2, "")
    names = "fashionnet, fashionnet-deep, fashionnet-photo"
    assert done.stderr == f"error: There is no model 'nope' in {WEIGHTS}; there are: {names}.\n"


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_evaluate_reports_on_small_data(small_data, engine):
    arguments = ["--data-dir", str(small_data.root), "--engine", engine]
    table = call("evaluate", *arguments)
    figures = json.loads(call("evaluate", *arguments, "--json").stdout)
    assert f"accuracy {figures['accuracy']:.2%}" in table.stdout
    assert [line.split("  ")[0] for line in table.stdout.splitlines()[3:]] == list(CLASSES)
    assert f"calibration error {figures['ece']:.2%}" in table.stdout


def test_evaluate_enlarges_the_images_for_the_photo_model(small_data):
    done = call("evaluate", "--model", "fashionnet-photo", "--data-dir", small_data.root, "--json")
    assert done.returncode == 0, done.stderr
    artifact = load_artifact(WEIGHTS, "fashionnet-photo")
    engine, card = create_engine("auto", artifact, 2), artifact.card
    expected = evaluate(engine, small_data.load("test"), card.temperature, card.input)
    assert json.loads(done.stdout)["loss"] == pytest.approx(expected.loss, abs=1e-3)


@pytest.mark.slow
def test_evaluate_compares_measures_ood_detection_and_lists_label_issues(small_data, tmp_path):
    plots = tmp_path / "plots"
    arguments = ["--data-dir", small_data.root, "--compare-with", "fashionnet-deep", "--ood", "--label-issues", "3"]
    done = call("evaluate", *arguments, "--plots", plots)
    assert done.returncode == 0, done.stderr
    assert "compared with fashionnet-deep: " in done.stdout
    assert "McNemar's exact p = " in done.stdout
    assert "digits       0." in done.stdout
    assert len(done.stdout.split("most likely mislabelled:\n")[1].splitlines()) == 4
    pictures = sorted(plots.iterdir())
    assert [path.name for path in pictures] == ["confusion.png", "label-issues.png", "reliability.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


def test_evaluate_gives_programs_everything(small_data):
    arguments = ["--data-dir", small_data.root, "--compare-with", "fashionnet", "--label-issues", "2", "--json"]
    printed = json.loads(call("evaluate", *arguments).stdout)
    assert printed["comparison"] == {
        "only_first": 0, "only_second": 0, "difference": 0.0, "interval": [0.0, 0.0], "p_value": 1.0
    }  # fmt: skip
    assert len(printed["label_issues"]) == 2
    assert len(printed["reliability"]) == 15


def test_renamed_flags_work_with_a_warning(small_data):
    arguments = ["--data-dir", small_data.root, "--json"]
    done = call("evaluate", *arguments, "--against", "fashionnet", "--suspects", "2")
    assert done.stderr == (
        "warning: --against is deprecated: use --compare-with.\n"
        "warning: --suspects is deprecated: use --label-issues.\n"
    )
    assert json.loads(done.stdout).keys() >= {"comparison", "label_issues"}
    assert "--suspects" not in call("evaluate", "--help").stdout
    assert evaluate_script.parse_arguments(["--outliers"]).ood


def test_evaluate_refuses_a_number_of_label_issues_below_0():
    done = call("evaluate", "--label-issues", "-1")
    assert done.returncode == 2
    assert "0 or more" in done.stderr


@pytest.mark.weights
def test_evaluate_gives_the_figure_of_the_card_on_the_real_data(engine, artifact):
    done = call("evaluate", "--json", "--data-dir", real_data_set().root)
    accuracy = json.loads(done.stdout)["accuracy"]
    assert accuracy == pytest.approx(artifact.card.measured_with(engine.name)["test"].accuracy, abs=2e-4)


def test_evaluate_without_data_says_how_to_get_them(tmp_path):
    done = run("scripts/evaluate.py", "--data-dir", str(tmp_path))
    assert done.returncode == 2
    assert "scripts/download.py" in done.stderr


def test_download_fails_with_one_sentence(tmp_path):
    done = run("scripts/download.py", "--data-dir", str(tmp_path), "--url", "http://127.0.0.1:9/")
    assert done.returncode == 2
    assert "cannot be reached" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_examples_are_what_their_script_draws(tmp_path):
    assert call("draw_examples", tmp_path).returncode == 0
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert sorted(drawn) == sorted(path.name for path in (ROOT / "examples").glob("*.png"))
    for name in drawn:
        committed, fresh = Image.open(ROOT / "examples" / name), Image.open(tmp_path / name)
        assert max(high for _, high in ImageChops.difference(committed, fresh).getextrema()) <= 2


@pytest.mark.slow
@pytest.mark.weights
def test_export_makes_the_committed_artefact_again(tmp_path, artifact, capsys):
    """The same weights and a graph in full precision with the same outputs.

    The graph in 8 bits is compared by its accuracy: another CPU rounds the factors of a convolution differently.
    """
    arguments = ["fashionnet", "--out", str(tmp_path), "--data-dir", str(real_data_set().root)]
    assert export.main(arguments) == 0
    fresh = load_artifact(tmp_path, "fashionnet")
    assert fresh.card.version == artifact.card.version
    assert fresh.content["safetensors"] == artifact.content["safetensors"]
    assert operators(fresh.content["onnx"]) == operators(artifact.content["onnx"])
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    found, expected = (create_engine("onnx", one).run(images).logits for one in (fresh, artifact))
    np.testing.assert_allclose(found, expected, atol=PARITY)
    assert fresh.card.metrics["test"].accuracy == pytest.approx(artifact.card.metrics["test"].accuracy, abs=2e-4)
    assert fresh.card.temperature == pytest.approx(artifact.card.temperature, rel=1e-3)
    assert fresh.card.ood_auroc == pytest.approx(artifact.card.ood_auroc, abs=0.01)
    for feature, histogram in artifact.card.histograms.items():
        assert fresh.card.histograms[feature].edges == pytest.approx(histogram.edges, abs=0.02)
    assert "8 bits: validation 94." in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("formats", [{"int8.onnx"}, set()])
def test_export_figures_measures_the_existing_graphs_and_writes_only_the_card(artifact, small_data, tmp_path, formats):
    recipe = artifact.card.recipe | {"validation_size": 100}
    changes = {"recipe": recipe, "metrics": {}, "int8_metrics": {}, "data": dict(small_data.checksums())}
    card = artifact.card.model_copy(update=changes)
    content = {key: data for key, data in artifact.content.items() if key != "int8.onnx" or key in formats}
    before = save_artifact(tmp_path, card, content)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.suffix != ".json"}
    arguments = ["fashionnet", "--figures", "--model-dir", str(tmp_path), "--data-dir", str(small_data.root)]
    assert export.main(arguments) == 0
    assert times == {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.suffix != ".json"}
    after = load_artifact(tmp_path, "fashionnet").card
    measured = {"metrics", "int8_metrics", "ood_auroc", "histograms"}
    assert after.model_dump(exclude=measured) == before.model_dump(exclude=measured)
    test, validation = after.metrics["test"], after.metrics["validation"]
    assert (test.count, validation.count) == (200, 64), "a tenth of a small set validates"
    assert test == evaluate(create_engine("onnx", artifact), small_data.load("test"), card.temperature)
    assert bool(after.int8_metrics) == bool(formats)
    assert {sum(histogram.counts) for histogram in after.histograms.values()} == {64}


def operators(graph: bytes) -> Counter[str]:
    """How many nodes of each operator there are."""
    return Counter(node.op_type for node in onnx.load_from_string(graph).graph.node)


@pytest.mark.parametrize("changes", [{"recipe": {}}, {"training": {}}, {"training": {"seed": None}}])
def test_a_card_without_recipe_and_seed_is_one_sentence(artifact, small_data, tmp_path, capsys, changes):
    card = artifact.card.model_copy(update={"data": dict(small_data.checksums()), **changes})
    save_artifact(tmp_path, card, artifact.content)
    assert export.main(["fashionnet", "--model-dir", str(tmp_path), "--data-dir", str(small_data.root)]) == 2
    assert "fashionnet.json names no recipe and seed that this version knows" in capsys.readouterr().err


def test_export_without_the_data_says_how_to_get_it(tmp_path):
    done = call("export", "fashionnet", "--data-dir", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
