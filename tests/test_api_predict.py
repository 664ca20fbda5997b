import base64
import http.client
import io
import json
import re
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import numpy as np
import pytest
from PIL import Image

from app.inference.decoding import NATIVE_BYTES
from app.settings import Settings
from model import CLASSES, WEIGHTS, preprocess
from model.prediction import PREDICTION, SINGLE_MODEL, ModelPair, classify_pictures, input_of, load_model_pair
from model.preprocessing import PictureKind
from model.preprocessing.formats import FORMATS
from model.preprocessing.pipeline import NOT_A_PRODUCT_PICTURE
from tests.held_engines import hold_engines
from tests.pictures import article, encode, grey_png, scene, trousers
from tests.problems import assert_problem, assert_problem_body
from tests.servers import ROOT, run, serve, wait_for_queue, wait_until

FIELDS = {
    "label", "class_id", "confidence", "in_distribution", "ood_score", "probabilities", "warnings", "preprocessing",
    "model", "model_choice", "model_version",
}  # fmt: skip


def post(client, content, **options):
    return client.post("/predict", files={"file": ("x.png", content)}, **options)


def assert_still_good(client):
    response = client.post("/predict", files={"file": trousers_png()})
    assert response.status_code == 200
    assert response.json()["label"] == "Trouser"


def trousers_png() -> bytes:
    return encode(trousers())


def test_a_prediction_is_complete_and_consistent(client, artifact):
    response = post(client, trousers_png())
    answer = response.json()
    assert response.status_code == 200, answer
    assert set(answer) == FIELDS
    assert answer["label"] == CLASSES[answer["class_id"]] == "Trouser"
    assert list(answer["probabilities"]) == list(CLASSES)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert answer["confidence"] == max(answer["probabilities"].values()) == answer["probabilities"]["Trouser"]
    assert (answer["model"], answer["model_version"]) == ("fashionnet", artifact.card.version)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.png")), ids=lambda path: path.stem)
def test_the_examples_are_classified_rightly(client, path):
    label = post(client, path.read_bytes()).json()["label"]
    assert label.lower().replace(" ", "-").split("/")[0] == path.stem


@pytest.mark.parametrize("format_", FORMATS)
def test_a_raw_body_is_as_good_as_a_form(client, format_):
    content = article(format_, size=150)
    raw = client.post("/predict", content=content, headers={"content-type": f"image/{format_.lower()}"})
    assert raw.json() == post(client, content).json()


