import csv
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from app.commands.predict import ROWS, tabulate
from model import WEIGHTS, preprocess
from model.offline.folder import READ_AHEAD, Outcome, classify_files, find_pictures
from model.offline.tables import COLUMNS, open_table
from model.prediction import LoadedModel, ModelPair, load_model_pair
from model.preprocessing import PictureKind
from tests.in_process import call
from tests.permissions import obeying_permissions
from tests.pictures import encode, grey_png, scene, trousers
from tests.servers import ROOT, run


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
    names = [path.relative_to(folder).as_posix() for path in find_pictures([folder]).pictures]
    assert names == ["a.png", "b.JPG", "more/c.bmp"]
    assert find_pictures([folder]).skipped == [folder / "notes.txt"]
    assert find_pictures([folder / "notes.txt"]).pictures == [folder / "notes.txt"], "what is named is taken"


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".avif", ".jfif", ".PNG"])
def test_every_suffix_of_a_picture_is_one_in_a_folder(tmp_path, suffix):
    (tmp_path / f"IMG_0001{suffix}").touch()
    assert find_pictures([tmp_path]) == ([tmp_path / f"IMG_0001{suffix}"], [])


def test_every_file_gets_its_outcome_in_order_past_every_buffer(tmp_path, engine, artifact):
    count = READ_AHEAD + 100
    for number in range(count):
        content = grey_png(number) if number % 7 else b"broken"
        (tmp_path / f"{number:04}.png").write_bytes(content)
    networks = ModelPair(*[LoadedModel(engine, artifact.card)] * 2)
    outcomes = list(classify_files(find_pictures([tmp_path]).pictures, networks, threads=2))
    assert [Path(outcome.file).stem for outcome in outcomes] == [f"{number:04}" for number in range(count)]
    assert all((outcome.prediction is None) == (int(Path(outcome.file).stem) % 7 == 0) for outcome in outcomes)
    (alone,) = classify_files([tmp_path / "0008.png"], networks, threads=1)
    assert outcomes[8] == alone, "a batch changes no answer"


def test_photos_in_a_folder_go_to_the_model_for_photos(tmp_path):
    contents = {"a.png": trousers(), "b.jpg": scene("wood")[0], "c.png": trousers(), "d.png": scene("tiles")[0]}
    for name, image in contents.items():
        (tmp_path / name).write_bytes(encode(image, "JPEG" if name.endswith("jpg") else "PNG"))
    models = load_model_pair("auto", WEIGHTS, ModelPair("fashionnet", "fashionnet-photo"))
    outcomes = list(classify_files(find_pictures([tmp_path]).pictures, models, threads=2))
    chosen = [(outcome.prediction.model, outcome.prediction.model_choice) for outcome in outcomes]
    drawing, photo = ("fashionnet", PictureKind.PLAIN.value), ("fashionnet-photo", PictureKind.PHOTO.value)
    assert chosen == [drawing, photo, drawing, photo]
    (alone,) = classify_files([tmp_path / "d.png"], models, threads=1)
    assert alone.prediction.probabilities == pytest.approx(outcomes[3].prediction.probabilities, abs=1e-5)


def test_a_few_pictures_are_decoded_in_every_thread(tmp_path, engine, artifact, monkeypatch):
    together = threading.Barrier(2, timeout=20)

    def read_beside_another(*arguments):
        together.wait()
        return preprocess(*arguments)

    monkeypatch.setattr("model.offline.folder.preprocess", read_beside_another)
    files = [tmp_path / f"{number}.png" for number in range(8)]
    for file in files:
        file.write_bytes(encode(trousers()))
    outcomes = classify_files(files, ModelPair(*[LoadedModel(engine, artifact.card)] * 2), threads=2)
    assert [outcome.file for outcome in outcomes] == [str(file) for file in files]


