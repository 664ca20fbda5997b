import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.inference.evaluator import Selection
from app.settings import Settings
from model import CLASSES
from tests.problems import assert_problem
from tests.servers import serve


def gallery(client, **query):
    response = client.get("/gallery", params=query)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    return response


def test_the_grid_has_the_asked_size(client):
    small, large = (Image.open(io.BytesIO(gallery(client, rows=r, columns=c).content)) for r, c in ((1, 1), (2, 3)))
    assert large.width > 2.5 * small.width
    assert large.height > 1.8 * small.height


@pytest.mark.parametrize("only", ["all", "correct", "incorrect"])
def test_the_same_query_gives_the_same_picture_under_the_same_etag(client, only):
    first, second = (gallery(client, only=only, seed=4) for _ in range(2))
    assert first.content == second.content
    assert first.headers["etag"] == second.headers["etag"]


def test_another_query_gives_another_picture_and_etag(client):
    answers = [gallery(client, rows=2, **query) for query in ({}, {"seed": 1}, {"only": "incorrect"}, {"label": "Bag"})]
    assert len({answer.content for answer in answers}) == 4
    assert len({answer.headers["etag"] for answer in answers}) == 4


def test_a_known_etag_is_304_without_a_body(client):
    etag = gallery(client).headers["etag"]
    response = client.get("/gallery", headers={"if-none-match": etag})
    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"rows": 0}, "rows"), ({"columns": 21}, "columns"), ({"seed": -1}, "seed"), ({"only": "some"}, "only"),
        ({"label": "Hat"}, "label"), ({"rows": "many"}, "rows"),
    ],
)  # fmt: skip
def test_a_query_that_cannot_be_is_named(client, query, name):
    assert name in assert_problem(client.get("/gallery", params=query), 422, "invalid-query")


def test_the_first_measurement_of_the_test_set_rejects_no_gallery_after_it(small_data):
    """It takes seconds, once; galleries do not take so long, so nobody has to wait for others."""
    with serve(Settings(data_dir=small_data.root)) as client, ThreadPoolExecutor(4) as pool:
        gallery(client, only="incorrect", model="fashionnet-photo")
        for answer in pool.map(lambda seed: client.get("/gallery", params={"seed": seed}), range(4)):
            assert answer.status_code == 200


MAYBE = st.sampled_from([None, *CLASSES])
labels = st.lists(st.integers(0, 9), min_size=1, max_size=60)


@given(labels, st.integers(0, 2**63 - 1), st.sampled_from(["all", "correct", "incorrect"]), MAYBE, MAYBE)
def test_a_selection_keeps_to_what_it_asks_for(true, seed, only, label, predicted):
    true = np.array(true, np.uint8)
    found = np.where(np.random.default_rng(0).random(len(true)) < 0.5, true, (true + 1) % 10).astype(np.int64)
    selection = Selection(rows=2, columns=3, seed=seed, only=only, label=label, predicted=predicted)
    order = selection.order(true, found)
    chosen = selection.on_page(order)
    eligible = [
        i
        for i, (t, f) in enumerate(zip(true, found, strict=True))
        if (only == "all" or (t == f) == (only == "correct"))
        and label in (None, CLASSES[t])
        and predicted in (None, CLASSES[f])
    ]
    assert len(chosen) == min(6, len(eligible))
    assert len(set(chosen.tolist())) == len(chosen)
    assert sorted(order.tolist()) == eligible
    rest = selection.model_copy(update={"page": 1}).on_page(order)
    assert not set(rest.tolist()) & set(chosen.tolist())


@pytest.mark.parametrize(
    "query", [{}, {"only": "incorrect"}, {"label": "Bag"}, {"predicted": "Coat", "rows": 20, "columns": 20}]
)
def test_the_items_are_what_the_picture_shows(client, query):
    items = client.get("/gallery/items", params=query).json()["items"]
    assert items == client.get("/gallery/items", params=query).json()["items"]
    for item in items:
        assert item["correct"] == (item["label"] == item["predicted"])
        assert query.get("only") != "incorrect" or not item["correct"]
        assert query.get("label", item["label"]) == item["label"]
        assert query.get("predicted", item["predicted"]) == item["predicted"]


def test_the_pages_are_all_images_of_a_class_once(client):
    pages = [client.get("/gallery/items", params={"label": "Bag", "page": page}).json() for page in (0, 1)]
    assert pages[0]["count"] == len({item["index"] for item in pages[0]["items"]}) == 20
    assert pages[1] == {"items": [], "count": 20}
    for model in ("fashionnet-deep", "fashionnet-photo"):  # whose engines get no image
        assert client.get("/gallery/items", params={"label": "Bag", "page": 1, "model": model}).json() == pages[1]
    gallery(client, label="Bag", page=1)
    query = {"rows": 1, "columns": 3, "seed": 2}
    items = [client.get("/gallery/items", params=query | {"page": page}).json()["items"] for page in range(3)]
    assert items[0] + items[1] + items[2] == client.get("/gallery/items", params=query | {"columns": 9}).json()["items"]


def test_an_item_shows_its_image_and_predicts_as_it_says(client, small_data):
    item = client.get("/gallery/items", params={"rows": 1, "columns": 1, "seed": 5}).json()["items"][0]
    response = client.get(f"/gallery/images/{item['index']}.png")
    assert response.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(response.content)) as image:
        assert (np.asarray(image) == small_data.load("test").images[item["index"]]).all()
    assert client.post("/predict", files={"file": response.content}).json()["label"] == item["predicted"]


@pytest.mark.parametrize(
    ("index", "status", "problem"),
    [(200, 404, "unknown-image"), (-1, 404, "unknown-image"), ("x", 422, "invalid-query")],
)
def test_an_image_that_is_not_there_is_named(client, index, status, problem):
    assert_problem(client.get(f"/gallery/images/{index}.png"), status, problem)
