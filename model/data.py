"""Fashion-MNIST as uint8 arrays, read from disk or downloaded, with checksums.

The layout is torchvision's: ``<root>/FashionMNIST/raw/*.gz``. The files are the IDX files of Xiao, Rasul and Vollgraf,
"Fashion-MNIST", arXiv:1708.07747. Another data set of the same format has its checksums in ``raw/SHA256SUMS``, as
``sha256sum *.gz`` writes it.
"""

import gzip
import hashlib
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model import diagnosis
from model.errors import DataCorrupt, DownloadFailed
from model.files import user_path

CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

DEFAULT_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"

SplitName = Literal["train", "test"]
FILES: dict[SplitName, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
PUBLISHED_SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
_SUM_LINE = re.compile(r"^([0-9a-f]{64}) [ *](\S+)$", re.MULTILINE)


class Split(NamedTuple):
    """Images uint8 ``[N, 28, 28]``, light articles on a background of 0, and labels uint8 ``[N]``."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def take(self, indices: NDArray[np.int64]) -> "Split":
        """Returns the examples at ``indices``, int64 ``[M]``, in that order."""
        return Split(self.images[indices], self.labels[indices])

    def first(self, count: int | None) -> "Split":
        """Returns the first ``count`` examples, or all if it is None."""
        return Split(self.images[:count], self.labels[:count])


@dataclass(frozen=True)
class FashionMnist:
    """The data set in ``root``, the folder that contains ``FashionMNIST/raw``."""

    root: Path

    @property
    def folder(self) -> Path:
        """The absolute path of the folder of the four files."""
        return user_path(self.root).absolute() / "FashionMNIST" / "raw"

    def checksums(self) -> Mapping[str, str]:
        """Returns the SHA-256 of each file: from ``SHA256SUMS`` in the folder, or else the published ones.

        Raises:
            DataCorrupt: ``SHA256SUMS`` does not list the four files.
            DataError: ``SHA256SUMS`` cannot be read.
        """
        try:
            text = (self.folder / "SHA256SUMS").read_text(errors="replace")
        except FileNotFoundError:
            return PUBLISHED_SHA256
        except OSError as error:
            raise diagnosis.unreadable(self.folder, "SHA256SUMS", error) from None
        sums = {name: digest for digest, name in _SUM_LINE.findall(text)}
        absent = [name for name in PUBLISHED_SHA256 if name not in sums]
        if absent:
            raise diagnosis.problem(
                DataCorrupt,
                "SHA256SUMS in {folder} does not list {absent}: add the missing files and run "
                "`sha256sum *.gz > SHA256SUMS` there, or remove SHA256SUMS if the files are the published ones.",
                self.folder,
                absent=", ".join(absent),
            )
        return {name: sums[name] for name in PUBLISHED_SHA256}

    def fingerprint(self, split: SplitName) -> str:
        """Returns a SHA-256 of the checksums of the split; does not read its files."""
        sums = self.checksums()
        return hashlib.sha256("".join(sums[name] for name in FILES[split]).encode()).hexdigest()

    def load(self, split: SplitName) -> Split:
        """Reads one split and compares its checksums.

        Raises:
            DataMissing: a file does not exist.
            DataCorrupt: a file does not match its checksum, or is not an IDX file.
            DataError: a file cannot be read.
        """
        images, labels = (self._read(name) for name in FILES[split])
        if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
            raise DataCorrupt(f"The {split} images {images.shape} and labels {labels.shape} do not fit together.")
        return Split(images, labels)

    def download(self, url: str = DEFAULT_URL, *, splits: Sequence[SplitName] = ("train", "test")) -> None:
        """Downloads the missing and damaged files of ``splits`` from the mirror ``url``, with progress bars.

        Creates the folder if necessary. Files are moved into place after their checksums match. A complete folder may
        be read-only.

        Raises:
            DownloadFailed: the network, the disk or a permission fails, or the mirror has no file or a different one.
            DataError: SHA256SUMS in the folder is invalid.
        """
        sums = self.checksums()
        for name in (name for split in splits for name in FILES[split]):
            self._fetch(url.rstrip("/") + "/" + name, name, sums[name])

    def _read(self, name: str) -> NDArray[np.uint8]:
        try:
            packed = (self.folder / name).read_bytes()
        except FileNotFoundError:
            raise diagnosis.missing(self.folder, name) from None
        except OSError as error:
            raise diagnosis.unreadable(self.folder, name, error) from None
        sums = self.checksums()
        if hashlib.sha256(packed).hexdigest() != sums[name]:
            raise diagnosis.altered(self.folder, name, published=sums is PUBLISHED_SHA256)
        try:
            return parse_idx(gzip.decompress(packed), name)
        except (OSError, EOFError, zlib.error) as error:
            sentence = "{name} in {folder} is not a gzip file: compress it with gzip and write SHA256SUMS again."
            raise diagnosis.problem(DataCorrupt, sentence, self.folder, name=name) from error

    def _fetch(self, url: str, name: str, digest: str) -> None:
        import pooch  # with requests a tenth of the start-up time of the service, which needs neither
        import requests

        try:
            pooch.retrieve(url, f"sha256:{digest}", name, self.folder, progressbar=True, processor=_let_everybody_read)
        except requests.HTTPError as error:
            raise DownloadFailed(f"{error}: set FASHIONNET_DATA_URL to a mirror that has the file.") from error
        except requests.RequestException as error:
            raise diagnosis.unreachable(self.folder, url) from error
        except ValueError as error:  # pooch raises it for a wrong checksum and for an unknown URL scheme
            published = digest == PUBLISHED_SHA256[name]
            raise diagnosis.other_file_sent(self.folder, name, url, published=published) from error
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links, before Python 3.13
            raise diagnosis.unwritable(self.folder, error) from error


def _let_everybody_read(path: str, action: str, _pooch: object) -> str:
    """A pooch processor. Pooch creates files that only their owner can read; the service may run as another user."""
    if action != "fetch":
        Path(path).chmod(0o644)
    return path


def parse_idx(raw: bytes, name: str = "the file") -> NDArray[np.uint8]:
    """Parse an IDX file of unsigned bytes (format: yann.lecun.com/exdb/mnist) into a uint8 array.

    Raises:
        DataCorrupt: the header or the length is wrong.
    """
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08":
        raise DataCorrupt(f"{name} is not an IDX file of unsigned bytes.")
    header = 4 + 4 * raw[3]
    shape = tuple(int.from_bytes(raw[i : i + 4], "big") for i in range(4, header, 4))
    if len(raw) != header + math.prod(shape):
        raise DataCorrupt(f"{name} has {len(raw)} bytes, which does not fit the shape {shape} in its header.")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape)


def split_validation(labels: NDArray[np.uint8], size: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns sorted indices (train, validation) with a stratified validation set of ``size``, decided by ``seed``."""
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    quotas = [size // len(classes) + (i < size % len(classes)) for i in range(len(classes))]
    chosen = [
        rng.permutation(np.flatnonzero(labels == label))[:quota] for label, quota in zip(classes, quotas, strict=True)
    ]
    validation = np.sort(np.concatenate(chosen))
    return np.setdiff1d(np.arange(len(labels)), validation), validation
