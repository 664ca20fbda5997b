import io

import numpy as np
import pytest
from PIL import Image

from model import preprocess
from model.explanation import PATCH, STEPS, heat_map, occlusions
from model.plots import draw_canvas, draw_heat_map
from model.plots.style import CORRECT, INCORRECT, OPPOSES, SUPPORTS
from model.preprocessing.decode import decode
from model.preprocessing.pipeline import IDENTITY, Preprocessing
from tests.pictures import encode, grey_png, scene, trousers
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


def test_the_heat_of_a_turned_article_is_turned_back():
    page = Image.new("RGB", (300, 200), "white")
    heat = np.zeros((28, 28), np.float32)
    heat[:, 20:] = 1  # where the article, turned clockwise, has what was its top
    done = Preprocessing(steps=[], crop_box=(100, 40, 200, 180), placement=(0, 4, 28, 24), rotation_degrees=270)
    supporting = greenness(opened(draw_heat_map(draw_canvas(encode(page)), heat, done))) > 60
    assert supporting[42:70, 102:198].all()
    assert not supporting[100:].any()


def test_brightness_alone_is_that_of_the_whole_picture():
    photo = encode(trousers(ink="#c81e5a", size=1000), "JPEG")
    brightness, whole = (decode(photo, needed=300, grey=grey) for grey in (True, False))
    assert (brightness.image.mode, whole.image.mode) == ("L", "RGB")
    assert brightness.size == whole.size == (1000, 1000)
    difference = np.asarray(brightness.image, int) - np.asarray(whole.image.convert("L"), int)
    assert np.abs(difference).mean() < 0.5, "edges apart, where JPEG leaves colours that RGB has not"


def test_no_colour_has_two_meanings():
    assert len({CORRECT, INCORRECT, SUPPORTS, OPPOSES}) == 4


def test_green_supports_and_purple_opposes_and_a_small_picture_is_enlarged():
    heat = np.ones((28, 28), np.float32)
    heat[:14] = -1
    difference = greenness(opened(draw_heat_map(draw_canvas(grey_png()), heat, IDENTITY)))
    assert difference.shape == (224, 224)
    assert (difference[:100] < 0).mean() > 0.95
    assert (difference[120:] > 0).mean() > 0.95


def test_what_shows_the_trousers_speaks_for_trousers(client):
    answer = client.post("/explain", params={"format": "json"}, files={"file": encode(trousers())}).json()
    assert answer["prediction"]["label"] == "Trouser"
    heat = np.array(answer["attribution"])
    assert heat.shape == (28, 28)
    seen = preprocess(encode(trousers())).image > 0
    assert np.abs(heat[seen]).mean() > np.abs(heat[~seen]).mean()


@pytest.mark.parametrize(
    "content", [grey_png(), encode(trousers(), "JPEG"), encode(Image.new("RGB", (50, 90), "white"))]
)
@pytest.mark.parametrize("model", ["fashionnet", "fashionnet-deep", "fashionnet-photo"])
def test_a_picture_under_its_heat_map_is_a_png(client, content, model):
    response = client.post("/explain", params={"model": model}, content=content, headers={"content-type": "image/png"})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    assert min(opened(response.content).size) >= 50


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
