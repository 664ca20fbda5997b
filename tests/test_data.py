import contextlib
import errno
import functools
import gzip
import http.server
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pooch
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from model.data import PUBLISHED_SHA256, FashionMnist, parse_idx, split_validation
from model.errors import DataCorrupt, DataError, DataMissing, DownloadFailed
from model.files import user_path
from model.installation import download_command
from tests.data_sets import idx_bytes, make_data_set, real_data_set, write_sums
from tests.permissions import obeying_permissions
from tests.problems import LEAK
from tests.servers import free_port, run

IMAGES = "t10k-images-idx3-ubyte.gz"


@given(arrays(np.uint8, array_shapes(max_dims=4)))
def test_an_idx_file_is_read_back(array):
    assert (parse_idx(idx_bytes(array)) == array).all()


@given(st.binary(max_size=64))
def test_any_bytes_are_an_idx_file_or_a_data_error(raw):
    with contextlib.suppress(DataError):
        assert parse_idx(raw).dtype == np.uint8


def test_a_header_whose_shape_overflows_64_bits_is_refused():
    shape = [2**31, 2**31, 4]
    raw = b"\0\0\x08\x03" + b"".join(edge.to_bytes(4, "big") for edge in shape)
    with pytest.raises(DataCorrupt, match="does not fit the shape"):
        parse_idx(raw)


def test_the_real_data_set_is_what_its_paper_says():
    data_set = real_data_set()
    train, test = data_set.load("train"), data_set.load("test")
    assert (train.images.shape, test.images.shape) == ((60000, 28, 28), (10000, 28, 28))
    assert (np.bincount(train.labels) == 6000).all()
    assert (np.bincount(test.labels) == 1000).all()
    scaled = train.images / 255
    assert scaled.mean() == pytest.approx(0.2860406, abs=1e-7)
    assert scaled.std() == pytest.approx(0.3530242, abs=1e-7)


def test_a_missing_data_set_says_where_it_was_looked_for_and_how_to_get_it(tmp_path):
    error = failure(FashionMnist(tmp_path / "my data"))
    assert isinstance(error, DataMissing)
    assert f"is not in {tmp_path}/my data/FashionMNIST/raw, which does not exist: run" in str(error)
    assert f"`{download_command()} --data-dir '{tmp_path}/my data'`" in str(error)
    assert "set FASHIONNET_DATA_DIR to the folder that contains FashionMNIST/raw" in str(error)


def failure(data_set: FashionMnist) -> DataError:
    """What loading ends in; every failure tells the command line the path, and clients of the service none."""
    with pytest.raises(DataError) as caught:
        data_set.load("test")
    error = caught.value
    assert str(user_path(data_set.root)) in str(error)
    assert not LEAK.search(error.public)
    assert not re.search(r"\{\w", str(error) + error.public), "every word is filled in"
    assert not set("\n\r\x1b") & set(str(error)), "one line"
    return error


def unpack(data_set: FashionMnist) -> None:
    for path in data_set.folder.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()


def test_what_lies_in_the_folder_instead_is_named(tmp_path):
    data_set = FashionMnist(tmp_path)
    data_set.folder.mkdir(parents=True)
    assert "raw, which is empty: run" in str(failure(data_set))
    for name in ("a{}.zip", "b\n", os.fsdecode(b"c\xff"), "d", "e", "f", "g"):
        (data_set.folder / name).touch()
    error = failure(data_set)
    assert r"which contains a{}.zip, b\n, c\xff, d, e and 2 more: run" in str(error)
    assert "a{}" not in error.public, "the server's files are nobody's business"


def test_an_unpacked_data_set_is_told_and_can_be_packed_as_the_sentence_says(fresh_data):
    expected = fresh_data.load("test")
    (fresh_data.folder / "SHA256SUMS").unlink()
    unpack(fresh_data)
    error = failure(fresh_data)
    assert f"contains {IMAGES.removesuffix('.gz')}, but {IMAGES} is needed" in str(error)
    assert f"run `{download_command()}" in str(error)
    command = re.search("`(gzip [^`]+)`", str(error)).group(1)
    assert command in error.public
    subprocess.run(["sh", "-c", command], cwd=fresh_data.folder, check=True)
    assert (fresh_data.load("test").images == expected.images).all()


