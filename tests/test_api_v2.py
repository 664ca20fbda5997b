"""The Open Inference Protocol, driven by Triton's own client, and what is wrong by hand."""

import asyncio
import base64
import gzip
import json
import struct
import time
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tritonclient.utils import InferenceServerException

from app import VERSION
from app.problems import InvalidInference, TooManyFiles
from app.routes.v2_codec import parse_request
from model import CLASSES
from model.preprocessing.fit import squeeze
from tests.pictures import encode, grey_png, random_image, scene, trousers
from tests.problems import assert_problem_body

INFER = "/v2/models/fashionnet/infer"
IMAGES = np.stack([random_image(seed) for seed in range(5)])


@pytest.fixture(scope="module")
def address(client) -> str:
    return f"{client.base_url.host}:{client.base_url.port}"


@pytest.fixture
def inference(address):
    with triton.InferenceServerClient(address, concurrency=2) as connection:
        yield connection


@pytest.fixture(scope="module")
def expected(client):
    """What /predict says of the same images."""
    answers = [client.post("/predict", files={"file": grey_png(seed)}).json() for seed in range(5)]
    return [answer["label"] for answer in answers], [list(answer["probabilities"].values()) for answer in answers]


def tensor(values: np.ndarray, datatype: str, binary: bool = True) -> triton.InferInput:
    given_ = triton.InferInput("images", list(values.shape), datatype)
    given_.set_data_from_numpy(values, binary_data=binary)
    return given_


def assert_same_as_predict(result, expected) -> None:
    labels, probabilities = expected
    assert [label.decode() if isinstance(label, bytes) else label for label in result.as_numpy("label")] == labels
    np.testing.assert_allclose(result.as_numpy("probabilities"), probabilities, atol=1e-6)
    np.testing.assert_allclose(np.exp(result.as_numpy("log_probs")), probabilities, atol=1e-6)
    assert result.as_numpy("logits").shape == (5, 10)


def test_health_and_metadata(inference, artifact):
    assert inference.is_server_live()
    assert inference.is_server_ready()
    assert inference.is_model_ready("fashionnet")
    assert inference.is_model_ready("fashionnet", artifact.card.version)
    assert not inference.is_model_ready("nonsense")
    assert not inference.is_model_ready("fashionnet", "1")
    server = inference.get_server_metadata()
    extensions = ["binary_tensor_data", "classification", "model_configuration", "statistics"]
    assert server == {"name": "fashionnet", "version": VERSION, "extensions": extensions}
    for version in ("", artifact.card.version):
        metadata = inference.get_model_metadata("fashionnet", version)
        assert metadata["versions"] == [artifact.card.version]
        assert metadata["platform"] == "onnx_onnxv1"
        assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 28, 28]}]
        assert [output["name"] for output in metadata["outputs"]] == ["log_probs", "logits", "probabilities", "label"]


def test_the_repository_is_listed_and_no_model_is_loaded_over_http(inference, client, artifact):
    index = {model["name"]: model for model in inference.get_model_repository_index()}
    assert set(index) == {model["name"] for model in client.get("/models").json()["models"]}
    assert index["fashionnet"] == {
        "name": "fashionnet", "version": artifact.card.version, "state": "READY", "reason": "",
    }  # fmt: skip
    for act in (inference.load_model, inference.unload_model):
        with pytest.raises(InferenceServerException, match="404"):
            act("fashionnet")


def test_the_configuration_describes_the_tensors_of_one_image(inference, artifact):
    for version in ("", artifact.card.version):
        config = inference.get_model_config("fashionnet", version)
        assert (config["name"], config["backend"]) == ("fashionnet", "onnxruntime")
        assert config["max_batch_size"] == 8
        assert config["input"] == [{"name": "images", "data_type": "TYPE_UINT8", "dims": [28, 28]}]
        assert {"name": "logits", "data_type": "TYPE_FP32", "dims": [10]} in config["output"]


