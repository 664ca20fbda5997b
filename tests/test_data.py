import contextlib
import errno
import functools
import http.server
import shutil
import socket
import threading
from collections.abc import Iterator

import numpy as np
import pooch
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from model.data import CLASSES, PUBLISHED_SHA256, FashionMnist, parse_idx, split_validation
from model.errors import DataCorrupt, DataError, DataMissing, DownloadFailed
from tests.data_sets import idx_bytes, make_data_set, real_data_set, write_sums

IMAGES = "t10k-images-idx3-ubyte.gz"


@given(arrays(np.uint8, array_shapes(max_dims=4)))
def test_an_idx_file_is_read_back(array):
    assert (parse_idx(idx_bytes(array)) == array).all()


@given(st.binary(max_size=64))
def test_any_bytes_are_an_idx_file_or_a_data_error(raw):
    with contextlib.suppress(DataError):
        assert parse_idx(raw).dtype == np.uint8


def test_the_real_data_set_is_what_its_paper_says():
    data_set = real_data_set()
    train, test = data_set.load("train"), data_set.load("test")
    assert (train.images.shape, test.images.shape) == ((60000, 28, 28), (10000, 28, 28))
    assert (np.bincount(train.labels) == 6000).all()
    assert (np.bincount(test.labels) == 1000).all()
    scaled = train.images / 255
    assert scaled.mean() == pytest.approx(0.2860406, abs=1e-7)
    assert scaled.std() == pytest.approx(0.3530242, abs=1e-7)


def test_a_missing_data_set_says_how_to_get_it(tmp_path):
    with pytest.raises(DataMissing, match=r"scripts/download.py.*FASHIONNET_DATA_DIR"):
        FashionMnist(tmp_path).load("test")


@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
def test_a_damaged_file_is_never_used(fresh_data, damage):
    path = fresh_data.folder / IMAGES
    content = path.read_bytes()
    middle = len(content) // 2
    altered = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes({"truncated": content[:middle], "altered": altered, "empty": b""}[damage])
    with pytest.raises(DataCorrupt, match=f"{IMAGES} in the data folder does not match its checksum"):
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


def test_there_are_ten_classes():
    assert len(set(CLASSES)) == 10


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
    empty.download(mirror[0], progress=False)
    good, bad = empty.folder / "train-images-idx3-ubyte.gz", empty.folder / IMAGES
    bad.write_bytes(b"bad")
    before = good.stat().st_mtime_ns
    empty.download(mirror[0], progress=False)
    assert good.stat().st_mtime_ns == before
    assert len(empty.load("test").labels) == 20


def test_a_complete_folder_needs_no_network(fresh_data):
    fresh_data.download(f"http://127.0.0.1:{_closed_port()}/", progress=False)


def test_a_mirror_that_sends_something_else_is_not_believed(mirror, empty):
    good = {path.name: path.read_bytes() for path in mirror[1].folder.iterdir()}
    (mirror[1].folder / IMAGES).write_bytes(good[IMAGES][:100])
    with pytest.raises(DownloadFailed, match=f"not Fashion-MNIST's {IMAGES} and was thrown away"):
        empty.download(mirror[0], progress=False)
    assert not (empty.folder / IMAGES).exists()
    assert all(path.read_bytes() == good[path.name] for path in empty.folder.iterdir())


def test_a_mirror_without_the_file_is_named(mirror, empty):
    with pytest.raises(DownloadFailed, match=r"404.*FASHIONNET_DATA_URL"):
        empty.download(mirror[0] + "elsewhere", progress=False)


def test_no_network_is_said_in_one_sentence(empty):
    with pytest.raises(DownloadFailed, match="cannot be reached: check the network"):
        empty.download(f"http://127.0.0.1:{_closed_port()}/", progress=False)


@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "is full: free 40 MB"), (errno.EACCES, "cannot be written")]
)
def test_a_disk_that_takes_no_file_is_said_in_one_sentence(empty, monkeypatch, code, words):
    def fail(*_args, **_options):
        raise OSError(code, "the system's words")

    monkeypatch.setattr(pooch, "retrieve", fail)
    with pytest.raises(DownloadFailed, match=words):
        empty.download("http://127.0.0.1/", progress=False)


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
