import asyncio
import re
from urllib.parse import urlencode

import numpy as np
import pytest

from app import VERSION
from app.inference.predictor import Inferred, Predictor, Predictors
from app.problems import MEDIA_TYPE, OTHER_ERRORS, ServiceError
from app.settings import Settings
from model import ModelCard
from model.engines import ImageOutput, choose_engine
from model.evaluation import Metrics
from tests.pictures import grey_png
from tests.problems import assert_problem
from tests.servers import serve, wait_until


def test_a_live_process_says_so(client):
    assert client.get("/health/live").json() == {"status": "live"}


def test_a_tested_process_is_ready(client):
    assert client.get("/health/ready").json() == {"status": "ready"}


def test_a_process_whose_self_test_has_not_finished_is_503_with_the_reason(small_data, monkeypatch):
    finish = asyncio.Event()

    async def slow(_self):
        await finish.wait()

    monkeypatch.setattr(Predictors, "self_test", slow)
    with serve(Settings(data_dir=small_data.root), ready=False) as client:
        assert "self-test has not finished" in assert_problem(client.get("/health/ready"), 503, "not-ready")
        assert client.get("/health/live").status_code == 200
        finish.set()


@pytest.mark.parametrize("answer", [np.full(10, np.nan), np.zeros(3)])
def test_a_process_whose_engine_answers_nonsense_never_becomes_ready(small_data, monkeypatch, caplog, answer):
    async def nonsense(_self, _image):
        return Inferred(None, ImageOutput(answer, np.float32(0)))

    monkeypatch.setattr(Predictor, "submit", nonsense)
    with serve(Settings(data_dir=small_data.root), ready=False) as client:
        wait_until(lambda: "self-test failed" in caplog.text)
        assert "self-test inference failed" in assert_problem(client.get("/health/ready"), 503, "not-ready")


def test_the_models_are_listed_with_their_figures(client, artifact, engine):
    model, deep, photo = client.get("/models").json()["models"]
    assert (deep["name"], deep["architecture"], deep["default"]) == ("fashionnet-deep", "fashionnet-deep", False)
    assert (model["name"], model["version"], model["default"]) == ("fashionnet", artifact.card.version, True)
    assert [each["default_for_photos"] for each in (model, deep, photo)] == [False, False, True]
    assert model["engine"] == engine.name
    card = artifact.card.measured_with(engine.name)["test"]
    assert model["metrics"]["test"] == {key: getattr(card, key) for key in Metrics.model_fields}, "the short figures"


def test_a_models_card_is_the_artefacts(client, artifact):
    answer = client.get("/models/fashionnet").json()
    assert ModelCard(**answer["card"]) == artifact.card
    assert len(answer["card"]["metrics"]["test"]["confusion_matrix"]) == 10
    assert answer["engine"] == choose_engine("auto", artifact.card)


def test_an_unknown_model_is_404(client):
    assert_problem(client.get("/models/nonsense"), 404, "unknown-model")


def test_an_unknown_path_is_a_problem(client):
    assert "/docs" in assert_problem(client.get("/nonsense"), 404, "not-found")