def test_the_statistics_count_what_a_model_has_done(inference, artifact):
    def statistics(**which):
        found = inference.get_inference_statistics(**which)["model_stats"]
        return next(model for model in found if model["name"] == "fashionnet-deep")

    before = statistics()
    for images in (IMAGES[:1], IMAGES):
        inference.infer("fashionnet-deep", [tensor(images, "UINT8")])
    with pytest.raises(InferenceServerException):
        inference.infer("fashionnet-deep", [tensor(IMAGES[:, 1:], "UINT8")])
    after = statistics(model_name="fashionnet-deep", model_version=before["version"])
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["execution_count"] - before["execution_count"] == 2
    for outcome, count in {"success": 2, "fail": 1}.items():
        was, is_ = before["inference_stats"][outcome], after["inference_stats"][outcome]
        assert is_["count"] - was["count"] == count
        assert 0 < is_["ns"] - was["ns"] < 60e9
    with pytest.raises(InferenceServerException, match="404"):
        inference.get_inference_statistics("nonsense")


def test_the_metadata_have_the_shape_that_the_card_declares(inference):
    shapes = {"fashionnet": [-1, 28, 28], "fashionnet-deep": [-1, 28, 28], "fashionnet-photo": [-1, 224, 224, 3]}
    for name, shape in shapes.items():
        (images,) = inference.get_model_metadata(name)["inputs"]
        assert images == {"name": "images", "datatype": "UINT8", "shape": shape}


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("datatype", ["UINT8", "FP32", "BYTES"])
def test_the_unmodified_client_gets_what_predict_answers(inference, expected, datatype, binary, compression):
    if datatype == "BYTES":
        contents = [grey_png(seed) if binary else base64.b64encode(grey_png(seed)) for seed in range(5)]
        values = np.array(contents, object)
    else:
        values = IMAGES.astype({"UINT8": np.uint8, "FP32": np.float32}[datatype])
    result = inference.infer(
        "fashionnet",
        [tensor(values, datatype, binary)],
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
        request_id="mine",
    )
    assert_same_as_predict(result, expected)
    assert result.get_response()["id"] == "mine"
    assert result.get_response()["model_name"] == "fashionnet"


def test_a_channel_dimension_is_taken(inference, expected, artifact):
    given_ = [tensor(IMAGES[:, None], "UINT8")]
    assert_same_as_predict(inference.infer("fashionnet", given_, artifact.card.version), expected)


def test_a_photo_gets_what_predict_answers(client, inference):
    content = encode(scene("wood")[0], "JPEG")
    result = inference.infer("fashionnet", [tensor(np.array([content, grey_png()], object), "BYTES")])
    answer = client.post("/predict", files={"file": content}, params={"model": "fashionnet"}).json()
    np.testing.assert_allclose(result.as_numpy("probabilities")[0], list(answer["probabilities"].values()), atol=1e-6)


PHOTO = scene("wood")[0]


@pytest.fixture(scope="module")
def photo_expected(client):
    """What /predict says of a photo."""
    return list(client.post("/predict", files={"file": encode(PHOTO)}).json()["probabilities"].values())


@pytest.mark.parametrize(("datatype", "type_", "count"), [("UINT8", np.uint8, 3), ("FP32", np.float32, 1)])
def test_the_photo_model_takes_colour_tensors(inference, photo_expected, datatype, type_, count):
    images = np.repeat(squeeze(PHOTO, 224)[None], count, axis=0).astype(type_)
    found = inference.infer("fashionnet-photo", [tensor(images, datatype)]).as_numpy("probabilities")
    assert found.shape == (count, 10)
    np.testing.assert_allclose(found, [photo_expected] * count, atol=1e-3)


