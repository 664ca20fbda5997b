import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from model import Artifact, create_engine, softmax
from model.engines import log_softmax
from model.errors import ArtifactCorrupt
from model.evaluate import compute_logits
from tests.data_sets import real_data_set
from tests.pictures import random_image

logits = arrays(np.float32, (4, 10), elements=st.floats(-1e4, 1e4, width=32))


def test_both_engines_agree_on_the_whole_test_set(artifact, engine):
    images = real_data_set().load("test").images
    difference = np.abs(compute_logits(engine, images) - compute_logits(create_engine("torch", artifact, 2), images))
    assert difference.max() <= 1e-4


@pytest.mark.parametrize("name", ["onnx", "torch"])
def test_engines_give_logits_and_features(artifact, name):
    outputs = create_engine(name, artifact).run(np.stack([random_image(i) for i in range(3)]))
    assert (outputs.logits.shape, outputs.features.shape) == ((3, 10), (3, 128))
    assert outputs.logits.dtype == outputs.features.dtype == np.float32


def test_the_engines_agree_on_anything(artifact, engine):
    images = np.stack([random_image(i) for i in range(16)])
    for ours, theirs in zip(engine.run(images), create_engine("torch", artifact).run(images), strict=True):
        assert np.abs(ours - theirs).max() <= 1e-3  # noise makes logits ten times those of clothes


def test_a_batch_gives_each_image_what_it_gets_alone(engine):
    images = np.stack([random_image(i) for i in range(33)])
    alone = np.concatenate([engine.run(image[None]).logits for image in images])
    assert (engine.run(images).logits == alone).all()


def test_what_is_no_graph_is_refused_by_the_onnx_engine(artifact):
    with pytest.raises(ArtifactCorrupt, match=r"fashionnet\.onnx is not a graph"):
        create_engine("onnx", Artifact(artifact.card, {"onnx": b"nonsense"}))


def test_an_unknown_architecture_is_refused_by_the_torch_engine(artifact):
    strange = Artifact(artifact.card.model_copy(update={"architecture": "lenet-9000"}), artifact.content)
    with pytest.raises(ArtifactCorrupt, match="lenet-9000"):
        create_engine("torch", strange)


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