def test_every_way_gives_the_same_picture_identical_probabilities(client, tmp_path):
    contents = [grey_png(1), trousers_png(), encode(trousers(), "JPEG"), encode(scene("wood")[0], "JPEG")]
    single = [post(client, content).json() for content in contents]
    batch = client.post("/predict/batch", files=[("files", content) for content in contents]).json()["predictions"]
    networks = load_model_pair("auto", WEIGHTS, ModelPair("fashionnet", "fashionnet-photo"))
    pictures = [preprocess(content, partial(input_of, networks)) for content in contents]
    predictions = [classify_pictures(networks, [picture])[0] for picture in pictures]
    direct = [PREDICTION.dump_python(prediction, mode="json", exclude_none=True) for prediction in predictions]
    assert [answer["model"] for answer in direct] == ["fashionnet"] * 3 + ["fashionnet-photo"], (
        "only the last is a photo"
    )
    paths = [tmp_path / str(i) for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    script = run("scripts/predict.py", "--json", *map(str, paths)).stdout.splitlines()
    lines = [{key: value for key, value in json.loads(line).items() if key != "file"} for line in script]
    assert single == batch == direct == lines


def test_what_the_network_saw_comes_along_where_it_is_asked_for(client):
    content = encode(trousers(), "JPEG")
    answers = [
        client.post("/predict", params={"image": "true"}, files={"file": content}).json(),
        client.post("/predict/batch", params={"image": "true"}, files={"files": content}).json()["predictions"][0],
    ]
    for answer in answers:
        scheme, data = answer.pop("image").split(",")
        assert scheme == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as seen:
            assert (np.asarray(seen) == preprocess(content).image).all()
        assert answer == post(client, content).json()


def test_the_input_of_the_network_for_photos_is_a_colour_square(client):
    photo = scene("wood")[0]
    answer = client.post("/predict", params={"image": "true"}, files={"file": encode(photo)}).json()
    assert answer["model"] == "fashionnet-photo"
    with Image.open(io.BytesIO(base64.b64decode(answer["image"].partition(",")[2]))) as seen:
        assert (seen.format, seen.mode, seen.size) == ("PNG", "RGB", (224, 224))
        assert (np.asarray(seen) == np.asarray(photo.resize((224, 224), Image.Resampling.BILINEAR))).all()


@pytest.mark.parametrize("value", ["1", "yes", ""])
def test_image_is_true_or_false(client, value):
    response = client.post("/predict", params={"image": value}, files={"file": grey_png()})
    assert_problem(response, 422, "invalid-query")


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_a_query_is_refused_before_the_body_is_read(client, path):
    assert_problem(client.post(path, params={"image": "1"}, content=b"no form"), 422, "invalid-query")


def test_a_picture_is_answered_with_what_was_done_to_it_and_what_may_be_wrong(client):
    blank = post(client, encode(Image.new("RGB", (90, 60), "white"))).json()
    assert blank["warnings"][0].startswith("Nothing stands out")
    told = post(client, encode(trousers())).json()["preprocessing"]
    assert told["crop_box"] == pytest.approx([88, 20, 210, 282], abs=3)
    assert (told["background"], told["inverted"]) == ("#ffffff", True)
    assert post(client, grey_png()).json()["preprocessing"] == {
        "steps": ["28x28 and grey: used as it is"], "inverted": False
    }  # fmt: skip


def test_a_stranger_is_warned_of(client):
    answer = post(client, grey_png()).json()
    assert answer["in_distribution"] is False
    assert answer["warnings"][-1].startswith("This picture does not resemble")


CONTENTS = {
    PictureKind.DATA_SET: grey_png(),
    PictureKind.PLAIN: trousers_png(),
    PictureKind.PHOTO: encode(scene("wood")[0], "JPEG"),
}


@pytest.mark.parametrize("kind", CONTENTS)
def test_an_answer_says_why_its_model_was_chosen(client, kind):
    content = CONTENTS[kind]
    assert post(client, content).json()["model_choice"] == kind.value
    for name in ("fashionnet", "fashionnet-photo"):
        answer = post(client, content, params={"model": name}).json()
        assert (answer["model"], answer["model_choice"]) == (name, SINGLE_MODEL)


@pytest.mark.parametrize("name", ["fashionnet", "fashionnet-deep"])
def test_a_photo_for_a_model_of_product_pictures_is_warned_of(client, name):
    photo = CONTENTS[PictureKind.PHOTO]
    assert NOT_A_PRODUCT_PICTURE in post(client, photo, params={"model": name}).json()["warnings"]
    assert NOT_A_PRODUCT_PICTURE not in post(client, photo).json()["warnings"]
    assert NOT_A_PRODUCT_PICTURE not in post(client, trousers_png(), params={"model": name}).json()["warnings"]


@pytest.mark.parametrize("kind", CONTENTS)
def test_the_network_for_photos_answers_every_picture_where_it_is_asked_for(client, kind):
    asked = {"model": "fashionnet-photo", "image": "true"}
    answer = post(client, CONTENTS[kind], params=asked).json()
    batch = client.post("/predict/batch", params=asked, files=[("files", CONTENTS[kind])]).json()["predictions"]
    assert batch == [answer]
    with Image.open(io.BytesIO(base64.b64decode(answer["image"].partition(",")[2]))) as seen:
        assert seen.size == (224, 224)


@pytest.mark.parametrize("form", ["JPEG", "small PNG"])
def test_photos_are_answered_by_the_network_for_them_unless_another_is_asked_for(client, form):
    photo = scene("wood")[0] if form == "JPEG" else scene("wood")[0].resize((24, 24))
    content = encode(photo, form.split()[-1])
    assert (len(content) < NATIVE_BYTES) == (form != "JPEG")
    files = [("files", content), ("files", trousers_png()), ("files", b"nothing"), ("files", content)]

    def answering(**query):
        answer = client.post("/predict", files={"file": content}, params=query).json()
        explanation = client.post("/explain", files={"file": content}, params=query | {"format": "json"}).json()
        batch = client.post("/predict/batch", files=files, params=query).json()["predictions"]
        assert [batch[0], batch[3], explanation["prediction"]] == [answer] * 3
        assert "error" in batch[2]
        return answer["model"], batch[1]["model"]

    assert answering() == ("fashionnet-photo", "fashionnet")
    assert answering(model="fashionnet") == ("fashionnet", "fashionnet")
    assert answering(model="fashionnet-deep") == ("fashionnet-deep", "fashionnet-deep")


def test_where_the_network_for_photos_is_missing_the_default_one_answers(tmp_path):
    for file in WEIGHTS.glob("fashionnet.*"):
        (tmp_path / file.name).symlink_to(file)
    with serve(Settings(model_dir=tmp_path)) as client:
        answer = client.post("/predict", files={"file": encode(scene("wood")[0], "JPEG")}).json()
        (summary,) = client.get("/models").json()["models"]
    assert (answer["model"], answer["model_choice"]) == ("fashionnet", SINGLE_MODEL)
    assert NOT_A_PRODUCT_PICTURE in answer["warnings"]
    assert (summary["default"], summary["default_for_photos"]) == (True, True)


def test_many_callers_at_once_get_their_own_answers(client):
    contents = [grey_png(seed) for seed in range(24)]
    expected = [post(client, content).json() for content in contents]
    answers: dict[int, object] = {}

    def call(index):
        with httpx.Client(base_url=client.base_url, timeout=60) as mine:
            answers[index] = post(mine, contents[index]).json()

    threads = [threading.Thread(target=call, args=(index,)) for index in range(len(contents))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answers[index] for index in range(len(contents))] == expected


BAD_PICTURES = {
    "empty": (b"", 422, "empty-image"),
    "text": (b"this is not a picture", 415, "not-an-image"),
    "pdf": (b"%PDF-1.7 and so on", 415, "unknown-format"),
    "truncated-heic": (b"\x00\x00\x00\x18ftypheic", 422, "damaged-image"),
    "truncated-png": (trousers_png()[:300], 422, "damaged-image"),
    "truncated-jpeg": (encode(trousers(), "JPEG")[:2000], 422, "damaged-image"),
    "bomb": (encode(Image.new("1", (20_000, 20_000))), 413, "too-many-pixels"),
    "oversized": (bytes(200_001), 413, "too-large"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
@pytest.mark.parametrize("way", ["form", "raw"])
def test_a_bad_picture_gets_its_problem_and_the_service_lives_on(client, name, way):
    content, status, slug = BAD_PICTURES[name]
    if way == "form":
        response = post(client, content)
    else:
        response = client.post("/predict", content=content, headers={"content-type": "image/png"})
    assert_problem(response, status, slug)
    assert_still_good(client)


def form(body: bytes, boundary: str = "b") -> dict:
    return {"content": body, "headers": {"content-type": f"multipart/form-data; boundary={boundary}"}}


PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
BAD_BODIES = {
    "no body": ({}, 415, "unsupported-body"),
    "json": ({"json": {"file": "x"}}, 415, "unsupported-body"),
    "urlencoded": ({"data": {"file": "x"}}, 415, "unsupported-body"),
    "other field": ({"files": {"picture": b"x"}}, 422, "missing-file"),
    "no field": (form(b"--b--\r\n"), 422, "missing-file"),
    "no boundary": ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "malformed-body"),
    "no multipart": (form(b"not multipart at all"), 400, "malformed-body"),
    "cut off": (form(PART + b"abc"), 400, "malformed-body"),
    "nothing": (form(b""), 400, "malformed-body"),
    "long boundary": (form(b"x", "b" * 5000), 400, "malformed-body"),
    "many headers": (form(b"--b\r\n" + b"X: y\r\n" * 5000 + b"\r\nx\r\n--b--\r\n"), 400, "malformed-body"),
    "many files": ({"files": [("other", b"x")] * 9}, 413, "too-many-files"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_gets_its_problem_and_the_service_lives_on(client, name):
    options, status, slug = BAD_BODIES[name]
    assert_problem(client.post("/predict", **options), status, slug)
    assert_still_good(client)


def test_the_sentence_for_a_wrong_content_type_is_a_command_that_works(client):
    detail = assert_problem(client.post("/predict", content=b"x"), 415, "unsupported-body")
    assert "curl -F file=@shirt.png" in detail


@pytest.mark.parametrize("name", ["chemise-\xe9t\xe9".encode("latin-1"), "\u30b7\u30e3\u30c4".encode("shift-jis")])
def test_the_name_of_a_file_need_not_be_utf_8(client, name):
    part = PART.replace(b'"x"', b'"%s.png"' % name)
    assert client.post("/predict", **form(part + grey_png() + b"\r\n--b--\r\n")).status_code == 200


def test_the_name_of_a_field_need_not_be_utf_8(client):
    part = PART.replace(b'"file"', b'"\xff"')
    response = client.post("/predict", **form(part + grey_png() + b"\r\n--b--\r\n"))
    assert "under the name 'file'" in assert_problem(response, 422, "missing-file")


def test_a_file_field_without_a_filename_is_taken(client):
    body = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + trousers_png() + b"\r\n--b--\r\n"
    assert client.post("/predict", **form(body)).json()["label"] == "Trouser"


def test_other_fields_do_no_harm(client):
    response = client.post("/predict", files={"file": trousers_png()}, data={"comment": "mine"})
    assert response.json()["label"] == "Trouser"


def receive(connection: socket.socket, end: bytes) -> bytes:
    """What comes until it ends so; head and body of an answer may arrive apart."""
    answer = b""
    while not answer.endswith(end):
        received = connection.recv(65536)
        assert received, f"closed after {answer!r}"
        answer += received
    return answer


def test_an_endless_body_is_refused_while_it_streams(client):
    """No Content-Length: the bytes are counted as they come, and the answer does not wait for an end."""
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(4):  # 256 KiB, where 200 kB are the most
            connection.sendall(b"10000\r\n" + bytes(0x10000) + b"\r\n")
        answer = receive(connection, b"}")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert_still_good(client)


def test_a_declared_length_past_the_limit_is_refused_before_the_body_comes(client):
    with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 999999999\r\n\r\n"
        )
        answer = receive(connection, b"}")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"urn:fashionnet:problem:too-large" in answer


@pytest.mark.parametrize("size", [200_001, 300_000], ids=["the file", "the form"])
@pytest.mark.parametrize("body", ["content", "files"])
def test_the_limit_of_the_file_is_named_whatever_exceeds_it(client, body, size):
    content = bytes(size)
    raw = {"content": content, "headers": {"content-type": "image/png"}}
    options = {"files": {"file": content}} if body == "files" else raw
    assert "The limit is 200,000 bytes" in assert_problem(client.post("/predict", **options), 413, "too-large")


def test_a_client_that_leaves_in_the_middle_of_its_upload_does_no_harm(client, caplog):
    for _ in range(5):
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\nabc"
            )
    assert_still_good(client)
    assert not caplog.records, "no traceback in the log for what is nobody's fault"


def test_a_batch_answers_each_file_in_its_order_and_a_bad_one_alone(client):
    contents = [trousers_png(), b"no picture", b"", grey_png(3), bytes(200_001), trousers_png()]
    response = client.post("/predict/batch", files=[("files", content) for content in contents])
    answers = response.json()["predictions"]
    assert response.status_code == 200
    assert_problem_body(answers[1]["error"], 415, "not-an-image")
    assert_problem_body(answers[2]["error"], 422, "empty-image")
    assert_problem_body(answers[4]["error"], 413, "too-large")
    assert answers[0] == answers[5] == post(client, trousers_png()).json()
    assert answers[3] == post(client, grey_png(3)).json()


def test_a_batch_larger_than_the_engine_takes_at_once_keeps_its_order(small_data):
    contents = [grey_png(seed) for seed in range(70)]
    with serve(Settings(data_dir=small_data.root, max_batch_size=3)) as client:
        batch = client.post("/predict/batch", files=[("files", content) for content in contents]).json()["predictions"]
        assert batch == [post(client, content).json() for content in contents]


BAD_BATCHES = {
    "no file": ({"data": {"a": "b"}, "files": {}}, 415, "unsupported-body"),
    "only fields": (
        form(b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n--b--\r\n'),
        422,
        "missing-file",
    ),
    "a part without a file name": (
        form(
            PART.replace(b'"file"', b'"files"')
            + b'\r\n--b\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--b--\r\n'
        ),
        422,
        "missing-file",
    ),
    "too many": ({"files": [("files", b"x")] * 9}, 413, "too-many-files"),
    "too large": ({"files": [("files", bytes(190_000))] * 4}, 413, "too-large"),
    "raw": ({"content": b"x", "headers": {"content-type": "image/png"}}, 415, "unsupported-body"),
}


@pytest.mark.parametrize("name", BAD_BATCHES)
def test_a_bad_batch_gets_its_problem_and_the_service_lives_on(client, name):
    options, status, slug = BAD_BATCHES[name]
    assert_problem(client.post("/predict/batch", **options), status, slug)
    assert_still_good(client)


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
def test_an_unknown_model_is_named_with_those_there_are(client, path):
    response = client.post(path, params={"model": "nonsense"}, files={"file": trousers_png()})
    assert "fashionnet" in assert_problem(response, 404, "unknown-model")


def test_photos_that_wait_are_computed_one_by_one(small_data, monkeypatch):
    engines = hold_engines(monkeypatch)
    photos = [encode(scene("wood", seed=number)[0]) for number in range(3)]
    with serve(Settings(data_dir=small_data.root)) as client, ThreadPoolExecutor(3) as pool:
        for held in engines:
            held.hold.set()
        responses = [pool.submit(post, client, photo) for photo in photos]
        wait_until(lambda: 'fashionnet_queue_depth{model="fashionnet-photo"} 2.0' in client.get("/metrics").text)
        for held in engines:
            held.gate.set()
        assert {response.result().json()["model"] for response in responses} == {"fashionnet-photo"}
    assert [len(batch) for held in engines for batch in held.images] == [1, 1, 1]


def test_a_caller_that_left_costs_a_slow_network_nothing(small_data, monkeypatch):
    """One picture is in hand and two wait; the caller of the second leaves, and it is never computed."""
    engines = hold_engines(monkeypatch)
    with serve(Settings(data_dir=small_data.root, max_batch_size=1, inference="thread")) as client:
        held = engines[0]
        held.hold.set()
        pictures = [grey_png(number) for number in range(3)]
        connections = []
        for picture in pictures:
            connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port, timeout=30)
            connection.request("POST", "/predict", picture, {"Content-Type": "image/png"})
            assert held.begun.wait(20)
            wait_for_queue(client, len(connections))
            connections.append(connection)
        connections[1].close()
        time.sleep(0.5)  # long enough for the end of the connection to be noticed
        held.gate.set()
        assert [connections[number].getresponse().read()[:9] for number in (0, 2)] == [b'{"label":'] * 2
        for connection in connections:
            connection.close()
    expected = [preprocess(pictures[number]).image for number in (0, 2)]
    assert [images[0].tolist() for images in held.images] == [image.tolist() for image in expected]


def test_what_nobody_foresaw_is_500_without_a_word_of_the_inside(small_data, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError("secret of the inside")

    with serve(Settings(data_dir=small_data.root)) as client:
        monkeypatch.setattr("app.inference.decoding.preprocess_native", broken)
        detail = assert_problem(post(client, grey_png(1)), 500, "internal")
        assert "secret" not in detail
        assert "secret of the inside" in caplog.text
        monkeypatch.undo()
        assert_still_good(client)


def test_the_connection_outlives_what_nobody_foresaw(small_data, monkeypatch):
    """The server announced no end of the connection, so it must not be closed: the next request may be on its way."""
    monkeypatch.setattr("app.inference.decoding.preprocess_native", lambda *_: 1 / 0)
    with serve(Settings(data_dir=small_data.root)) as client:
        connection = http.client.HTTPConnection(client.base_url.host, client.base_url.port, timeout=30)
        for _ in range(3):
            connection.request("POST", "/predict", grey_png(1), {"Content-Type": "image/png"})
            response = connection.getresponse()
            assert (response.status, json.loads(response.read())["status"]) == (500, 500)
            time.sleep(0.2)  # long enough for a close to arrive
        connection.close()


PIXELS = {"name": "images", "shape": [2, 28, 28], "datatype": "UINT8", "data": [*trousers().tobytes()] * 2}
BOTH_WAYS = [
    ("/predict", {"files": {"file": trousers_png()}}),
    ("/predict", {"files": {"file": b""}}),
    ("/predict?model=x", {"files": {"file": trousers_png()}}),
    ("/predict/batch?image=true", {"files": [("files", trousers_png()), ("files", b"x")]}),
    ("/predict/batch?image=perhaps", {"files": [("files", trousers_png())]}),
    ("/predict/batch?model=x", {"files": [("files", trousers_png())]}),
    ("/predict/batch", {"files": {"file": b""}, "headers": {"content-type": "text/plain"}}),
    ("/v2/models/fashionnet/infer", {"json": {"inputs": [PIXELS]}}),
    ("/v2/models/fashionnet/infer", {"json": {"inputs": [PIXELS | {"shape": [0, 28, 28], "data": []}]}}),
    ("/v2/models/fashionnet/infer", {"json": {"inputs": [PIXELS | {"shape": [3, 28, 28]}]}}),
    ("/v2/models/x/infer", {"json": {"inputs": [PIXELS]}}),
]


def test_fastapi_and_the_fast_path_respond_alike(small_data):
    """With traces on every request takes the framework's way; the answers are the same, problems and counts too."""
    settings = Settings(data_dir=small_data.root)
    with serve(settings) as fast, serve(settings.model_copy(update={"tracing": True})) as slow:
        counts, answers = [counted(fast)], []
        for client in (fast, slow):
            responses = [client.post(path, **request) for path, request in BOTH_WAYS]
            answers.append([(each.status_code, each.headers["content-type"], each.json()) for each in responses])
            counts.append(counted(fast))
    assert answers[0] == answers[1]
    assert counts[2] - counts[1] == counts[1] - counts[0]
    assert "/v2/models/{name}/infer" in str(counts[1] - counts[0])


def counted(client) -> Counter:
    """The requests for predictions so far, by route and status."""
    pattern = r'^fashionnet_request_duration_seconds_count\{(route="/[pv].*)\} (.+)$'
    return Counter({labels: float(n) for labels, n in re.findall(pattern, client.get("/metrics").text, re.M)})


def test_a_body_that_trickles_in_is_given_up_on(small_data):
    with serve(Settings(data_dir=small_data.root, body_timeout_seconds=0.3)) as client:
        with socket.create_connection((client.base_url.host, client.base_url.port)) as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 5000\r\n\r\nabc"
            )
            answer = receive(connection, b"}")
            assert connection.recv(1) == b"", "the connection is closed: what is left of the body would come late"
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert_problem_body(json.loads(answer.partition(b"\r\n\r\n")[2]), 408, "slow-body")
        assert_still_good(client)


def test_both_engines_of_full_precision_answer_alike(small_data):
    with (
        serve(Settings(data_dir=small_data.root, engine="torch", model_dir=WEIGHTS)) as torch_client,
        serve(Settings(data_dir=small_data.root, engine="onnx")) as onnx_client,
    ):
        ours, theirs = (post(each, trousers_png()).json() for each in (onnx_client, torch_client))
    assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)