@pytest.mark.parametrize("contents", [[encode(PHOTO)], [encode(PHOTO), grey_png()]], ids=["one", "two"])
def test_the_photo_model_takes_encoded_pictures(inference, photo_expected, contents):
    found = inference.infer("fashionnet-photo", [tensor(np.array(contents, object), "BYTES")]).as_numpy("probabilities")
    assert found.shape == (len(contents), 10)
    np.testing.assert_allclose(found[0], photo_expected, atol=1e-3)


@pytest.mark.parametrize("content", [squeeze(PHOTO, 224).tobytes(), encode(PHOTO)], ids=["tensor", "picture"])
def test_a_raw_request_for_the_photo_model_is_one_image_alone(client, photo_expected, content):
    path = "/v2/models/fashionnet-photo/infer"
    response = client.post(path, content=content, headers={"Inference-Header-Content-Length": "0"})
    assert response.status_code == 200, response.text
    assert CLASSES[int(np.argmax(photo_expected))].encode() in response.content


@pytest.mark.parametrize("shape", [[1, 28, 28], [1, 3, 224, 224], [1, 1, 224, 224, 3]])
def test_the_photo_model_refuses_other_shapes_by_the_one_it_takes(client, shape):
    image = {"name": "images", "shape": shape, "datatype": "UINT8", "data": [0] * int(np.prod(shape))}
    response = client.post("/v2/models/fashionnet-photo/infer", json={"inputs": [image]})
    detail = assert_error(response, 400, "invalid-inference")
    assert "is not [-1, 224, 224, 3]" in detail


def test_no_image_gives_the_photo_model_no_answer(client):
    image = {"name": "images", "shape": [0, 224, 224, 3], "datatype": "UINT8", "data": []}
    response = client.post("/v2/models/fashionnet-photo/infer", json={"inputs": [image]})
    assert response.json()["outputs"][0]["shape"] == [0, 10]


@pytest.mark.parametrize("binary", [True, False])
def test_only_the_asked_outputs_are_sent_in_the_asked_form(inference, binary):
    wanted = [triton.InferRequestedOutput("label", binary_data=not binary)]
    wanted += [triton.InferRequestedOutput("logits", binary_data=binary)]
    result = inference.infer("fashionnet", [tensor(IMAGES, "UINT8")], outputs=wanted)
    outputs = result.get_response()["outputs"]
    assert [output["name"] for output in outputs] == ["label", "logits"]
    assert ["binary_data_size" in output.get("parameters", {}) for output in outputs] == [not binary, binary]


@pytest.mark.parametrize("binary", [True, False])
def test_classification_gives_value_index_and_label(inference, expected, binary):
    wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=3)]
    cells = inference.infer("fashionnet", [tensor(IMAGES, "UINT8")], outputs=wanted).as_numpy("probabilities")
    assert cells.shape == (5, 3)
    for row, probabilities in zip(cells, expected[1], strict=True):
        for cell, index in zip(row, np.argsort(probabilities)[::-1][:3], strict=True):
            text = cell.decode() if isinstance(cell, bytes) else cell
            value, number, label = text.split(":")
            assert (int(number), label) == (index, CLASSES[index])
            assert float(value) == pytest.approx(probabilities[index], abs=1e-5)


def test_the_asynchronous_client_works_too(address, expected):
    async def use():
        async with triton_aio.InferenceServerClient(address) as connection:
            assert await connection.is_server_ready()
            calls = [connection.infer("fashionnet", [tensor(IMAGES, "UINT8")]) for _ in range(8)]
            return await asyncio.gather(*calls)

    for result in asyncio.run(use()):
        assert_same_as_predict(result, expected)


def test_the_client_understands_our_errors(inference):
    with pytest.raises(InferenceServerException, match="no model 'nonsense'"):
        inference.infer("nonsense", [tensor(IMAGES, "UINT8")])
    with pytest.raises(InferenceServerException, match="neither"):
        inference.infer("fashionnet", [tensor(IMAGES[:, :20], "UINT8")])


