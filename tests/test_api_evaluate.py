import threading

import httpx
import numpy as np
import pytest

from app.inference.evaluator import Evaluator
from app.settings import Settings
from model import CLASSES, WEIGHTS, create_engine, evaluate, load_artifact
from model.plots import draw_confusion
from tests.data_sets import real_data_set
from tests.permissions import obeying_permissions
from tests.pictures import grey_png
from tests.problems import assert_problem
from tests.servers import client_of, process, serve


def test_the_evaluation_is_that_of_the_served_engine(client, engine, small_data, artifact):
    answer = client.get("/evaluate").json()
    expected = evaluate(engine, small_data.load("test"), artifact.card.temperature).model_dump(mode="json")
    assert {key: answer[key] for key in expected} == expected
    assert (answer["model"], answer["model_version"]) == ("fashionnet", artifact.card.version)
    assert answer["seconds"] > 0
    assert set(answer["classes"][0]) == {"label", "precision", "recall", "f1", "support"}


def test_the_photo_model_is_evaluated_on_the_images_enlarged(client, small_data):
    answer = client.get("/evaluate", params={"model": "fashionnet-photo"}).json()
    artifact = load_artifact(WEIGHTS, "fashionnet-photo")
    photo_engine, card = create_engine("auto", artifact), artifact.card
    expected = evaluate(photo_engine, small_data.load("test"), card.temperature, card.input)
    assert (answer["model"], answer["count"]) == ("fashionnet-photo", 200)
    assert answer["loss"] == pytest.approx(expected.loss, abs=1e-3)
    drawn = client.get("/gallery", params={"model": "fashionnet-photo", "rows": 1, "columns": 2})
    assert drawn.headers["content-type"] == "image/png"


def test_it_is_measured_once(client):
    assert client.get("/evaluate").json() == client.get("/evaluate", params={"model": "fashionnet"}).json()