def test_a_wrong_method_is_a_problem(client):
    response = client.get("/predict")
    assert assert_problem(response, 405, "method-not-allowed") == "This path does not take that method: use POST."
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/", "/docs", "/gallery", "/metrics", "/health/live", "/models", "/openapi.json"])
def test_head_is_allowed_where_get_is(client, path):
    assert client.head(path).status_code == 200
    response = client.delete(path)
    assert_problem(response, 405, "method-not-allowed")
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_the_root_is_the_page_which_leads_to_the_documentation(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert 'href="docs"' in page.text
    assert client.get("/docs").status_code == 200


def test_swagger_needs_no_other_host(client):
    page = client.get("/docs").text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(assets) >= 3
    for asset in assets:
        assert asset.startswith("/"), asset
        assert len(client.get(asset).content) > 100
    assert "://" not in re.sub(r"<!--.*?-->", "", page)


@pytest.fixture(scope="module")
def schema(client):
    return client.get("/openapi.json").json()


def operations(schema):
    return {(method, path): op for path, item in schema["paths"].items() for method, op in item.items()}


def test_every_route_is_described_and_every_success_typed(schema):
    assert schema["info"]["version"] == VERSION
    for operation in operations(schema).values():
        assert operation["description"]
        for media_type, content in operation["responses"]["200"]["content"].items():
            assert content.get("schema") or media_type.startswith("image/")
        assert operation["responses"]["200"]["description"] != "Successful Response", "FastAPI's default"


@pytest.mark.parametrize(
    ("method", "path", "status", "slugs"),
    [
        ("get", "/evaluate/confusion.png", "503", {"data-unavailable", "decoder-unavailable"}),
        ("post", "/predict/batch", "503", {"decoder-unavailable"}),
    ],
)
def test_every_problem_of_a_status_is_declared(schema, method, path, status, slugs):
    response = operations(schema)[method, path]["responses"][status]
    assert set(response["content"][MEDIA_TYPE]["examples"]) == slugs


def test_every_parameter_is_described_and_in_the_path_or_the_query(schema):
    for (method, path), operation in operations(schema).items():
        for parameter in operation.get("parameters", ()):
            assert parameter["in"] in ("path", "query"), (method, path, parameter["name"])
            assert parameter.get("description"), (method, path, parameter["name"])


def test_every_operation_has_a_summary_of_its_own_and_a_described_tag(schema):
    summaries = [operation["summary"] for operation in operations(schema).values()]
    assert len(set(summaries)) == len(summaries)
    used = {tag for operation in operations(schema).values() for tag in operation["tags"]}
    assert used == {tag["name"] for tag in schema["tags"] if tag["description"]}


def test_the_served_models_are_a_menu(schema, client):
    served = [model["name"] for model in client.get("/models").json()["models"]]
    for (_, path), operation in operations(schema).items():
        menus = [p["schema"].get("enum") for p in operation.get("parameters", ()) if p["name"] in ("model", "name")]
        assert menus == [served] * len(menus), path
    assert len(operations(schema)["post", "/predict"]["parameters"]) == 2, "model and image"


@pytest.mark.parametrize("default", ["fashionnet-deep", None])
def test_every_operation_works_with_what_swagger_fills_in(small_data, default):
    with serve(Settings(data_dir=small_data.root, default_model=default)) as client:
        schema = client.get("/openapi.json").json()
        for (method, path), operation in operations(schema).items():
            response = client.request(method, filled(path, operation.get("parameters", ())), **body(operation))
            assert response.status_code == 200, (path, response.text)
            declared = operation["responses"]["200"]["content"]
            assert response.headers["content-type"].split(";")[0] in declared


def filled(path: str, parameters) -> str:
    """The address that Swagger asks: examples in the path, defaults in the query."""
    values = {p["name"]: p["example"] for p in parameters if p["in"] == "path"}
    query = {p["name"]: p["schema"]["default"] for p in parameters if "default" in p["schema"]}
    return f"{path.format(**values)}?{urlencode(query)}"


def body(operation) -> dict:
    """The example of the body; a picture where the reader chooses a file."""
    content = operation.get("requestBody", {}).get("content", {})
    if "application/json" in content:
        return {"json": content["application/json"]["example"]}
    form = content.get("multipart/form-data", {"schema": {"properties": {}}})
    return {"files": {name: grey_png() for name in form["schema"]["properties"]}}


def test_every_failure_is_declared_as_a_problem_with_an_example(schema):
    declared = {}
    for operation in operations(schema).values():
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                (media,) = response["content"]
                assert media == MEDIA_TYPE
                for slug, example in response["content"][media]["examples"].items():
                    assert example["value"]["status"] == int(status)
                    declared[slug] = int(status)
    others = ("app.server", "app.keys")  # below the application, and off by default
    routed = (error for error in ServiceError.__subclasses__() if not error.__module__.startswith(others))
    types = {error.problem_type for error in routed} | set(OTHER_ERRORS.values())
    assert declared == {each.slug: each.status for each in types}


def test_every_reference_of_the_schema_leads_somewhere(schema):
    references = re.findall(r"'\$ref': '([^']*)'", str(schema))
    assert set(references) <= {f"#/components/schemas/{name}" for name in schema["components"]["schemas"]}
    assert references


def test_the_upload_is_described_for_swagger(schema):
    content = operations(schema)["post", "/predict"]["requestBody"]["content"]
    assert content["multipart/form-data"]["schema"]["properties"]["file"]["format"] == "binary"
    assert "image/png" in content
    batch = operations(schema)["post", "/predict/batch"]["requestBody"]["content"]["multipart/form-data"]
    assert batch["schema"]["properties"]["files"]["type"] == "array"


def test_the_prediction_of_the_schema_is_the_prediction_of_the_service(client, schema):
    answer = client.post("/predict", files={"file": grey_png()}).json()
    described = schema["components"]["schemas"]["Prediction"]
    assert set(answer) == set(described["properties"]) - {"image"} == set(described["example"])


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/predict/"), ("POST", "/predict/batch/"), ("POST", "/explain/"), ("GET", "/evaluate/"),
     ("GET", "/docs/"), ("GET", "/page"), ("POST", "/v2/models/fashionnet/infer/")],
)  # fmt: skip
def test_a_slash_at_the_end_is_no_redirect(client, method, path):
    """A redirect would name the scheme and host that the proxy in front hides, and lose its prefix."""
    response = client.request(method, path, headers={"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/fashion"})
    assert response.status_code == 404
    assert ("without the slash" in response.json()["detail"]) == path.endswith("/")
