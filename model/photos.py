"""Labelled photos of clothes in a folder.

Three layouts are read:

- a clone of github.com/alexeygrigorev/clothing-dataset (CC0): ``images.csv`` and ``images/IMAGE.jpg``. Its labels
  become our classes (``CLASS_OF_LABEL``); shoes have a finer label in ``photo_labels/shoes.csv``, which two readers
  agreed on,
- ``labels.csv`` with the columns ``image``, ``sender_id`` and ``class``, and ``images/IMAGE.jpg``,
- one folder per class, such as ``Dress/1.jpg``. "T-shirt" and "T-shirt_top" are T-shirt/top.
"""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.data import CLASSES
from model.errors import DataCorrupt, DataMissing
from model.preprocessing.formats import SUFFIXES

SHOES = ("Sandal", "Sneaker", "Ankle boot")
NONE = "none"
ACCEPTED: dict[str, tuple[str, ...]] = {name: (name,) for name in CLASSES} | {"shoe": SHOES, NONE: ()}
"""The right answers for each class of a photo: any of three for a shoe of another kind, none of the ten for others."""
CLASS_OF_LABEL = {
    "T-Shirt": "T-shirt/top", "Polo": "T-shirt/top", "Undershirt": "T-shirt/top", "Top": "T-shirt/top",
    "Pants": "Trouser", "Longsleeve": "Pullover", "Hoodie": "Pullover", "Dress": "Dress", "Outwear": "Coat",
    "Blazer": "Coat", "Shirt": "Shirt", "Blouse": "Shirt", "Hat": NONE, "Shorts": NONE, "Skirt": NONE, "Body": NONE,
}  # fmt: skip
"""Published labels that are used; "Not sure", "Other" and "Skip" are not."""
_LABELS = Path(__file__).parent / "photo_labels"


class Photos(NamedTuple):
    """N labelled photos."""

    files: list[Path]
    classes: NDArray[np.str_]
    """``[N]``, keys of ``ACCEPTED``."""
    senders: NDArray[np.str_]
    """``[N]``, who sent the photo; the file itself where nobody says."""
    kinds: NDArray[np.str_]
    """``[N]``, the published label, such as Hat; the class where there is none."""

    def take(self, indices: NDArray[np.int64]) -> "Photos":
        """Returns the photos at ``indices``, int64 ``[M]``, in that order."""
        files = [self.files[index] for index in indices]
        return Photos(files, self.classes[indices], self.senders[indices], self.kinds[indices])

    def first(self, count: int | None) -> "Photos":
        """Returns the first ``count`` photos, or all if it is None."""
        return Photos(*(rows[:count] for rows in self))  # type: ignore[arg-type]

    @property
    def sets(self) -> NDArray[np.bool_]:
        """The right answers, bool ``[N, 11]``: the ten classes, then none of them."""
        rows = {name: [*(label in labels for label in CLASSES), not labels] for name, labels in ACCEPTED.items()}
        return np.array([rows[name] for name in self.classes], np.bool_).reshape(-1, len(CLASSES) + 1)


def read_photos(folder: Path) -> Photos:
    """Returns the labelled photos in ``folder``; does not open them.

    Raises:
        DataMissing: the folder has none of the three layouts.
        DataCorrupt: a table lacks a column, has an unknown class, or is not UTF-8.
    """
    if (folder / "labels.csv").is_file():
        rows = list(_read_labels(folder))
    elif _is_published(folder):
        rows = list(_read_published(folder))
    else:
        rows = list(_read_folders(folder))
    if not rows:
        raise DataMissing(
            f"There are no labelled photos in {folder}: name a folder with labels.csv, a clone of "
            "https://github.com/alexeygrigorev/clothing-dataset, or a folder with one folder per class."
        )
    files, classes, senders, kinds = zip(*rows, strict=True)
    return Photos(list(files), np.array(classes), np.array(senders), np.array(kinds))


def held_out_senders() -> list[str]:
    """Returns the senders of the published photos whose photos never train a model."""
    return (_LABELS / "held_out_senders.txt").read_text().split()


def read_training_photos(folder: Path) -> Photos:
    """Returns the photos in ``folder`` that may train a model: all but some of the published ones.

    Raises:
        DataError: see ``read_photos``.
    """
    photos = read_photos(folder)
    if not _is_published(folder):
        return photos
    return photos.take(np.flatnonzero(~np.isin(photos.senders, held_out_senders())))


def _is_published(folder: Path) -> bool:
    return (folder / "images.csv").is_file() and not (folder / "labels.csv").is_file()


def assign_folds(senders: NDArray[np.str_], count: int) -> NDArray[np.int64]:
    """Returns the fold of each photo, int64 ``[N]``: the photos of one sender are in one fold.

    The sender with the most photos goes first, each to the fold with the fewest photos so far.
    """
    names, positions, photos = np.unique(senders, return_inverse=True, return_counts=True)
    sizes, folds = np.zeros(count, np.int64), np.zeros(len(names), np.int64)
    for sender in np.argsort(-photos, kind="stable"):
        folds[sender] = sizes.argmin()
        sizes[folds[sender]] += photos[sender]
    return folds[positions]


def likeliest_answers(sets: NDArray[np.bool_], values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Returns the right answer with the highest value, uint8 ``[N]``: one label for a shoe of another kind too.

    Args:
        sets: the right answers, bool ``[N, 10]``.
        values: logits or probabilities, ``[N, 10]``.
    """
    answers: NDArray[np.uint8] = np.where(sets, values, -np.inf).argmax(1).astype(np.uint8)
    return answers


_Row = tuple[Path, str, str, str]


def _read_labels(folder: Path) -> Iterator[_Row]:
    for row in _read_table(folder / "labels.csv", ("image", "sender_id", "class")):
        if row["class"] not in ACCEPTED:
            raise DataCorrupt(
                f"{folder / 'labels.csv'} has the unknown class {row['class']!r:.40}: use one of {', '.join(ACCEPTED)}."
            )
        yield _image(folder, row), row["class"], row["sender_id"] or row["image"], row.get("label") or row["class"]


def _read_published(folder: Path) -> Iterator[_Row]:
    shoes = {row["image"]: row["class"] for row in _read_table(_LABELS / "shoes.csv", ("image", "class"))}
    for row in _read_table(folder / "images.csv", ("image", "sender_id", "label")):
        name = shoes.get(row["image"]) if row["label"] == "Shoes" else CLASS_OF_LABEL.get(row["label"])
        if name:
            yield _image(folder, row), name, row["sender_id"] or row["image"], row["label"]


def _read_folders(folder: Path) -> Iterator[_Row]:
    names = {_plain(name): name for name in ACCEPTED} | {"tshirt": "T-shirt/top"}
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    for place in inside:
        name = names.get(_plain(place.name))
        files = sorted(place.iterdir()) if name and place.is_dir() else []
        for file in files:
            if name and file.suffix.lower() in SUFFIXES:
                yield file, name, str(file.relative_to(folder)), name


def _read_table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(_read_text(path), newline=""))
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise DataCorrupt(f"{path} has no column {missing[0]}: it needs {', '.join(columns)}.")
    return list(reader)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")  # Excel begins a table with a byte order mark
    except UnicodeDecodeError:
        raise DataCorrupt(f"{path} is not UTF-8: save it as CSV in UTF-8.") from None


def _image(folder: Path, row: dict[str, str]) -> Path:
    return folder / "images" / f"{row['image']}.jpg"


def _plain(name: str) -> str:
    return re.sub("[^a-z]", "", name.lower())