def test_concurrent_calls_share_one_run(small_data, monkeypatch):
    runs = []
    measure = Evaluator._measure

    async def counted(self, predictor):
        runs.append(1)
        return await measure(self, predictor)

    monkeypatch.setattr(Evaluator, "_measure", counted)
    with serve(Settings(data_dir=small_data.root)) as client:
        answers = []

        def call():
            answers.append(httpx.get(client.base_url.join("/evaluate"), timeout=60).json())

        threads = [threading.Thread(target=call) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [answers[0]] * 5
        assert len(runs) == 1


def test_other_data_are_measured_anew(fresh_data):
    with serve(Settings(data_dir=fresh_data.root)) as client:
        before = client.get("/evaluate").json()
        sums = fresh_data.folder / "SHA256SUMS"
        for kind in ("images-idx3", "labels-idx1"):
            train, test = (fresh_data.folder / f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k"))
            test.write_bytes(train.read_bytes())
            digest = next(line.split()[0] for line in sums.read_text().splitlines() if train.name in line)
            lines = [line for line in sums.read_text().splitlines() if test.name not in line]
            sums.write_text("\n".join([*lines, f"{digest}  {test.name}"]))
        after = client.get("/evaluate").json()
    assert (before["count"], after["count"]) == (50, 100)


@pytest.mark.parametrize("path", ["/evaluate", "/evaluate/confusion.png", "/gallery", "/gallery?only=incorrect"])
def test_absent_data_are_503_and_found_once_they_are_there(tmp_path, small_data, path):
    data_dir = tmp_path / "data"
    with serve(Settings(data_dir=data_dir)) as client:
        detail = assert_problem(client.get(path), 503, "data-unavailable")
        assert "scripts/download.py" in detail
        assert "FASHIONNET_DATA_DIR" in detail
        assert client.post("/predict", files={"file": grey_png()}).status_code == 200
        data_dir.symlink_to(small_data.root)
        assert client.get(path).status_code == 200


def test_damaged_data_are_503(fresh_data):
    images = fresh_data.folder / "t10k-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:-1])
    with serve(Settings(data_dir=fresh_data.root)) as client:
        assert "does not match its checksum" in assert_problem(client.get("/evaluate"), 503, "data-unavailable")


NEED_DATA = [
    "/evaluate", "/evaluate/progress", "/evaluate/confusion.png", "/gallery", "/gallery?only=incorrect",
    "/gallery/items", "/gallery/images/0.png",
]  # fmt: skip


@pytest.mark.parametrize("what", ["FashionMNIST/raw", "FashionMNIST/raw/SHA256SUMS"])
@pytest.mark.parametrize("by", ["file", "folder", "loop"])
def test_data_that_cannot_be_read_are_503_and_the_log_names_the_path(fresh_data, caplog, what, by):
    path = fresh_data.root / what
    path.rename(tmp := fresh_data.root / "away")
    path.touch() if by == "file" else path.mkdir() if by == "folder" else path.symlink_to(path.name)
    with serve(Settings(data_dir=fresh_data.root)) as client:
        for need in set(NEED_DATA) - ({"/evaluate/progress"} if by == "folder" else set()):
            detail = assert_problem(client.get(need), 503, "data-unavailable")
            assert str(fresh_data.root) not in detail
        assert client.post("/predict", files={"file": grey_png()}).status_code == 200
        path.rmdir() if by == "folder" else path.unlink()
        tmp.rename(path)
        assert client.get("/gallery").status_code == 200, "found once it is put right"
    logged = [record for record in caplog.records if str(fresh_data.folder) in record.getMessage()]
    assert len(logged) >= len(NEED_DATA) - 1
    assert {record.levelname for record in logged} == {"WARNING"}
    assert not any(record.exc_info for record in logged), "a sentence, no traceback"


@pytest.mark.parametrize("what", ["", "FashionMNIST/raw", "FashionMNIST/raw/t10k-labels-idx1-ubyte.gz"])
def test_data_of_another_user_are_503_until_they_may_be_read(fresh_data, what):
    obeying, path = obeying_permissions(), fresh_data.root / what
    mode = path.stat().st_mode
    environment = {"FASHIONNET_DATA_DIR": str(fresh_data.root), "FASHIONNET_PORT": "0", "FASHIONNET_WORKERS": "1"}
    path.chmod(0)
    try:
        with process(*obeying, "-m", "app", **environment) as server, client_of(server) as client:
            for need in set(NEED_DATA) - {"/evaluate/progress"}:
                detail = assert_problem(client.get(need), 503, "data-unavailable")
                assert "(Permission denied): let the user that runs FashionNet read" in detail
            path.chmod(mode)
            assert client.get("/gallery").status_code == 200
            server.terminate()
            _, log = server.communicate(timeout=30)
    finally:
        path.chmod(mode)
    assert f"cannot be read from {fresh_data.folder} (Permission denied)" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("path", ["/evaluate", "/evaluate/confusion.png", "/gallery"])
def test_an_unknown_model_is_404(client, path):
    assert_problem(client.get(path, params={"model": "nonsense"}), 404, "unknown-model")


def test_the_confusion_matrix_is_drawn_from_the_counts(client):
    response = client.get("/evaluate/confusion.png")
    assert response.headers["content-type"] == "image/png"
    assert response.content == draw_confusion(client.get("/evaluate").json()["confusion_matrix"], CLASSES)


@pytest.mark.weights
def test_the_real_test_set_gives_the_figure_of_the_card_in_time(engine, artifact):
    """Ten seconds are the bar on a CPU with AVX2 alone; predictions go on meanwhile."""
    waits = []
    with serve(Settings(data_dir=real_data_set().root)) as client:
        thread = threading.Thread(target=lambda: client.get("/evaluate"))
        thread.start()
        with httpx.Client(base_url=client.base_url, timeout=60) as other:
            while thread.is_alive():
                response = other.post("/predict", files={"file": grey_png()})
                assert response.status_code == 200
                waits.append(response.elapsed.total_seconds())
                thread.join(0.05)
        answer = client.get("/evaluate").json()
    assert answer["count"] == 10_000
    assert answer["accuracy"] == pytest.approx(artifact.card.measured_with(engine.name)["test"].accuracy, abs=2e-4)
    assert answer["accuracy"] >= 0.925
    assert np.median(waits) < answer["seconds"] / 10
