from functools import partial

import pytest

from model import WEIGHTS, preprocess
from model.engines import EngineOutputs
from model.prediction import (
    SINGLE_MODEL,
    LoadedModel,
    ModelPair,
    choice_reason,
    classify,
    classify_pictures,
    input_of,
    load_model_pair,
    run_pictures,
)
from model.preprocessing import PictureKind
from tests.pictures import encode, grey_png, scene, trousers

CONTENTS = {
    PictureKind.PLAIN: encode(trousers()),
    PictureKind.PHOTO: encode(scene("wood")[0]),
    PictureKind.DATA_SET: grey_png(),
}


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


def pictures_for(models: ModelPair[LoadedModel]) -> list:
    """Of each kind one, a second photo, and among them what could not be read."""
    drawing, photo, native = (preprocess(content, partial(input_of, models)) for content in CONTENTS.values())
    return [drawing, photo, "unreadable", native, photo]


@pytest.mark.parametrize(
    ("kind", "chosen"),
    [(PictureKind.DATA_SET, "default"), (PictureKind.PLAIN, "default"), (PictureKind.PHOTO, "photos")],
)
def test_photos_alone_go_to_the_model_for_photos_and_the_kind_is_the_reason(kind, chosen):
    names = ModelPair("default", "photos")
    assert names.choose(kind) == chosen
    assert choice_reason(names, kind) == kind.value


@pytest.mark.parametrize("kind", PictureKind)
def test_where_one_model_is_served_there_is_no_choice(kind):
    alone = ModelPair(*["default"] * 2)
    assert alone.choose(kind) == "default"
    assert choice_reason(alone, kind) == SINGLE_MODEL


def test_a_picture_is_prepared_as_the_card_of_its_model_declares(models):
    for kind, content in CONTENTS.items():
        picture = preprocess(content, partial(input_of, models))
        assert picture.kind is kind
        assert picture.image.shape == models.choose(kind).card.input.shape == input_of(models, kind).shape
    assert input_of(models, PictureKind.PHOTO).shape == (224, 224, 3)
    assert input_of(models, PictureKind.PLAIN).shape == (28, 28)


def test_pictures_are_classified_in_order_photos_one_by_one_and_errors_pass(models):
    pictures = pictures_for(models)
    for engine, _ in models:
        engine.calls.clear()
    found = classify_pictures(models, pictures)
    assert [engine.calls for engine, _ in models] == [[2], [1, 1]]
    assert found[2] == "unreadable"
    for picture, prediction in zip(pictures, found, strict=True):
        if picture != "unreadable":
            engine, card = models.choose(picture.kind)
            assert card.name == ("fashionnet-photo" if picture.kind is PictureKind.PHOTO else "fashionnet")
            assert prediction.model_choice == picture.kind.value
            (output,) = run_pictures(engine, [picture])
            alone = classify(output, card, picture, picture.kind.value)
            assert prediction.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
            assert (prediction.label, prediction.model) == (alone.label, alone.model)


def test_one_model_for_all_is_loaded_and_called_once():
    pair = load_model_pair("auto", WEIGHTS, ModelPair("fashionnet", "fashionnet"))
    assert pair.default is pair.photos
    counted = LoadedModel(Counted(pair.default.engine), pair.default.card)
    both = ModelPair(counted, counted)
    found = classify_pictures(both, pictures_for(both), with_image=True)
    predictions = [prediction for prediction in found if prediction != "unreadable"]
    assert counted.engine.calls == [4]
    assert all(prediction.image.startswith("data:image/png") for prediction in predictions)
    assert {prediction.model_choice for prediction in predictions} == {SINGLE_MODEL}


def test_no_picture_needs_no_engine(models):
    for engine, _ in models:
        engine.calls.clear()
    assert classify_pictures(models, ["unreadable"]) == ["unreadable"]
    assert [engine.calls for engine, _ in models] == [[], []]
