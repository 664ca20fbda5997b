"""Folders of labelled photos."""

import numpy as np
import pytest

from model.data import CLASSES
from model.errors import DataCorrupt, DataMissing
from model.photos import assign_folds, held_out_senders, read_photos, read_training_photos

PUBLISHED = """image,sender_id,label,kids
a,1,T-Shirt,False
b,1,Hoodie,True
c,2,Hat,False
d,2,Not sure,False
e,204,Pants,False
00d9ec25-9d7a-46bd-8b05-cd2eb6cb7ea2,3,Shoes,False
unknown-shoe,3,Shoes,False
"""


def test_a_clone_of_the_published_photos_gets_our_classes(tmp_path):
    (tmp_path / "images.csv").write_text(PUBLISHED)
    photos = read_photos(tmp_path)
    assert photos.classes.tolist()[:4] == ["T-shirt/top", "Pullover", "none", "Trouser"]
    assert photos.kinds.tolist()[:3] == ["T-Shirt", "Hoodie", "Hat"]
    assert photos.files[0] == tmp_path / "images" / "a.jpg"
    assert not {"d", "unknown-shoe"} & {file.stem for file in photos.files}


def test_labels_of_ones_own(tmp_path):
    (tmp_path / "labels.csv").write_text("image,sender_id,class\na,1,Bag\nb,2,shoe\nc,2,none\n")
    photos = read_photos(tmp_path)
    names = np.array([*CLASSES, "none"])
    assert [names[row].tolist() for row in photos.sets] == [["Bag"], ["Sandal", "Sneaker", "Ankle boot"], ["none"]]


def test_a_folder_for_each_class(tmp_path):
    names = "T-shirt_top/1.JPG", "tshirt/2.png", "Ankle boot/3.jpeg", "none/4.webp", "notes/5.jpg", "Dress/list.txt"
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    photos = read_photos(tmp_path)
    found = {file.name: name for file, name in zip(photos.files, photos.classes.tolist(), strict=True)}
    assert found == {"1.JPG": "T-shirt/top", "2.png": "T-shirt/top", "3.jpeg": "Ankle boot", "4.webp": "none"}
    assert len(set(photos.senders)) == 4


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("image,sender_id\na,1\n", "has no column class"),
        ("image,sender_id,class\na,1,Sock\n", "unknown class 'Sock': use one of T-shirt/top, "),
        ("image,sender_id,class\n\xfc,1,Bag\n", "is not UTF-8"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, table, sentence):
    (tmp_path / "labels.csv").write_text(table, encoding="latin-1")
    with pytest.raises(DataCorrupt, match=sentence):
        read_photos(tmp_path)


def test_a_table_of_excel_and_photos_without_a_sender_are_read(tmp_path):
    (tmp_path / "labels.csv").write_text("image,sender_id,class\na,,Bag\nb,,Bag\n", encoding="utf-8-sig")
    photos = read_photos(tmp_path)
    assert photos.classes.tolist() == ["Bag", "Bag"]
    assert len(set(photos.senders)) == 2, "nobody says that they come from one person"


@pytest.mark.parametrize("folder", ["", "missing"])
def test_a_folder_without_photos_names_the_layouts(tmp_path, folder):
    with pytest.raises(DataMissing, match=r"no labelled photos in .*labels\.csv.*clothing-dataset.*folder per class"):
        read_photos(tmp_path / folder)


def test_senders_that_measure_the_model_never_train_it(tmp_path):
    (tmp_path / "images.csv").write_text(PUBLISHED)
    photos = read_training_photos(tmp_path)
    assert "204" in held_out_senders()
    assert not set(photos.senders) & set(held_out_senders())
    assert len(photos.files) > 2


def test_all_photos_of_ones_own_may_train_whatever_their_senders_are_called(tmp_path):
    (tmp_path / "labels.csv").write_text("image,sender_id,class\na,204,Bag\nb,46,none\n")
    assert read_training_photos(tmp_path).senders.tolist() == ["204", "46"]


def test_the_photos_of_a_sender_are_in_one_fold():
    senders = np.random.default_rng(0).zipf(1.5, 1000).astype(str)
    folds = assign_folds(senders, 5)
    assert all(len(set(folds[senders == sender])) == 1 for sender in set(senders))
    assert set(folds) == set(range(5))
    largest = max(np.bincount(np.unique(senders, return_inverse=True)[1]))
    assert np.bincount(folds).max() <= max(largest, 1000 / 5 * 1.1)
    assert np.array_equal(folds, assign_folds(senders, 5))
