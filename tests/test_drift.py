"""Drift: the index of the real network's predictions against its validation histograms, and the service's answer."""

import shutil
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from prometheus_client.parser import text_string_to_metric_families

from app.inference.drift import MIN_PREDICTIONS, WINDOW, RecentPredictions, measure_drift
from app.metrics import collect
from app.settings import Settings
from model import CLASSES, WEIGHTS, Picture, classify
from model.artifact import read_card, save_card
from model.drift import DRIFTED, STABLE, Histogram, stability_index
from model.engines import run_batches, softmax
from model.preprocessing import IDENTITY
from tests.browser import needs_browser, watched
from tests.data_sets import real_data_set
from tests.in_process import call
from tests.pictures import grey_png, random_image, trousers
from tests.problems import assert_problem
from tests.servers import classify_images, serve, service, wait_until

COUNT, FEW = 400, 4


def test_the_index_is_the_symmetric_divergence():
    assert stability_index([10, 20, 30], [100, 200, 300]) == pytest.approx(0, abs=0.01)
    p, q = np.array([0.5, 0.5]), np.array([0.8, 0.2])
    divergence = (p * np.log(p / q)).sum() + (q * np.log(q / p)).sum()
    assert stability_index(p * 1e6, q * 1e6) == pytest.approx(divergence, rel=1e-4)
    assert np.isfinite(stability_index([100, 0], [0, 100]))


def test_a_histogram_counts_every_value_once():
    histogram = Histogram.of([-1e9, 0, 0.5, 1, 1e9], [0.0, 1.0])
    assert histogram.counts == (1, 2, 2)
    with pytest.raises(ValueError, match="edges must ascend"):
        Histogram(edges=(1.0, 0.0), counts=(1, 2, 3))


@pytest.mark.parametrize(("name", "split"), [("fashionnet", "validation"), ("fashionnet-photo", "photos")])
def test_a_shipped_card_counts_every_measured_image(name, split):
    card = read_card(WEIGHTS, name)
    assert {sum(histogram.counts) for histogram in card.histograms.values()} == {card.metrics[split].count}
    assert len(card.histograms["ood_score"].counts) == len(card.histograms["confidence"].counts) == 10


@pytest.fixture(scope="module")
def test_split():
    split = real_data_set().load("test")
    return split.take(np.random.default_rng(0).permutation(len(split.labels)))


def digit(seed: int) -> Image.Image:
    """A light digit on black."""
    rng, canvas = np.random.default_rng(seed), Image.new("L", (28, 28))
    font = ImageFont.load_default(float(rng.integers(18, 27)))
    ImageDraw.Draw(canvas).text((float(rng.integers(4, 10)), 0.0), str(seed % 10), 255, font)
    return canvas


def pictures(split, change: Callable[[Image.Image], Image.Image], count: int = COUNT) -> list[Image.Image]:
    return [change(Image.fromarray(image)) for image in split.images[:count]]


def of_one_class(split) -> list[Image.Image]:
    return [Image.fromarray(image) for image in split.images[split.labels == CLASSES.index("Shirt")][:COUNT]]


SHIFTS = {
    "inverted": lambda split: pictures(split, lambda image: image.point(lambda value: 255 - value)),
    "blurred": lambda split: pictures(split, lambda image: image.filter(ImageFilter.GaussianBlur(2))),
    "digits": lambda _: [digit(seed) for seed in range(COUNT)],
    "one class": of_one_class,
}


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_drifts(engine, artifact, test_split, shift):
    """Of the network's input: the service turns dark articles on white into what the network knows."""
    images = np.stack([np.asarray(image) for image in SHIFTS[shift](test_split)])
    indices = indices_of(engine, artifact.card, images)
    assert max(indices.values()) > DRIFTED
    assert (indices["class_id" if shift == "one class" else "ood_score"]) > DRIFTED


def test_shuffled_test_images_are_stable(engine, artifact, test_split):
    for start in range(0, 5 * COUNT, COUNT):
        indices = indices_of(engine, artifact.card, test_split.images[start : start + COUNT])
        assert max(indices.values()) < STABLE


def indices_of(engine, card, images):
    outputs = run_batches(engine, images)
    probabilities = softmax(outputs.logits / card.temperature)
    values = {
        "ood_score": outputs.ood_scores,
        "confidence": probabilities.max(1),
        "class_id": probabilities.argmax(1),
    }
    return {
        feature: stability_index(expected.counts, Histogram.of(values[feature], expected.edges).counts)
        for feature, expected in card.histograms.items()
    }


def drift_after(client: httpx.Client, count: int) -> dict:
    """The drift once every worker has told its predictions, ``count`` in all."""

    def found() -> dict:
        return client.get("/models/fashionnet/drift").json()

    wait_until(lambda: found()["predictions"] == count)
    return found()


