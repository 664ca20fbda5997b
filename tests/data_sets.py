"""A small data set of the real one's format, made by the tests."""

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.data import FILES, FashionMnist

GET_IT = "the real data set is not there: run scripts/download.py and set FASHIONNET_DATA_DIR to its folder"


def make_data_set(root: Path, train: int = 640, test: int = 200) -> FashionMnist:
    """Ten noisy patterns, one label in twenty wrong, as gzipped IDX files with SHA256SUMS under ``root``."""
    data_set = FashionMnist(root)
    data_set.folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    patterns = np.kron(rng.random((10, 7, 7)), np.ones((4, 4)))
    for split, size in (("train", train), ("test", test)):
        labels = np.arange(size, dtype=np.uint8) % 10
        shown = np.where(np.arange(size) % 20 == 7, (labels + 1) % 10, labels)
        images = (patterns[shown] * 200 + rng.random((size, 28, 28)) * 55).astype(np.uint8)
        for name, array in zip(FILES[split], (images, labels), strict=True):
            (data_set.folder / name).write_bytes(gzip.compress(idx_bytes(array), mtime=0))
    write_sums(data_set)
    return data_set


def write_sums(data_set: FashionMnist) -> None:
    """SHA256SUMS of the files as they are now."""
    files = sorted(data_set.folder.glob("*.gz"))
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (data_set.folder / "SHA256SUMS").write_text("".join(lines))


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """A uint8 array as an IDX file."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


def real_data_set() -> FashionMnist:
    """Fashion-MNIST itself; skips the test where it is not there."""
    data_set = FashionMnist(Path(os.environ.get("FASHIONNET_DATA_DIR", "data")))
    if not data_set.folder.is_dir():
        pytest.skip(GET_IT)
    return data_set