@pytest.mark.parametrize("content", [random_image(1).tobytes(), grey_png(1)], ids=["tensor", "picture"])
def test_a_raw_request_is_one_image_alone(client, expected, content):
    response = client.post(INFER, content=content, headers={"Inference-Header-Content-Length": "0"})
    head = json.loads(response.content[: int(response.headers["inference-header-content-length"])])
    assert head["outputs"][3]["name"] == "label"
    assert expected[0][1].encode() in response.content


def test_a_png_may_have_as_many_bytes_as_the_tensor_has_pixels(client):
    """Its content decides, not its size."""
    png = encode(Image.fromarray(np.arange(784, dtype=np.uint8).reshape(28, 28)))
    chunk = b"tEXt" + b"a" * (28 * 28 - len(png) - 12)
    text = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    padded = png[:33] + text + png[33:]
    assert len(padded) == 28 * 28
    headers = {"Inference-Header-Content-Length": "0"}
    first, second = (client.post(INFER, content=content, headers=headers).content for content in (png, padded))
    assert first == second


def test_more_images_than_the_engine_takes_at_once(inference):
    shape = inference.get_model_metadata("fashionnet-photo")["inputs"][0]["shape"][1:]
    images = np.random.default_rng(1).integers(0, 256, (4, *shape), np.uint8)
    images[3] = images[0]  # in another call of the engine
    logits = inference.infer("fashionnet-photo", [tensor(images, "UINT8")]).as_numpy("logits")
    assert np.allclose(logits[3], logits[0], atol=1e-4)
    assert not np.allclose(logits[1], logits[0], atol=1e-4)


def test_no_image_gives_no_answer(client):
    response = client.post(INFER, json=body(shape=[0, 28, 28], data=[]))
    assert response.json()["outputs"][0]["shape"] == [0, 10]


def body(outputs=None, **changes) -> dict:
    image = {"name": "images", "shape": [1, 28, 28], "datatype": "UINT8", "data": IMAGES[0].tolist()}
    return {"inputs": [image | changes]} | ({} if outputs is None else {"outputs": outputs})


def test_nested_and_flat_data_are_alike(client):
    nested = client.post(INFER, json=body(data=[IMAGES[0].tolist()]))
    assert nested.json() == client.post(INFER, json=body(data=IMAGES[0].ravel().tolist())).json()


def nested(value: Any, depth: int) -> Any:
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("depth", [2, 31, 32, 33, 63, 64, 65, 100, 900])
@pytest.mark.parametrize("values", [[], [1.0], [1, 2]])
def test_data_may_be_nested_deeply(depth, values):
    """NumPy has arrays of 64 dimensions, and iterators over 32."""
    tensor = {"name": "a", "shape": [1], "datatype": "UINT8", "data": nested(values, depth)}
    try:
        _, tensors = parse_request(json.dumps({"inputs": [tensor]}).encode(), None, 256)
    except InvalidInference:
        assert depth > 31 or values != [1.0]
    else:
        assert tensors["a"].tolist() == values


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3), st.lists, max_leaves=12
)
DATATYPES = st.sampled_from(["BOOL", "INT64", "UINT8", "FP16", "FP64", "BYTES"])


@settings(max_examples=200, deadline=None)
@given(st.lists(JSON, max_size=12), st.lists(st.integers(), max_size=9), DATATYPES)
def test_any_data_are_a_tensor_or_invalid(data, shape, datatype):
    text = json.dumps({"inputs": [{"name": "a", "shape": shape, "datatype": datatype, "data": data}]})
    try:
        _, tensors = parse_request(text.encode(), None, 256)
    except (InvalidInference, TooManyFiles):
        return
    assert list(tensors["a"].shape) == shape


def assert_error(response, status: int, slug: str) -> str:
    answer = response.json()
    assert response.status_code == status, answer
    assert answer.pop("error") == answer["detail"]
    return assert_problem_body(answer, status, slug)


