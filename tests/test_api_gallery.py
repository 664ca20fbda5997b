import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.evaluator import Selection
from model import CLASSES
from tests.problems import assert_problem


def gallery(client, **query):
    response = client.get("/gallery", params=query)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    return response


def test_the_grid_has_the_asked_size(client):
    small, large = (Image.open(io.BytesIO(gallery(client, rows=r, columns=c).content)) for r, c in ((1, 1), (2, 3)))
    assert large.width > 2.5 * small.width
    assert large.height > 1.8 * small.height


@pytest.mark.parametrize("only", ["all", "wrong", "right"])
def test_the_same_query_gives_the_same_picture_under_the_same_etag(client, only):
    first, second = (gallery(client, only=only, seed=4) for _ in range(2))
    assert first.content == second.content
    assert first.headers["etag"] == second.headers["etag"]


def test_another_query_gives_another_picture_and_etag(client):
    answers = [gallery(client, rows=2, **query) for query in ({}, {"seed": 1}, {"only": "wrong"}, {"label": "Bag"})]
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


labels = st.lists(st.integers(0, 9), min_size=1, max_size=60)


@given(labels, st.integers(0, 2**63 - 1), st.sampled_from(["wrong", "right"]), st.sampled_from([None, *CLASSES]))
def test_a_selection_keeps_to_what_it_asks_for(true, seed, only, label):
    true = np.array(true, np.uint8)
    right = np.random.default_rng(0).random(len(true)) < 0.5
    chosen = Selection(rows=2, columns=3, seed=seed, only=only, label=label).choose(true, right)
    eligible = [i for i, t in enumerate(true) if right[i] == (only == "right") and label in (None, CLASSES[t])]
    assert len(chosen) == min(6, len(eligible))
    assert len(set(chosen.tolist())) == len(chosen)
    assert set(chosen.tolist()) <= set(eligible)
