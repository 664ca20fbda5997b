import csv
import json
import threading

import pytest

from model import Choice, preprocess
from model.bulk import AHEAD, Loaded, classify_files, find_pictures, open_table
from tests.pictures import encode, grey_png, trousers
from tests.servers import run


@pytest.fixture
def folder(tmp_path):
    """Pictures in two levels, one of them broken, and a file that is none."""
    place = tmp_path / "pictures"
    (place / "more").mkdir(parents=True)
    (place / "a.png").write_bytes(encode(trousers()))
    (place / "b.JPG").write_bytes(b"broken")
    (place / "more" / "c.bmp").write_bytes(encode(trousers(), "BMP"))
    (place / "notes.txt").write_text("no picture")
    return place


def test_pictures_are_found_by_their_suffix_in_every_level_and_in_order(folder):
    names = [path.relative_to(folder).as_posix() for path in find_pictures([folder])]
    assert names == ["a.png", "b.JPG", "more/c.bmp"]
    assert find_pictures([folder / "notes.txt"]) == [folder / "notes.txt"], "what is named is taken"


def test_every_file_gets_its_outcome_in_order_past_every_buffer(tmp_path, engine, artifact):
    count = AHEAD + 100
    for number in range(count):
        content = grey_png(number) if number % 7 else b"broken"
        (tmp_path / f"{number:04}.png").write_bytes(content)
    networks = Choice(*[Loaded(engine, artifact.card)] * 2)
    outcomes = list(classify_files(find_pictures([tmp_path]), networks, threads=2))
    assert [outcome.path.stem for outcome in outcomes] == [f"{number:04}" for number in range(count)]
    assert all((outcome.prediction is None) == (int(outcome.path.stem) % 7 == 0) for outcome in outcomes)
    (alone,) = classify_files([tmp_path / "0008.png"], networks, threads=1)
    assert outcomes[8] == alone, "a batch changes no answer"


def test_a_few_pictures_are_decoded_in_every_thread(tmp_path, engine, artifact, monkeypatch):
    together = threading.Barrier(2, timeout=20)

    def read_beside_another(content, max_pixels):
        together.wait()
        return preprocess(content, max_pixels)

    monkeypatch.setattr("model.bulk.preprocess", read_beside_another)
    files = [tmp_path / f"{number}.png" for number in range(8)]
    for file in files:
        file.write_bytes(encode(trousers()))
    outcomes = classify_files(files, Choice(*[Loaded(engine, artifact.card)] * 2), threads=2)
    assert [outcome.path for outcome in outcomes] == files


def test_a_folder_becomes_a_csv_and_a_broken_file_is_a_row_of_its_own(folder, tmp_path):
    done = run("scripts/predict.py", str(folder), "--out", str(tmp_path / "found.csv"))
    assert done.returncode == 1, "one of them could not be read"
    assert "3 pictures into" in done.stdout
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["Trouser", "", "Trouser"]
    assert rows[1]["error"].startswith("This is not a picture")
    (answer,) = json.loads(run("scripts/predict.py", str(folder / "a.png"), "--json").stdout.join("[]"))
    assert float(rows[0]["Trouser"]) == answer["probabilities"]["Trouser"]


def test_a_folder_becomes_a_parquet_file(folder, tmp_path):
    import pyarrow.parquet as pq

    done = run("scripts/predict.py", str(folder), "--out", str(tmp_path / "found.parquet"))
    assert done.returncode == 1
    rows = pq.read_table(tmp_path / "found.parquet").to_pylist()
    assert [row["label"] for row in rows] == ["Trouser", None, "Trouser"]
    assert rows[0]["class_id"] == 1
    assert sum(rows[0][label] for label in ("Trouser", "Dress")) > 0.5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["x.png", "--out", "found.xlsx"], "error: found.xlsx: the table is a .csv or a .parquet file."),
        (["x.png", "--out", "no/such/folder/found.csv"], "error: [Errno 2] No such file or directory"),
        (["x.png", "--ray"], "--ray writes a folder of Parquet files"),
    ],
)
def test_what_cannot_be_written_is_said_in_a_sentence(arguments, sentence):
    done = run("scripts/predict.py", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_table_is_closed_with_what_it_has(tmp_path, artifact):
    with open_table(tmp_path / "empty.csv", artifact.card.classes):
        pass
    assert (
        (tmp_path / "empty.csv")
        .read_text()
        .startswith("file,label,class_id,confidence,in_distribution,ood_score,T-shirt/top,")
    )
