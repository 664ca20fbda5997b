import io

import numpy as np
import pytest
from PIL import Image

from model import WEIGHTS, create_engine, load_artifact, preprocess
from model.explanation import PATCH, STEPS, attribute, heat_map, occlusions, support
from model.plots import draw_canvas, draw_heat_map
from model.preprocessing import IDENTITY
from model.preprocessing.decode import decode
from tests.pictures import COLOUR_SQUARE, encode, grey_png, scene, trousers
from tests.problems import assert_problem


def test_every_pixel_is_hidden_in_some_copy_and_the_first_is_the_image():
    image = np.full((28, 28), 200, np.uint8)
    copies = occlusions(image)
    assert copies.shape == (STEPS**2 + 1, 28, 28)
    assert (copies[0] == image).all()
    hidden = (copies[1:] == 0).sum(0)
    assert hidden.min() >= 1
    assert hidden[10:18, 10:18].min() == (PATCH // 4) ** 2, "the middle lies under four squares"


def test_heat_is_where_hiding_makes_the_class_less_likely():
    logits = np.zeros((STEPS**2 + 1, 10), np.float32)
    logits[:, 3] = 5
    logits[1, 3] = 0  # the upper left square hidden: class 3 is lost
    logits[-1, 3] = 9  # the lower right one: surer
    heat = heat_map(logits, 3)
    assert heat.shape == (28, 28)
    assert heat[0, 0] > 1
    assert heat[-1, -1] < 0
    assert np.unravel_index(heat.argmax(), heat.shape) < (4, 4)


def test_a_model_without_class_maps_is_explained_by_hiding(engine, artifact):
    image, temperature = preprocess(encode(trousers())).image, artifact.card.temperature
    assert engine.class_maps(image[None]) is None
    expected = heat_map(engine.run(occlusions(image)).logits / np.float32(temperature), 1)
    np.testing.assert_allclose(attribute(engine, image, 1, temperature), expected, atol=1e-5)


def test_a_place_supports_a_class_if_it_adds_more_to_its_logit_than_to_the_mean_of_all():
    maps = np.zeros((10, 5, 5), np.float32)
    maps[:, 4] = 7  # adds as much to every class
    maps[3, 0, 0], maps[3, 2, 2] = 10, -10
    found = support(maps, 3)
    assert (found[0, 0], found[2, 2]) == pytest.approx((9, -9))
    assert (found[4] == 0).all()
    assert support(maps, 5)[0, 0] == pytest.approx(-1)


@pytest.mark.parametrize("kind", ["onnx", "onnx-int8", "torch"])
def test_the_photo_model_is_explained_by_its_class_maps(kind):
    artifact = load_artifact(WEIGHTS, "fashionnet-photo")
    engine = create_engine(kind, artifact)
    photos = [scene("wood")[0], scene("tiles", "#a03030")[0]]
    images = np.stack([preprocess(encode(photo), lambda _: artifact.card.input).image for photo in photos])
    maps, logits = engine.class_maps(images), engine.run(images).logits
    assert maps.shape == (2, 10, 7, 7)
    first, second = logits - maps.sum((2, 3))  # the biases, whatever the image
    np.testing.assert_allclose(first, second, atol=0.5 if kind == "onnx-int8" else 1e-3)
    class_id = int(logits[0].argmax())
    heat = attribute(engine, images[0], class_id, 2.0)
    assert heat.shape == (28, 28)
    np.testing.assert_allclose(heat, attribute(engine, images[0], class_id, 1.0) / 2, atol=1e-4)


def opened(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        return image


def greenness(image: Image.Image) -> np.ndarray:
    """Green less red, [H, W]: above 0 where a pixel supports the class, below 0 where it opposes it."""
    pixels = np.asarray(image, int)
    return pixels[..., 1] - pixels[..., 0]


def test_the_heat_lies_on_the_article_in_the_picture():
    page = Image.new("RGB", (300, 200), "white")
    page.paste(trousers(size=100), (180, 50))
    done = preprocess(encode(page)).preprocessing
    drawn = opened(draw_heat_map(draw_canvas(encode(page)), np.ones((28, 28), np.float32), done))
    supporting = greenness(drawn) > 60
    left, top, right, bottom = done.crop_box
    assert supporting[top : bottom - 1, left : right - 1].all()
    supporting[top - 1 : bottom + 1, left - 1 : right + 1] = False
    assert not supporting.any()


def test_the_heat_of_a_photo_lies_on_the_whole_picture():
    photo = scene("wood")[0].resize((300, 200))
    done = preprocess(encode(photo), lambda _: COLOUR_SQUARE).preprocessing
    heat = np.ones((28, 28), np.float32)
    heat[:, :14] = -1
    drawn = greenness(opened(draw_heat_map(draw_canvas(encode(photo)), heat, done)))
    assert drawn.shape == (200, 300)
    assert (drawn[:, :140] < 0).all()
    assert (drawn[:, 160:] > 0).all()


def test_brightness_alone_is_that_of_the_whole_picture():
    photo = encode(trousers(ink="#c81e5a", size=1000), "JPEG")
    brightness, whole = (decode(photo, min_edge=300, grey=grey) for grey in (True, False))
    assert (brightness.image.mode, whole.image.mode) == ("L", "RGB")
    assert brightness.size == whole.size == (1000, 1000)
    difference = np.asarray(brightness.image, int) - np.asarray(whole.image.convert("L"), int)
    assert np.abs(difference).mean() < 0.5, "edges apart, where JPEG leaves colours that RGB has not"


def test_green_supports_and_purple_opposes_and_a_small_picture_is_enlarged():
    heat = np.ones((28, 28), np.float32)
    heat[:14] = -1
    difference = greenness(opened(draw_heat_map(draw_canvas(grey_png()), heat, IDENTITY)))
    assert difference.shape == (224, 224)
    assert (difference[:100] < 0).mean() > 0.95
    assert (difference[120:] > 0).mean() > 0.95


@pytest.mark.parametrize(("edge", "drawn"), [(28, 224), (60, 480), (61, 427), (100, 400), (119, 476), (120, 120)])
def test_a_small_picture_is_enlarged_by_a_whole_factor_but_not_beyond_the_limit(edge, drawn):
    assert draw_canvas(encode(Image.new("L", (edge, edge // 2)))).image.size[0] == drawn


def test_what_shows_the_trousers_speaks_for_trousers(client):
    answer = client.post("/explain", params={"format": "json"}, files={"file": encode(trousers())}).json()
    assert answer["prediction"]["label"] == "Trouser"
    heat = np.array(answer["attribution"])
    assert heat.shape == (28, 28)
    seen = preprocess(encode(trousers())).image > 0
    assert np.abs(heat[seen]).mean() > np.abs(heat[~seen]).mean()


@pytest.mark.parametrize(
    "content",
    [grey_png(), encode(trousers(), "JPEG"), encode(scene("wood")[0]), encode(Image.new("RGB", (50, 90), "white"))],
    ids=["28x28", "drawing", "photo", "blank"],
)
@pytest.mark.parametrize("model", ["fashionnet", "fashionnet-deep", "fashionnet-photo"])
def test_a_picture_under_its_heat_map_is_a_png(client, content, model):
    response = client.post("/explain", params={"model": model}, content=content, headers={"content-type": "image/png"})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    assert min(opened(response.content).size) >= 50


def test_the_numbers_have_four_decimals(client):
    answer = client.post("/explain", params={"format": "json"}, files={"file": encode(trousers())}).json()
    numbers = [number for row in answer["attribution"] for number in row]
    assert numbers == [round(number, 4) for number in numbers]


def test_a_photo_is_explained_by_28x28_numbers(client):
    content = encode(scene("wood")[0], "JPEG")
    answer = client.post("/explain", params={"format": "json"}, files={"file": content}).json()
    assert answer["prediction"]["model"] == "fashionnet-photo"
    heat = np.array(answer["attribution"])
    assert heat.shape == (28, 28)
    assert heat.any()
    drawn = client.post("/explain", files={"file": content})
    assert drawn.headers["content-type"] == "image/png"
    assert opened(drawn.content).size == (300, 300)


@pytest.mark.parametrize("image", [trousers(), scene("wood")[0]], ids=["drawing", "photo"])
def test_explaining_gives_the_answer_of_predicting(client, image):
    content = encode(image)
    explained = client.post("/explain", params={"format": "json"}, files={"file": content}).json()["prediction"]
    predicted = client.post("/predict", files={"file": content}).json()
    assert explained == predicted


@pytest.mark.parametrize(
    ("query", "content", "status", "problem"),
    [
        ({}, b"nonsense", 415, "not-an-image"),
        ({}, b"", 422, "empty-image"),
        ({"format": "svg"}, grey_png(), 422, "invalid-query"),
        ({"model": "nonsense"}, grey_png(), 404, "unknown-model"),
    ],
)
def test_what_cannot_be_explained_is_refused(client, query, content, status, problem):
    assert_problem(client.post("/explain", params=query, files={"file": content}), status, problem)