def test_a_data_set_that_is_packed_anew_needs_sums_of_its_own(fresh_data):
    (fresh_data.folder / "SHA256SUMS").unlink()
    error = failure(fresh_data)
    assert isinstance(error, DataCorrupt)
    assert f"run `{download_command()}" in str(error)
    command = re.search("`(sha256sum [^`]+)`", str(error)).group(1)
    subprocess.run(["sh", "-c", command], cwd=fresh_data.folder, check=True)
    assert len(fresh_data.load("test").labels) == 50


@pytest.mark.parametrize("inside", ["FashionMNIST", "FashionMNIST/raw"])
@pytest.mark.parametrize("unpacked", [False, True])
def test_a_root_that_is_too_deep_is_told_with_the_right_one(fresh_data, inside, unpacked):
    if unpacked:
        unpack(fresh_data)
    error = failure(FashionMnist(fresh_data.root / inside))
    assert f"but in {fresh_data.folder}: set FASHIONNET_DATA_DIR to {fresh_data.root}." in str(error)
    assert "set FASHIONNET_DATA_DIR to the folder that contains FashionMNIST/raw." in error.public


@pytest.mark.parametrize("inside", ["", "raw", "FashionMNIST"])
def test_files_that_lie_beside_their_folder_are_found(fresh_data, tmp_path, inside):
    place = tmp_path / "flat" / inside
    shutil.copytree(fresh_data.folder, place)
    data_set = FashionMnist(tmp_path / "flat")
    assert f"but in {place}: move its files into {data_set.folder}." in str(failure(data_set))


