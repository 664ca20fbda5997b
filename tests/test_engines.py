import numpy as np
import onnx
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model import WEIGHTS, Artifact, create_engine, load_artifact, preprocess
from model.artifact import read_card
from model.engines import log_softmax, run_batches, softmax
from model.errors import ArtifactCorrupt, ArtifactMissing
from model.evaluation.report import evaluate
from model.export.build import preoptimized
from model.preprocessing.fit import fit_data_set
from model.training.recipes import Recipe
from model.training.run import training_splits
from tests.data_sets import real_data_set
from tests.pictures import encode, random_image, scene

logits = arrays(np.float32, (4, 10), elements=st.floats(-1e4, 1e4, width=32))


@pytest.mark.slow
@pytest.mark.weights
def test_both_engines_of_full_precision_agree_on_the_whole_test_set(artifact):
    images = real_data_set().load("test").images
    onnx, torch = (run_batches(create_engine(name, artifact, 2), images).logits for name in ("onnx", "torch"))
    assert np.abs(onnx - torch).max() <= 1e-4


@pytest.mark.weights
def test_8_bits_keep_the_accuracy_to_a_tenth_of_a_point(artifact):
    """On the validation images, by which that is decided at the export; the card says what the test set gave."""
    _, validation = training_splits(real_data_set(), Recipe(**artifact.card.recipe), artifact.card.training["seed"])
    measured = evaluate(create_engine("onnx-int8", artifact, 2), validation).accuracy
    assert measured >= artifact.card.metrics["validation"].accuracy - 0.001
    # Another CPU may round one image in a thousand the other way.
    assert measured == pytest.approx(artifact.card.int8_metrics["validation"].accuracy, abs=0.001)


def test_a_preoptimised_graph_is_the_same_function_in_standard_operators(artifact):
    graph = preoptimized(artifact.content["onnx"])
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)
    before, after = (
        create_engine("onnx", Artifact(artifact.card, {"onnx": content})).run(images)
        for content in (artifact.content["onnx"], graph)
    )
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    for content in (graph, artifact.content["int8.onnx"]):
        proto = onnx.load_model_from_string(content)
        onnx.checker.check_model(proto)
        assert [opset.domain for opset in proto.opset_import] == [""]


def test_a_graph_without_scores_is_refused(artifact):
    proto = onnx.load_model_from_string(artifact.content["onnx"])
    proto.graph.output.remove(next(output for output in proto.graph.output if output.name == "ood_scores"))
    content = proto.SerializeToString()
    message = r"fashionnet\.onnx is of an earlier version: export it again by .*scripts/export.py fashionnet\."
    with pytest.raises(ArtifactCorrupt, match=message):
        create_engine("onnx", Artifact(artifact.card, {"onnx": content}))
    of_photos = read_card(WEIGHTS, "fashionnet-photo")
    message = "is of an earlier version: export it again from its run by .*scripts/train.py --resume RUN, or restore"
    with pytest.raises(ArtifactCorrupt, match=message):
        create_engine("onnx", Artifact(of_photos, {"onnx": content}))


def test_a_score_of_an_earlier_version_is_refused_by_the_torch_engine(artifact):
    tensors = safetensors.numpy.load(artifact.content["detector.safetensors"])
    earlier = {"steps": tensors.pop("centres")} | tensors
    content = artifact.content | {"detector.safetensors": safetensors.numpy.save(earlier)}
    with pytest.raises(ArtifactCorrupt, match=r"fashionnet\.detector\.safetensors is of an earlier version: "):
        create_engine("torch", Artifact(artifact.card, content))


@pytest.mark.parametrize(("has_int8", "expected"), [(True, "onnx-int8"), (False, "onnx")])
def test_auto_is_8_bits_where_the_cpu_multiplies_bytes(artifact, monkeypatch, has_int8, expected):
    monkeypatch.setattr("model.engines.has_int8", lambda: has_int8)
    assert create_engine("auto", artifact).name == expected


def test_without_a_graph_in_8_bits_auto_is_full_precision_and_asking_for_it_says_so(artifact):
    files = {name: record for name, record in artifact.card.files.items() if name != "int8.onnx"}
    plain = Artifact(artifact.card.model_copy(update={"files": files}), artifact.content)
    assert create_engine("auto", plain).name == "onnx"
    with pytest.raises(ArtifactMissing, match="set the engine to auto or onnx"):
        create_engine("onnx-int8", plain)


@pytest.mark.parametrize(("model", "features"), [("fashionnet", 128), ("fashionnet-photo", 1280)])
@pytest.mark.parametrize("name", ["onnx", "onnx-int8", "torch"])
def test_engines_give_logits_features_and_scores(name, model, features):
    artifact = load_artifact(WEIGHTS, model)
    images = fit_data_set(np.stack([random_image(i) for i in range(3)]), artifact.card.input)
    outputs = create_engine(name, artifact).run(images)
    assert [array.shape for array in outputs] == [(3, 10), (3, features), (3,)]
    assert {array.dtype for array in outputs} == {np.dtype(np.float32)}


@pytest.mark.parametrize(("model", "shape"), [("fashionnet", None), ("fashionnet-photo", (3, 10, 7, 7))])
@pytest.mark.parametrize("name", ["onnx", "onnx-int8", "torch"])
def test_the_photo_model_alone_has_class_maps(name, model, shape):
    artifact = load_artifact(WEIGHTS, model)
    images = fit_data_set(np.stack([random_image(i) for i in range(3)]), artifact.card.input)
    maps = create_engine(name, artifact).class_maps(images)
    assert (None if maps is None else maps.shape) == shape


def test_both_engines_of_full_precision_agree_on_photos():
    artifact = load_artifact(WEIGHTS, "fashionnet-photo")
    content = encode(scene("wood")[0])
    image = preprocess(content, lambda _: artifact.card.input).image[None]
    onnx, torch = (create_engine(name, artifact) for name in ("onnx", "torch"))
    for ours, theirs in zip(onnx.run(image), torch.run(image), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(onnx.class_maps(image), torch.class_maps(image), rtol=1e-3, atol=1e-3)


def test_both_engines_of_full_precision_agree_on_anything(artifact):
    images = np.stack([random_image(i) for i in range(16)])
    outputs = (create_engine(name, artifact).run(images) for name in ("onnx", "torch"))
    for ours, theirs in zip(*outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-3)  # noise has ten times larger logits than clothes


def test_a_batch_gives_each_image_what_it_gets_alone(engine):
    images = np.stack([random_image(i) for i in range(33)])
    alone = np.concatenate([engine.run(image[None]).logits for image in images])
    assert (engine.run(images).logits == alone).all()


@pytest.mark.parametrize(("name", "file"), [("onnx", "onnx"), ("onnx-int8", "int8.onnx")])
def test_what_is_no_graph_is_refused_by_the_onnx_engines(artifact, name, file):
    with pytest.raises(ArtifactCorrupt, match=rf"fashionnet\.{file} is not a graph"):
        create_engine(name, Artifact(artifact.card, {file: b"nonsense"}))


@given(logits)
def test_softmax_is_a_distribution_for_any_logits(values):
    probabilities = softmax(values)
    assert (probabilities >= 0).all()
    assert probabilities.sum(1) == pytest.approx(1, abs=1e-5)
    likeliest = np.take_along_axis(probabilities, values.argmax(1)[:, None], 1)
    assert (likeliest[:, 0] == probabilities.max(1)).all()


@given(logits)
def test_log_softmax_is_its_logarithm(values):
    assert np.exp(log_softmax(values)) == pytest.approx(softmax(values))