BAD = {
    "no json": ({"content": b"nonsense"}, "not an inference request"),
    "no inputs": ({"json": {}}, "inputs: the field is missing"),
    "other input": ({"json": body(name="pixels")}, "The one input is 'images'"),
    "two inputs of one name": ({"json": {"inputs": body()["inputs"] * 2}}, "Two inputs have the same name"),
    "no data": ({"json": body(data=None)}, "data or binary_data_size is missing"),
    "too few": ({"json": body(data=[1, 2])}, "2 values are not a tensor"),
    "negative shape": ({"json": body(shape=[-1, 28, 28])}, "negative dimension"),
    "ragged": ({"json": body(data=[[1], [2, 3]])}, "the data are not UINT8"),
    "out of range": ({"json": body(data=[300] * 784)}, "whole numbers that fit into UINT8"),
    "fractions": ({"json": body(data=[0.2] * 784)}, "whole numbers that fit into UINT8"),
    "very large": ({"json": body(data=[1e300] * 784)}, "whole numbers that fit into UINT8"),
    "numbers in words": ({"json": body(data=["12"] * 784)}, "the data are not UINT8"),
    "numbers in words, FP32": ({"json": body(datatype="FP32", data=["12"] * 784)}, "the data are not FP32"),
    "nothing, FP32": ({"json": body(datatype="FP32", data=[None] * 784)}, "the data are not FP32"),
    "too large for any integer": ({"json": body(data=[2**70] * 784)}, "whole numbers that fit into UINT8"),
    "numbers and lists": ({"json": body(data=[1, [2]] * 392)}, "the data are not UINT8"),
    "truths": ({"json": body(data=[True] * 784)}, "the data are not UINT8"),
    "words": ({"json": body(data=["x"] * 784)}, "the data are not UINT8"),
    "no datatype": ({"json": body(datatype="UINT9")}, "the datatype 'UINT9' is unknown"),
    "datatype": ({"json": body(datatype="INT64")}, "the datatypes are UINT8, FP32 and BYTES"),
    "fp32 range": ({"json": body(datatype="FP32", data=[-1.0] * 784)}, "from 0 to 255"),
    "no base64": ({"json": body(datatype="BYTES", shape=[1], data=["!"])}, "base64"),
    "shape": ({"json": body(shape=[2, 392])}, "neither"),
    "output": ({"json": body(outputs=[{"name": "mood"}])}, "no output 'mood'"),
    "classification": (
        {"json": body(outputs=[{"name": "label", "parameters": {"classification": 3}}])}, "classification is a",
    ),
    "classification of none": (
        {"json": body(outputs=[{"name": "logits", "parameters": {"classification": True}}])}, "classification is a",
    ),
    "binary size": ({"json": body(data=None, parameters={"binary_data_size": 784})}, "does not match the bytes"),
    "header length": ({"json": body(), "headers": {"Inference-Header-Content-Length": "99999"}}, "but the body has"),
    "header word": ({"json": body(), "headers": {"Inference-Header-Content-Length": "x"}}, "send a number of bytes"),
    "not gzip": ({"json": body(), "headers": {"Content-Encoding": "gzip"}}, "The body is not gzip"),
    "cut gzip of two members": (
        {"content": gzip.compress(b"{}") + gzip.compress(b"x" * 99)[:-9], "headers": {"Content-Encoding": "gzip"}},
        "gzip body is truncated",
    ),
    "brotli": ({"json": body(), "headers": {"Content-Encoding": "br"}}, "send gzip, deflate or neither"),
    "cut gzip": (
        {"content": gzip.compress(b"x" * 99)[:-9], "headers": {"Content-Encoding": "gzip"}}, "gzip body is truncated",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_400_with_the_key_error(client, name):
    options, words = BAD[name]
    assert words in assert_error(client.post(INFER, **options), 400, "invalid-inference")
    assert client.post(INFER, json=body()).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [{"name": "x" * 20_000, "data": [1]}, {"datatype": "x" * 20_000, "data": ["x"]}, {"shape": [-(10**4000), 28, 28]}],
    ids=["name", "datatype", "shape"],
)
def test_an_error_repeats_no_long_word(client, changes):
    assert len(assert_error(client.post(INFER, json=body(**changes)), 400, "invalid-inference")) < 400


def test_a_bad_picture_has_its_own_status(client):
    request = body(datatype="BYTES", shape=[1], data=[base64.b64encode(encode(trousers())[:200]).decode()])
    assert_error(client.post(INFER, json=request), 422, "damaged-image")


def test_gzip_may_have_several_members(client):
    text = json.dumps(body()).encode()
    packed = b"".join(gzip.compress(part) for part in (text[:900], text[900:], b""))
    response = client.post(INFER, content=packed, headers={"Content-Encoding": "gzip"})
    assert response.json() == client.post(INFER, json=body()).json()


def test_thousands_of_gzip_members_are_refused_at_once(client):
    packed = gzip.compress(b"") * 30_000
    start = time.perf_counter()
    response = client.post(INFER, content=packed, headers={"Content-Encoding": "gzip"})
    assert "more than 16 gzip members" in assert_error(response, 400, "invalid-inference")
    assert time.perf_counter() - start < 0.5


def test_a_bomb_of_several_members_is_413(client):
    packed = gzip.compress(bytes(200_000)) * 4
    assert_error(client.post(INFER, content=packed, headers={"Content-Encoding": "gzip"}), 413, "too-large")


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress])
def test_a_compressed_bomb_is_413(client, pack):
    encoding = {"Content-Encoding": "gzip" if pack is gzip.compress else "deflate"}
    assert_error(client.post(INFER, content=pack(bytes(800_000)), headers=encoding), 413, "too-large")


