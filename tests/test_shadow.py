"""The shadow model classifies a sample in the background, and nobody waits for it."""

from collections import Counter

import httpx
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.inference.shadow import QUEUE
from app.main import create_app
from app.settings import Settings
from model import CLASSES, WEIGHTS, create_engine, load_artifact
from tests.held_engines import hold_engines
from tests.pictures import grey_png, random_image
from tests.servers import serve, wait_until

NOISE = np.stack([random_image(seed) for seed in range(100)])


@pytest.fixture(scope="module")
def classes():
    """The classes of pictures of noise, by fashionnet and by fashionnet-deep."""
    engines = (create_engine("auto", load_artifact(WEIGHTS, name)) for name in ("fashionnet", "fashionnet-deep"))
    return [engine.run(NOISE).logits.argmax(1) for engine in engines]


def outcomes(client: httpx.Client) -> Counter:
    """How many pictures there are by label and outcome."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = [
        one for family in families for one in family.samples if one.name == "fashionnet_shadow_predictions_total"
    ]
    assert {(one.labels["model"], one.labels["shadow"]) for one in samples} <= {("fashionnet", "fashionnet-deep")}
    return Counter({(one.labels["label"], one.labels["outcome"]): int(one.value) for one in samples})


def test_a_shadow_model_that_hangs_delays_nobody_and_its_outcomes_are_counted(monkeypatch, classes):
    agreed, differed = (int(np.flatnonzero(found)[0]) for found in (classes[0] == classes[1], classes[0] != classes[1]))
    engines = hold_engines(monkeypatch)
    with serve(Settings(shadow_model="fashionnet-deep", shadow_share=0.5)) as client:
        before, deep = outcomes(client), engines[1]
        deep.hold.set()
        for seed in 60 * [agreed, differed]:
            found = client.post("/predict?model=fashionnet", files={"file": grey_png(seed)})
            assert found.status_code == 200
        assert len(deep.images) == 1, "the others wait for it, or are dropped"
        deep.gate.set()
        wait_until(lambda: len(deep.images) == QUEUE)
        wait_until(lambda: _classified(outcomes(client) - before) == QUEUE)
        new = outcomes(client) - before
    labels = {"agrees": CLASSES[classes[0][agreed]], "differs": CLASSES[classes[0][differed]]}
    assert all(label == labels[outcome] for label, outcome in new if outcome != "dropped")
    assert 35 < new.total() < 85, "half of 120 are in the sample"


def test_a_shadow_model_that_fails_is_counted_and_told(monkeypatch, caplog):
    engines = hold_engines(monkeypatch)
    with serve(Settings(shadow_model="fashionnet-deep", shadow_share=1)) as client:
        before, deep = outcomes(client), engines[1]
        monkeypatch.setattr(deep, "run", lambda _: 1 / 0)
        for _ in range(3):
            assert client.post("/predict?model=fashionnet", files={"file": grey_png()}).status_code == 200
        wait_until(lambda: (outcomes(client) - before).total() == 3)
        assert {outcome for _, outcome in outcomes(client) - before} == {"failed"}
    assert caplog.text.count("The shadow model cannot classify a picture.") == 1


def _classified(found: Counter) -> int:
    return sum(count for (_, outcome), count in found.items() if outcome != "dropped")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("nonsense", "has no nonsense; it has fashionnet,"), ("fashionnet-photo", "no other model takes the input")],
)
def test_a_shadow_model_with_nothing_to_compare_is_refused(name, reason):
    with pytest.raises(SystemExit, match=reason):
        create_app(Settings(shadow_model=name))