def exported_indices(client: httpx.Client) -> dict[str, float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    samples = (sample for family in families for sample in family.samples if sample.name == "fashionnet_drift_psi")
    return {sample.labels["feature"]: sample.value for sample in samples}


def test_two_workers_tell_the_drift_of_the_service(test_split):
    with service(workers=2) as (_, client):
        client.post("/predict?model=fashionnet", files={"file": grey_png()})
        for count in (1, 2):
            tensor = {"name": "images", "datatype": "UINT8", "shape": [count, 28, 28], "data": [0] * count * 784}
            assert client.post("/v2/models/fashionnet/infer", json={"inputs": [tensor]}).status_code == 200
        few = drift_after(client, FEW)
        assert (few["status"], few["predictions_needed"]) == ("unknown", MIN_PREDICTIONS)
        assert (few["features"]["class_id"]["status"], few["features"]["class_id"]["psi"]) == ("unknown", None)
        assert not exported_indices(client)
        classify_images(client, pictures(test_split, lambda image: image))
        usual = drift_after(client, FEW + COUNT)
        assert {usual["status"], *(found["status"] for found in usual["features"].values())} == {"stable"}
        classify_images(client, SHIFTS["blurred"](test_split))
        unusual = drift_after(client, FEW + 2 * COUNT)
        assert (unusual["status"], unusual["features"]["ood_score"]["status"]) == ("drifted", "drifted")
        indices = {feature: found["psi"] for feature, found in unusual["features"].items()}
        assert exported_indices(client) == pytest.approx(indices)


def test_the_oldest_predictions_are_forgotten_and_outputs_count_like_predictions(artifact, engine):
    card = artifact.card.model_copy(update={"name": "forgets"})
    recent, picture = RecentPredictions(card), Picture(random_image(), IDENTITY)
    (output,) = engine.run(picture.image[None]).image_outputs()
    prediction = classify(output, card, picture)
    found = []
    for add, item in ((recent.add, prediction), (recent.add_output, output)):
        for _ in range(WINDOW + MIN_PREDICTIONS):
            add(item)
        recent.set_gauges()
        found.append(measure_drift(card, collect()))
    assert found[0].predictions == WINDOW
    assert found[0] == found[1]


def test_the_figures_of_a_photo_model_need_its_held_out_photos():
    done = call("export", "fashionnet-photo", "--figures")
    assert done.returncode == 2
    assert "held-out.npz of a run by --held-out" in done.stderr


@pytest.fixture(scope="module")
def client_without_histograms(tmp_path_factory, artifact):
    folder = tmp_path_factory.mktemp("weights")
    for file in WEIGHTS.glob("fashionnet.*"):
        shutil.copy(file, folder)
    save_card(folder, artifact.card.model_copy(update={"histograms": {}}))
    with serve(Settings(model_dir=folder, data_dir=folder)) as client:
        yield client


def test_a_card_without_histograms_has_no_drift(client_without_histograms):
    client = client_without_histograms
    assert "--figures" in assert_problem(client.get("/models/fashionnet/drift"), 404, "drift-unavailable")
    assert_problem(client.get("/models/nonsense/drift"), 404, "unknown-model")
    assert client.post("/predict", files={"file": grey_png()}).status_code == 200
    assert not exported_indices(client)


@needs_browser
def test_the_page_shows_the_drift_of_every_model(driver, tmp_path):
    with serve(Settings(data_dir=tmp_path)) as client, watched(driver, client) as page:
        text = page.text_of("models", "#drift")
        assert "Predictions so far: 0. The population stability index needs at least 300." in text
        assert not page.all(".histogram")
        classify_images(client, [trousers(size=28)] * MIN_PREDICTIONS)
        drift_after(client, MIN_PREDICTIONS)
        page.open("models")
        page.awaited(".histogram")
        assert page.one("#drift").text.startswith("Drifted. The last 300 predictions, compared with")
        words = [row.split("\t")[-1] for row in page.texts("#models .wide:first-child tbody tr")]
        assert words == ["Drifted", "Unknown", "Unknown"]
        rows = page.texts(".side > div:last-child .histogram tbody tr")
        assert [row.split("\t")[0] for row in rows] == list(CLASSES)
        assert rows[1].split("\t")[-2:] == ["100.0%", "9.9%"]
        assert [text.rsplit(maxsplit=1)[-1] for text in page.texts(".histograms p")] == ["drifted."] * 3
        live, validation = page.all(".side > div:last-child tr:nth-child(2) rect")
        assert live.rect["width"] > 9 * validation.rect["width"] > 0


@needs_browser
def test_the_page_says_that_a_card_without_histograms_has_no_drift(driver, client_without_histograms):
    with watched(driver, client_without_histograms) as page:
        assert "Unknown. The card of fashionnet has no histograms" in page.text_of("models", "#drift")
        assert page.errors() == []