def occupy(path: Path, by: str) -> None:
    """Put something that cannot be read in the place of ``path``."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    match by:
        case "file":
            path.write_bytes(b"")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path.name)
        case "broken link":
            path.symlink_to("nowhere")


@pytest.mark.parametrize(
    ("what", "by", "words"),
    [
        ("FashionMNIST", "file", "Not a directory"),
        ("FashionMNIST/raw", "file", "Not a directory"),
        ("FashionMNIST/raw", "loop", "symbolic links"),
        ("FashionMNIST/raw", "broken link", "is not in"),
        (f"FashionMNIST/raw/{IMAGES}", "folder", "Is a directory"),
        (f"FashionMNIST/raw/{IMAGES}", "loop", "symbolic links"),
        (f"FashionMNIST/raw/{IMAGES}", "broken link", "is a broken link: run"),
        ("FashionMNIST/raw/SHA256SUMS", "folder", "Is a directory"),
        ("FashionMNIST/raw/SHA256SUMS", "loop", "symbolic links"),
    ],
)
def test_what_cannot_be_read_is_a_data_error(fresh_data, what, by, words):
    occupy(fresh_data.root / what, by)
    error = failure(fresh_data)
    assert words in str(error)
    with contextlib.suppress(DataError):  # it needs no files
        fresh_data.fingerprint("test")
    with pytest.raises(DataError, match="FASHIONNET_DATA"):
        fresh_data.download(f"http://127.0.0.1:{free_port()}/")


def test_an_error_of_the_disk_is_a_data_error(fresh_data, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert "(Input/output error): repair the file or its disk, or set FASHIONNET_DATA_DIR" in str(failure(fresh_data))


@pytest.mark.parametrize("what", ["", "FashionMNIST/raw", f"FashionMNIST/raw/{IMAGES}", "FashionMNIST/raw/SHA256SUMS"])
def test_data_of_somebody_else_are_one_sentence_on_the_command_line(fresh_data, what):
    path = fresh_data.root / what
    obeying, mode = obeying_permissions(), path.stat().st_mode
    path.chmod(0)
    try:
        scripts = [["scripts/evaluate.py"], ["scripts/download.py", "--url", "http://127.0.0.1:9/"]]
        runs = [run(*obeying, *script, "--data-dir", str(fresh_data.root)) for script in scripts]
    finally:
        path.chmod(mode)
    for done in runs:
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.splitlines()) == 1
        assert f"{fresh_data.folder} " in done.stderr
        assert "(Permission denied)" in done.stderr
        assert "set FASHIONNET_DATA_DIR" in done.stderr


def test_a_tilde_is_the_home_folder_for_reading_and_for_downloading(mirror, empty, monkeypatch):
    monkeypatch.setenv("HOME", str(empty.root.parent))
    data_set = FashionMnist(Path("~/empty"))
    data_set.download(mirror[0])
    assert data_set.folder == empty.folder
    assert len(data_set.load("test").labels) == len(empty.load("test").labels) == 20


def test_a_tilde_on_the_command_line_is_the_home_folder(fresh_data):
    home = str(fresh_data.root.parent)
    done = run("scripts/download.py", "--data-dir=~/fresh", "--url=http://127.0.0.1:9/", HOME=home)
    assert done.returncode == 0, done.stderr
    assert f"is complete in {fresh_data.folder}." in done.stdout


def test_a_tilde_of_nobody_stays_as_it_is(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    assert [str(user_path(text)) for text in ("~", "~/x", "~no-such-user/x", "a/~")] == [
        "/h", "/h/x", "~no-such-user/x", "a/~"
    ]  # fmt: skip


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_a_damaged_file_is_never_used(fresh_data, damage):
    path = fresh_data.folder / IMAGES
    content = path.read_bytes()
    middle = len(content) // 2
    altered = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes({"truncated": content[:middle], "altered": altered, "empty": b""}[damage])
    with pytest.raises(DataCorrupt, match=f"{IMAGES} in .* does not match its checksum in SHA256SUMS"):
        fresh_data.load("test")


def test_a_file_that_is_no_gzip_is_refused_even_with_the_right_sum(fresh_data):
    (fresh_data.folder / IMAGES).write_bytes(b"not gzip")
    write_sums(fresh_data)
    with pytest.raises(DataCorrupt, match="not a gzip file"):
        fresh_data.load("test")


def test_images_and_labels_must_fit_together(fresh_data):
    shutil.copy(fresh_data.folder / "train-labels-idx1-ubyte.gz", fresh_data.folder / "t10k-labels-idx1-ubyte.gz")
    write_sums(fresh_data)
    with pytest.raises(DataCorrupt, match="do not fit together"):
        fresh_data.load("test")


def test_the_fingerprint_changes_with_the_files_of_its_split(fresh_data):
    before = fresh_data.fingerprint("test"), fresh_data.fingerprint("train")
    shutil.copy(fresh_data.folder / "train-images-idx3-ubyte.gz", fresh_data.folder / IMAGES)
    write_sums(fresh_data)
    assert fresh_data.fingerprint("test") != before[0]
    assert fresh_data.fingerprint("train") == before[1]


@pytest.mark.parametrize("text", ["", "garbage", "0" * 64 + "  t10k-images-idx3-ubyte.gz\n", "\xff\x00"])
def test_sums_that_are_none_are_refused_with_the_remedy(fresh_data, text):
    (fresh_data.folder / "SHA256SUMS").write_text(text)
    for use in (fresh_data.download, lambda: fresh_data.load("test"), lambda: fresh_data.fingerprint("test")):
        with pytest.raises(DataCorrupt, match=r"sha256sum \*\.gz"):
            use()


def test_sums_of_more_files_do(fresh_data):
    with (fresh_data.folder / "SHA256SUMS").open("a") as file:
        file.write("0" * 64 + "  notes.gz\n")
    assert len(fresh_data.load("test").labels) == 50
    assert fresh_data.checksums().keys() == PUBLISHED_SHA256.keys()


def test_without_sums_of_its_own_a_folder_is_held_to_the_published_ones(fresh_data):
    (fresh_data.folder / "SHA256SUMS").unlink()
    assert fresh_data.checksums() == PUBLISHED_SHA256
    with pytest.raises(DataCorrupt):
        fresh_data.load("train")


@given(st.integers(0, 2**32), st.integers(10, 200))
def test_the_validation_set_is_stratified_fixed_by_its_seed_and_apart(seed, size):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10, dtype=np.uint8), 50))
    train, validation = split_validation(labels, size, seed)
    assert len(validation) == size
    assert np.ptp(np.bincount(labels[validation], minlength=10)) <= 1
    assert sorted([*train, *validation]) == list(range(500))
    assert (split_validation(labels, size, seed)[1] == validation).all()


def test_another_seed_gives_another_validation_set():
    labels = np.repeat(np.arange(10, dtype=np.uint8), 50)
    assert set(split_validation(labels, 50, 1)[1]) != set(split_validation(labels, 50, 2)[1])


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path) -> Iterator[tuple[str, FashionMnist]]:
    """A mirror on loopback, and the data set that it serves."""
    served = make_data_set(tmp_path / "mirror", train=40, test=20)
    handler = functools.partial(_Quiet, directory=served.folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/", served
        server.shutdown()


@pytest.fixture
def empty(tmp_path, mirror) -> FashionMnist:
    """A folder that expects the mirror's files and has none."""
    data_set = FashionMnist(tmp_path / "empty")
    data_set.folder.mkdir(parents=True)
    shutil.copy(mirror[1].folder / "SHA256SUMS", data_set.folder)
    return data_set