@pytest.mark.parametrize(("path", "status", "slug"), [
    ("/v2/models/nonsense", 404, "unknown-model"), ("/v2/nonsense", 404, "not-found"),
    ("/v2/models/fashionnet/infer", 405, "method-not-allowed"),
    ("/v2/models/fashionnet/versions/1", 404, "unknown-model"),
])  # fmt: skip
def test_every_failure_under_v2_has_the_key_error(client, path, status, slug):
    assert_error(client.get(path), status, slug)


def test_the_server_metadata_are_there_with_and_without_a_slash(client):
    assert client.get("/v2").json() == client.get("/v2/").json()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), st.one_of(st.none(), st.integers(0, 130)))
def test_any_body_is_a_request_or_invalid(content, json_length):
    with pytest.raises(InvalidInference):
        parse_request(content, json_length, 256)


def test_elements_beyond_the_shape_cost_no_memory():
    tensor = {"name": "a", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 8_000_000}}
    text = json.dumps({"inputs": [tensor]}).encode()
    body = text + bytes(8_000_000)  # two million empty elements
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInference, match=r"more elements than in the shape \[1\]"):
            parse_request(body, len(text), 256)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("others", [[1], [0.5], ["y"], [None], [[]], [2**70]])
def test_a_long_word_among_numbers_costs_no_memory(others):
    """NumPy would give every element the size of the longest word."""
    tensor = {"name": "a", "shape": [1, 28, 28], "datatype": "UINT8", "data": ["x" * 8000, *others * 4000]}
    body = json.dumps({"inputs": [tensor]}).encode()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInference, match="the data are not UINT8"):
            parse_request(body, None, 256)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(-5, 80), st.sampled_from(["UINT8", "FP32", "BYTES", "X"]), st.integers(0, 9))
def test_any_binary_tensor_is_a_tensor_or_invalid(blob, size, datatype, length):
    head = {
        "inputs": [{"name": "a", "shape": [length], "datatype": datatype, "parameters": {"binary_data_size": size}}]
    }
    text = json.dumps(head).encode()
    try:
        _, tensors = parse_request(text + blob, len(text), 256)
    except InvalidInference:
        return
    assert tensors["a"].shape == (length,)