def test_a_folder_becomes_a_csv_and_a_broken_file_is_a_row_of_its_own(folder, tmp_path):
    done = call("predict", folder, "--out", tmp_path / "found.csv")
    assert done.returncode == 1, "one of them could not be read"
    assert "3 pictures into" in done.stdout
    with (tmp_path / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["Trouser", "", "Trouser"]
    assert rows[1]["error"].startswith("This is not a picture")
    (answer,) = json.loads(call("predict", folder / "a.png", "--json").stdout.join("[]"))
    assert float(rows[0]["Trouser"]) == answer["probabilities"]["Trouser"]


def read_table(path: Path) -> list[dict]:
    """The rows of a table, with what is empty as None."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with path.open(newline="") as file:
        return [{name: value or None for name, value in row.items()} for row in csv.DictReader(file)]


def test_csv_and_parquet_have_the_same_columns_and_values(folder, tmp_path, artifact):
    tables = [tmp_path / "found.csv", tmp_path / "found.parquet"]
    for table in tables:
        assert call("predict", folder, "--out", table).returncode == 1
    as_csv, as_parquet = map(read_table, tables)
    assert list(as_csv[0]) == list(as_parquet[0]) == list(COLUMNS)
    assert len(COLUMNS) == 1 + 9 + 10 + 1
    for text, values in zip(as_csv, as_parquet, strict=True):
        assert text == {name: None if value is None else str(value) for name, value in values.items()}
        for name, value in values.items():
            assert value is None or type(value) is COLUMNS[name]
    assert [row["label"] for row in as_parquet] == ["Trouser", None, "Trouser"]
    assert (as_parquet[0]["model"], as_parquet[0]["model_version"]) == ("fashionnet", artifact.card.version)
    assert as_parquet[0]["in_distribution"] is not None


ODD_NAMES = {
    b"ca\xfe\xff.png": r"ca\xfe\xff.png", b"line\nfeed.png": "line\nfeed.png",
    b"carriage\rreturn.png": "carriage\rreturn.png",
    b"\x1b[31mred.png": "\x1b[31mred.png", b'"quoted", with a comma.png': '"quoted", with a comma.png',
    "caf\u00e9 \U0001f45a.png".encode(): "caf\u00e9 \U0001f45a.png", b"=1+1.png": "=1+1.png", b"-r.png": "-r.png",
    rb"C:\shirts\a.png": r"C:\shirts\a.png",
}  # fmt: skip


@pytest.fixture
def odd_folder(tmp_path):
    """Pictures with names that are hard to write."""
    place = tmp_path / "odd"
    place.mkdir()
    for name in ODD_NAMES:
        try:
            (place / os.fsdecode(name)).write_bytes(encode(trousers()))
        except OSError:
            pytest.skip("the file system takes UTF-8 only")
    return place


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_name_is_a_row_of_a_table(odd_folder, tmp_path, suffix):
    done = call("predict", odd_folder, "--out", tmp_path / f"found{suffix}")
    assert (done.returncode, f"{len(ODD_NAMES)} pictures into" in done.stdout) == (0, True), done.stderr
    rows = read_table(tmp_path / f"found{suffix}")
    assert {row["file"] for row in rows} == {f"{odd_folder}/{name}" for name in ODD_NAMES.values()}
    assert {row["label"] for row in rows} == {"Trouser"}


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_every_name_is_a_line_that_is_printed(odd_folder, encoding):
    lines = call("predict", odd_folder, encoding=encoding).stdout.split("\n")[:-1]
    assert sum(" Trouser " in line for line in lines) == len(ODD_NAMES)
    assert all(line.isprintable() for line in lines)
    assert sum(r"line\nfeed.png" in line for line in lines) == 1
    objects = call("predict", odd_folder, "--json", encoding=encoding).stdout.splitlines()
    assert {json.loads(line)["file"] for line in objects} == {f"{odd_folder}/{name}" for name in ODD_NAMES.values()}


def test_what_is_no_picture_that_can_be_read_is_a_row_of_its_own(tmp_path, folder):
    obeying = obeying_permissions()
    (folder / "link.png").symlink_to("nowhere")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "folder.png").mkdir()
    (folder / "folder.png" / "d.png").write_bytes(encode(trousers()))
    os.mkfifo(folder / "pipe.png")
    (folder / "secret.png").write_bytes(encode(trousers()))
    (folder / "secret.png").chmod(0)
    (folder / "locked").mkdir(mode=0)
    (tmp_path / "empty").mkdir()
    places = [folder, tmp_path / "empty", tmp_path / "absent", tmp_path / "absent.png"]
    done = run(*obeying, "scripts/predict.py", *map(str, places), "--out", str(tmp_path / "found.csv"), timeout=60)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    rows = read_table(tmp_path / "found.csv")
    found = {os.path.relpath(row["file"], tmp_path): row["error"] or row["label"] for row in rows}
    denied, absent = ("The file cannot be read: " + why for why in ("Permission denied.", "No such file or directory."))
    assert found.pop("pictures/b.JPG").startswith("This is not a picture")
    assert found.pop("pictures/loop.png").startswith("The file cannot be read: Too many levels of symbolic links")
    assert found.pop("empty").startswith("There is no picture in this folder (.apng, ")
    assert found == {
        "pictures/a.png": "Trouser",
        "pictures/more/c.bmp": "Trouser",
        "pictures/folder.png/d.png": "Trouser",
        "pictures/link.png": absent,
        "pictures/secret.png": denied,
        "pictures/locked": denied,
        "absent": absent,
        "absent.png": absent,
    }


def test_a_file_that_vanishes_meanwhile_is_a_row(tmp_path, engine, artifact):
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file in files:
        file.write_bytes(encode(trousers()))
    found = find_pictures([tmp_path]).pictures
    files[1].unlink()
    outcomes = list(classify_files(found, ModelPair(*[LoadedModel(engine, artifact.card)] * 2), threads=2))
    assert [outcome.error for outcome in outcomes] == [
        None,
        "The file cannot be read: No such file or directory.",
        None,
    ]


@pytest.mark.parametrize("error", [ZeroDivisionError("in a decoder"), MemoryError(), RecursionError("deep")])
def test_an_error_that_nobody_foresaw_is_a_row_that_says_which(tmp_path, engine, artifact, monkeypatch, error):
    def fail_at_broken(content, *arguments):
        if content == b"broken":
            raise error
        return preprocess(content, *arguments)

    monkeypatch.setattr("model.offline.folder.preprocess", fail_at_broken)
    for name, content in (("a.png", encode(trousers())), ("b.png", b"broken"), ("c.png", encode(trousers()))):
        (tmp_path / name).write_bytes(content)
    outcomes = list(
        classify_files(
            find_pictures([tmp_path]).pictures, ModelPair(*[LoadedModel(engine, artifact.card)] * 2), threads=1
        )
    )
    assert [outcome.prediction is None for outcome in outcomes] == [False, True, False]
    assert type(error).__name__ in outcomes[1].error
    assert str(error) in outcomes[1].error


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_full_disk_is_said_with_the_table_that_it_leaves(folder, tmp_path, suffix):
    table = tmp_path / f"found{suffix}"
    table.symlink_to("/dev/full")
    done = call("predict", folder, "--out", table)
    assert done.returncode == 2
    assert f"error: {table} is incomplete or missing (" in done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupted_table_says_how_much_it_has(tmp_path, capsys):
    def interrupted():
        yield from [Outcome("a.png", None, "damaged")] * (ROWS + 1)
        raise KeyboardInterrupt

    table = tmp_path / "found.CSV"
    with pytest.raises(KeyboardInterrupt):
        tabulate(interrupted(), 5000, table)
    assert f"Stopped: {table} has the first {ROWS:,} pictures." in capsys.readouterr().err
    assert len(table.read_text().splitlines()) == 1 + ROWS


def test_a_tilde_is_the_home_folder_for_pictures_and_tables(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    done = call("predict", "~/pictures/a.png", "--out=~/found.csv")
    assert done.returncode == 0, done.stderr
    assert read_table(tmp_path / "found.csv")[0]["file"] == str(folder / "a.png")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["x.png", "--out", "found.xlsx"], "--out found.xlsx: the table is a .csv or a .parquet file"),
        (
            ["x.png", "--out", "no/such/folder/found.csv"],
            "error: no/such/folder/found.csv is incomplete or missing (No such file or directory)",
        ),
        (["x.png", "--ray"], "--ray writes a folder of Parquet files"),
    ],
)
def test_what_cannot_be_written_is_said_in_a_sentence(arguments, sentence):
    done = call("predict", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_table_is_closed_with_what_it_has(tmp_path):
    with open_table(tmp_path / "empty.csv"):
        pass
    assert (
        (tmp_path / "empty.csv")
        .read_text()
        .startswith(
            "file,label,class_id,confidence,in_distribution,ood_score,model,model_version,model_choice,warnings,T-sh"
        )
    )


@pytest.mark.parametrize("pattern", ["pictures/*.png", "pictures/**/*.bmp", "pictures/*.gif"])
def test_a_quoted_pattern_names_the_files_that_a_shell_would(folder, tmp_path, pattern, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = sorted(Path().glob(pattern)) or [Path(pattern)]
    assert find_pictures([Path(pattern)]).pictures == expected


def test_a_pattern_of_no_file_is_said(tmp_path):
    done = call("predict", tmp_path / "*.png")
    assert (done.returncode, done.stdout) == (1, f"{tmp_path}/*.png error: No file has a name of this pattern.\n")


def test_a_file_whose_name_is_a_pattern_is_that_file(tmp_path):
    for name in ("a[1].png", "a1.png"):
        (tmp_path / name).write_bytes(encode(trousers()))
    assert find_pictures([tmp_path / "a[1].png"]).pictures == [tmp_path / "a[1].png"]


def test_standard_input_is_a_picture():
    command = [sys.executable, "scripts/predict.py", "-", "--json"]
    done = subprocess.run(command, cwd=ROOT, input=encode(trousers()), capture_output=True, timeout=300, check=True)
    assert (json.loads(done.stdout)["file"], json.loads(done.stdout)["label"]) == ("-", "Trouser")


def test_skipped_files_are_reported_and_long_names_fit_their_column(folder):
    (folder / ("long" * 20 + ".png")).write_bytes(encode(trousers()))
    done = call("predict", folder)
    assert done.stderr == "skipped, as their suffix is not that of a picture: 1 (.txt)\n"
    assert len({line.index(" Trouser ") for line in done.stdout.splitlines() if " Trouser " in line}) == 1