def test_a_download_fills_an_empty_folder_with_a_progress_bar(mirror, empty, capsys):
    empty.download(mirror[0])
    assert (empty.load("test").images == mirror[1].load("test").images).all()
    assert "100%" in capsys.readouterr().err


def test_a_good_file_is_left_alone_and_a_bad_one_replaced(mirror, empty):
    empty.download(mirror[0])
    good, bad = empty.folder / "train-images-idx3-ubyte.gz", empty.folder / IMAGES
    bad.write_bytes(b"bad")
    before = good.stat().st_mtime_ns
    empty.download(mirror[0])
    assert good.stat().st_mtime_ns == before
    assert len(empty.load("test").labels) == 20


def test_a_complete_folder_needs_no_network(fresh_data):
    fresh_data.download(f"http://127.0.0.1:{free_port()}/")


def test_a_folder_that_is_not_there_is_made_and_everybody_can_read_what_is_downloaded(mirror, tmp_path, monkeypatch):
    monkeypatch.setattr("model.data.PUBLISHED_SHA256", mirror[1].checksums())
    data_set = FashionMnist(tmp_path / "a" / "b")
    data_set.download(mirror[0])
    assert {path.stat().st_mode & 0o777 for path in data_set.folder.iterdir()} == {0o644}


@pytest.mark.parametrize("complete", [True, False])
def test_a_read_only_folder_does_where_it_is_complete(fresh_data, complete):
    if not complete:
        (fresh_data.folder / IMAGES).unlink()
    obeying = obeying_permissions()
    fresh_data.folder.chmod(0o555)
    try:
        done = run(*obeying, "scripts/download.py", "--data-dir", str(fresh_data.root), "--url", "http://127.0.0.1:9/")
    finally:
        fresh_data.folder.chmod(0o755)
    assert done.returncode == (0 if complete else 2)
    message = f"{fresh_data.folder} cannot be written or read (Permission denied): set FASHIONNET_DATA_DIR to a folder"
    assert complete or message in done.stderr


def test_a_folder_that_cannot_be_made_is_named(fresh_data):
    root = fresh_data.folder / IMAGES
    done = run("scripts/download.py", "--data-dir", str(root), "--url", "http://127.0.0.1:9/")
    assert done.returncode == 2
    assert str(root) in done.stderr
    assert "(Not a directory)" in done.stderr


def test_a_mirror_that_sends_something_else_is_not_believed(mirror, empty):
    good = {path.name: path.read_bytes() for path in mirror[1].folder.iterdir()}
    (mirror[1].folder / IMAGES).write_bytes(good[IMAGES][:100])
    with pytest.raises(DownloadFailed, match=f"does not match the checksum of {IMAGES} in SHA256SUMS"):
        empty.download(mirror[0])
    assert not (empty.folder / IMAGES).exists()
    assert all(path.read_bytes() == good[path.name] for path in empty.folder.iterdir())


def test_a_mirror_of_another_data_set_is_not_taken_for_the_published_one(mirror, tmp_path):
    with pytest.raises(DownloadFailed, match=r"not Fashion-MNIST's train-images-.* FASHIONNET_DATA_URL"):
        FashionMnist(tmp_path / "new").download(mirror[0])


def test_a_mirror_without_the_file_is_named(mirror, empty):
    with pytest.raises(DownloadFailed, match=r"404.*FASHIONNET_DATA_URL"):
        empty.download(mirror[0] + "elsewhere")


def test_no_network_is_said_in_one_sentence(empty):
    with pytest.raises(DownloadFailed, match="cannot be reached: check the network"):
        empty.download(f"http://127.0.0.1:{free_port()}/")


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "is full: free 40 MB"), (errno.EROFS, "cannot be written or read")]
)
def test_a_disk_that_takes_no_file_is_said_in_one_sentence(empty, monkeypatch, code, words):
    def fail(*_args, **_options):
        raise OSError(code, "the system's words")

    monkeypatch.setattr(pooch, "retrieve", fail)
    with pytest.raises(DownloadFailed, match=words):
        empty.download("http://127.0.0.1/")
