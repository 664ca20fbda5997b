import pytest

from model import WEIGHTS, preprocess
from model.engines import EngineOutputs
from model.prediction import LoadedModel, ModelPair, classify, classify_pictures, infer, load_model_pair
from tests.pictures import encode, grey_png, scene, trousers


class Counted:
    """An engine that notes the number of images in each call."""

    name = "onnx"

    def __init__(self, engine) -> None:
        self.engine, self.calls = engine, []

    def run(self, images) -> EngineOutputs:
        self.calls.append(len(images))
        return self.engine.run(images)


@pytest.fixture(scope="module")
def models() -> ModelPair[LoadedModel]:
    pair = load_model_pair("auto", WEIGHTS, ModelPair("fashionnet", "fashionnet-photo"))
    return ModelPair(*(LoadedModel(Counted(engine), card) for engine, card in pair))


@pytest.fixture
def pictures():
    """Of each kind two, and among them what could not be read."""
    drawing, photo, native = (
        preprocess(content) for content in (encode(trousers()), encode(scene("wood")[0]), grey_png())
    )
    return [drawing, photo, "unreadable", native, photo]


def test_pictures_are_classified_in_order_each_engine_once_and_errors_pass(models, pictures):
    for engine, _ in models:
        engine.calls.clear()
    found = classify_pictures(models, pictures)
    assert [engine.calls for engine, _ in models] == [[2], [2 * len(pictures[1].views)]]
    assert found[2] == "unreadable"
    for picture, prediction in zip(pictures, found, strict=True):
        if picture != "unreadable":
            engine, card = models.of(picture)
            assert card.name == ("fashionnet-photo" if picture.is_photo else "fashionnet")
            assert prediction == classify(next(infer(engine, [picture])), card, picture)


def test_one_model_for_all_is_loaded_and_called_once(pictures):
    pair = load_model_pair("auto", WEIGHTS, ModelPair("fashionnet", "fashionnet"))
    assert pair.default is pair.photos
    counted = LoadedModel(Counted(pair.default.engine), pair.default.card)
    found = classify_pictures(ModelPair(counted, counted), pictures, with_image=True)
    assert counted.engine.calls == [2 + 2 * len(pictures[1].views)]
    assert all(prediction.image.startswith("data:image/png") for prediction in found if prediction != "unreadable")


def test_no_picture_needs_no_engine(models):
    for engine, _ in models:
        engine.calls.clear()
    assert classify_pictures(models, ["unreadable"]) == ["unreadable"]
    assert [engine.calls for engine, _ in models] == [[], []]
